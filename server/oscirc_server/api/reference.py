"""`docs/api.md`, written from the OpenAPI document: `python -m oscirc_server.api.reference > docs/api.md`.

A test holds that the file in the repository is what this writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http import HTTPStatus

from oscirc_server.api import application
from oscirc_server.api.document import Json, description

_HEAD = """\
# REST API

<!-- Written by `python -m oscirc_server.api.reference > docs/api.md`; a test holds that it is current. -->
"""
_READ_ON = """
The same as a document for machines: `GET api/v1/openapi.json`. Why it is as it is: [ADR 18](adr/0018-rest-api.md);
the publishing protocol: [ADR 2](adr/0002-publishing-protocol.md).
"""


def markdown() -> str:
    """The whole page."""
    document: Json = application.build().openapi()
    return "\n".join([_HEAD, description(), _READ_ON, *_operations(document)]).rstrip() + "\n"


def _operations(document: Json) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, Json]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    texts = {tag["name"]: tag["description"] for tag in document["tags"]}
    for tag, found in by_tag.items():
        if not found:
            continue
        yield f"## {tag.capitalize()}\n\n{texts.get(tag, '')}\n"
        for method, path, operation in sorted(found, key=lambda each: (each[1], each[0])):
            yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"### {method} `{path.removeprefix('/api/v1/')}`\n"
    yield operation["description"] + "\n"
    yield f"`{operation['operationId']}`. {'Needs a token.' if operation.get('security') else 'Needs no token.'}\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | |\n|---|---|---|"
        for parameter in parameters:
            yield f"| `{parameter['name']}` | {parameter['in']} | {_about(parameter)} |"
        yield ""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from _content(f"Body: `{media_type}`", content)
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            contents = answer.get("content", {})
            for media_type, content in contents.items():
                yield from _content(f"Answer {status}: `{media_type}`", content)
            if not contents:
                yield f"Answer {status}, without a body.\n"
    refused = [status for status in operation["responses"] if not status.startswith("2")]
    yield f"Also: {', '.join(f'{status} {HTTPStatus(int(status)).phrase}' for status in refused)}.\n"


def _about(parameter: Json) -> str:
    schema = parameter.get("schema", {})
    facts = [parameter["description"]] if parameter.get("description") else []
    if parameter.get("required"):
        facts.append("Required.")
    choices = schema.get("enum")
    if choices:
        facts.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    if schema.get("default") not in (None, ""):
        facts.append(f"Default `{schema['default']}`.")
    if "example" in parameter:
        facts.append(f"For example `{parameter['example']}`.")
    return " ".join(facts).replace("|", "\\|").replace("\n", " ")


def _content(title: str, content: Json) -> Iterator[str]:
    yield f"{title}\n"
    if "example" in content:
        yield f"```json\n{json.dumps(content['example'], indent=2, ensure_ascii=False)}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
