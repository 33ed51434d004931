"""The OpenAPI document, derived: what an operation takes decides what it may answer.

A route states what is its own: parameters, models, the refusals that only it has (`refusals`), media types that are
not JSON (`produces`). Everything else follows here, for every route alike, so that nobody forgets it:

- a token (`security.authenticated` anywhere among its dependencies): 401, 403, 429, 429 (wrong tokens too often);
- names in its path: 404; anything that is asked: 400 and 422;
- a body: 408, 413, 415; an answer with a body: 406; a read: 304 and a validator; everything: 503;
- examples, from `examples` by name of field.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from oscirc_server.api import examples, media, security
from oscirc_server.api.problems import MEDIA_TYPE

Json = dict[str, Any]

TITLE = "oscirc"
VERSION = "1"
TAGS = {
    "catalog": "Images, their versions and channels, search, and what changed.",
    "disks": "What a version is made of: manifest, mapping table, differences, and the disk as a file.",
    "accelerators": "Files that make a version start or update sooner.",
    "publishing": "Drafts: negotiate, upload, release.",
    "publishers": "Who publishes here, and their signed roles.",
    "metadata": "Signed roles as they are, and `repository.json`.",
    "accounts": "Users, members of publishers, robots.",
    "pipelines": "CI pipelines that publish with a JWT of their own.",
    "quotas": "What publishers keep, and how much they may.",
    "administration": "Tokens, roles above the publishers, audit.",
    "jobs": "Work of the server in the background.",
    "health": "For whatever watches this server.",
}
_MEANINGS = {
    304: "What the caller has (If-None-Match) is current.",
    400: "A name or a question that is not allowed.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "The token, or a signature, does not allow this.",
    404: "What the path names is not here.",
    406: "There is no answer of a media type that the request accepts.",
    408: "The body stalled.",
    409: "It does not fit what is there.",
    412: "If-Match or If-None-Match does not hold.",
    413: "The body is too long.",
    415: "The body is of another media type.",
    416: "The range lies beyond the end.",
    422: "A value that is not what it should be.",
    429: "Too often; `Retry-After` says when.",
    503: "The server cannot now; `Retry-After` says when.",
    507: "The store is full.",
}
_NAME, _LABEL = "^[a-z0-9][a-z0-9.-]{0,62}$", "^[a-z0-9][a-z0-9.+_-]{0,62}$"
PATTERNS = dict.fromkeys(("publisher", "image", "channel", "profile", "user", "robot", "name"), _NAME) | dict.fromkeys(
    ("version", "other", "target"), _LABEL
)
"""What names in paths look like; services hold them to it (400)."""
_PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}


def description() -> str:
    """What holds for every call: `introduction.md`."""
    return files("oscirc_server.api").joinpath("introduction.md").read_text("utf-8")


def refusals(*statuses: int) -> dict[int | str, Json]:
    """For a route's `responses`: problems that only this operation has."""
    return {int(status): _problem(int(status)) for status in statuses}


def produces(media_type: str, description: str, *, status: int = 200) -> dict[int | str, Json]:
    """For a route's `responses`: a good answer that is no JSON."""
    schema = {"type": "object"} if media_type == media.JSON else {"type": "string", "format": "binary"}
    return {status: {"description": description, "content": {media_type: {"schema": schema}}}}


