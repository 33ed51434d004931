"""The OpenAPI document is whole, and docs/api.md says what it says."""

from pathlib import Path

import jsonschema_rs
import pytest

from oscirc_server.api import application, reference

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
DOCUMENT = application.build().openapi()
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
OPEN_WRITES = {"add_run", "exchange_jwt"}  # what anybody may send, with bounds of its own


def resolved(schema):
    return {**schema, "components": DOCUMENT["components"]}


def test_every_operation_has_a_name_of_its_own():
    assert len(OPERATIONS) == sum(len(item) for item in DOCUMENT["paths"].values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_does_what_it_takes_and_how_it_refuses(name):
    method, path, operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"].rstrip().endswith((".", ")", "`"))
    (tag,) = operation["tags"]
    assert tag in {known["name"] for known in DOCUMENT["tags"]}
    answers = operation["responses"]
    assert any(status.startswith("2") for status in answers)
    for status, answer in answers.items():
        assert answer["description"]
        if not status.startswith(("2", "304")) and not (status == "503" and name == "ready"):
            assert list(answer["content"]) == ["application/problem+json"]
    if method != "get":
        assert bool(operation.get("security")) is (name not in OPEN_WRITES)
    if operation.get("security"):
        assert {"401", "403"} <= set(answers)
    if "requestBody" in operation:
        assert {"408", "413", "415", "422"} <= set(answers)
    if "{" in path:
        assert "404" in answers


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_example_is_one(name):
    _, _, operation = OPERATIONS[name]
    parts = [operation.get("requestBody", {}), *operation["responses"].values()]
    contents = [(kind, content) for part in parts for kind, content in part.get("content", {}).items()]
    for kind, content in contents:
        if kind in ("application/json", "application/problem+json"):
            jsonschema_rs.validate(resolved(content["schema"]), content["example"])
    for parameter in operation.get("parameters", []):
        if "example" in parameter:
            jsonschema_rs.validate(parameter["schema"], parameter["example"])


def test_the_document_names_no_form_of_error_that_is_never_sent():
    assert "HTTPValidationError" not in str(DOCUMENT)


def test_the_reference_is_current():
    assert PAGE.read_text() == reference.markdown(), "python -m oscirc_server.api.reference > docs/api.md"