def operations(routers: Sequence[APIRouter], prefix: str) -> Iterator[tuple[str, str, APIRoute]]:
    """(path, method in lower case, route) of everything that the document describes."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in sorted(route.methods or ()):
                    yield prefix + route.path_format, method.lower(), route


def needs_token(route: APIRoute) -> bool:
    """Whether the operation refuses whoever has no token."""

    def walk(dependant: Dependant) -> bool:
        return dependant.call is security.authenticated or any(walk(each) for each in dependant.dependencies)

    return walk(route.dependant)


def build(app: FastAPI, routers: Sequence[APIRouter], prefix: str) -> Json:
    """The whole document of an application that includes these routers below `prefix`."""
    document = get_openapi(
        title=TITLE,
        version=VERSION,
        description=description(),
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    schemas: Json = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = copy.deepcopy(_PROBLEM_SCHEMA)
    for name, schema in schemas.items():
        if name != "Problem":
            examples.annotate(schema)
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer oscirc_…`"}
    }
    for path, method, route in operations(routers, prefix):
        _complete(document["paths"][path][method], method, route, schemas)
    return document


def _complete(operation: Json, method: str, route: APIRoute, schemas: Json) -> None:
    text = inspect.cleandoc(route.endpoint.__doc__ or "")
    summary = text.partition("\n\n")[0].replace("\n", " ")
    operation["summary"] = summary if len(summary) <= 120 else f"{summary[:119]}…"  # noqa: PLR2004
    operation["description"] = text
    authorised = needs_token(route)
    if authorised:
        operation["security"] = [{"token": []}]
    parameters: list[Json] = operation.setdefault("parameters", [])
    answers: Json = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422", "")):
        del answers["422"]
    for status in _implied(operation, route, authorised=authorised):
        answers.setdefault(str(int(status)), _problem(int(status)))
    _add_headers(operation, method, answers, authorised=authorised)
    for parameter in parameters:
        _describe(parameter)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content["schema"] = _hoisted(content["schema"], schemas)
        examples.annotate(content["schema"])
    for part in (operation.get("requestBody", {}), *answers.values()):
        for media_type, content in part.get("content", {}).items():
            if media_type == media.JSON and "example" not in content:
                content["example"] = examples.of(content["schema"], schemas)
    if not parameters:
        del operation["parameters"]
    operation["responses"] = dict(sorted(answers.items()))


def _describe(parameter: Json) -> None:
    if parameter["in"] == "path" and parameter["name"] in PATTERNS:
        parameter["schema"].setdefault("pattern", PATTERNS[parameter["name"]])
    examples.annotate_parameter(parameter)


def _hoisted(schema: Json, schemas: Json) -> Json:
    """A body's schema whose own definitions stand among those of the document."""
    moved: Json = json.loads(json.dumps(schema).replace("#/$defs/", "#/components/schemas/"))
    for name, inner in moved.pop("$defs", {}).items():
        examples.annotate(inner)
        schemas.setdefault(name, inner)
    return moved


def _implied(operation: Json, route: APIRoute, *, authorised: bool) -> list[HTTPStatus]:
    implied = [HTTPStatus.SERVICE_UNAVAILABLE]
    if authorised and "POST" in (route.methods or ()):
        implied += [HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY]
    places = {parameter["in"] for parameter in operation["parameters"]}
    body = bool(media.consumed(route))
    if places or body:
        implied += [HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY]
    if "path" in places:
        implied.append(HTTPStatus.NOT_FOUND)
    if authorised:
        implied += [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS]
    if body:
        implied += [HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE]
    if media.produced(route):
        implied.append(HTTPStatus.NOT_ACCEPTABLE)
    return implied


def _add_headers(operation: Json, method: str, answers: Json, *, authorised: bool) -> None:
    if method == "get":
        operation["parameters"].append(_header("If-None-Match", "A validator that the caller has: then 304."))
        answers["304"] = {"description": _MEANINGS[304]}
        for status in ("200", "206"):
            if status in answers:
                answers[status].setdefault("headers", {})["ETag"] = _answer_header("The validator.")
        if any(parameter["name"] == "after" for parameter in operation["parameters"]):
            link = _answer_header('The next page, `rel="next"`; absent on the last one.')
            answers["200"].setdefault("headers", {})["Link"] = link
    elif method == "post" and authorised:
        text = "1 to 200 visible characters: the same call again within a day gets the first answer again."
        operation["parameters"].append(_header("Idempotency-Key", text, pattern="^[!-~]{1,200}$"))


def _header(name: str, description: str, *, pattern: str | None = None) -> Json:
    schema: Json = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _answer_header(description: str) -> Json:
    return {"description": description, "schema": {"type": "string"}}


def _problem(status: int) -> Json:
    title = HTTPStatus(status).phrase
    example = {"type": examples.PROBLEM_TYPES.get(status, "UsageError"), "title": title, "status": status}
    example["detail"] = _MEANINGS.get(status, title)
    answer: Json = {
        "description": _MEANINGS.get(status, title),
        "content": {MEDIA_TYPE: {"schema": dict(_PROBLEM_REFERENCE), "example": example}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        answer["headers"] = {"Retry-After": _answer_header("In how many seconds to try again.")}
    return answer


_PROBLEM_SCHEMA: Json = {
    "title": "Problem",
    "description": "An RFC 9457 problem. `type` is what a client acts on; further members carry values.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "The kind of error, a name that stays."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, for people."},
        "hint": {"type": "string", "description": "What they can do."},
    },
    "additionalProperties": True,
}
