"""Made-up requests out of the OpenAPI document, to a real server: it never fails, and answers only what it documents.

The server has what the document's examples name, so that the examples reach something. Each operation is asked with
values that fit the document and with values that do not, with an administrator's token. A few requests each in the
everyday suite, many in `make test-long`.
"""

import json
import sys
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from oscirc_server.api import application
from oscirc_server.clock import system_clock
from oscirc_server.services.frame_records import FRAME_MEDIA_TYPE

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import FRAMES, block, make_world

from .test_server_over_http import connected, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
DOCUMENT = json.loads(json.dumps(application.build().openapi()))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@schemathesis.serializer(FRAMES, FRAME_MEDIA_TYPE)
def _as_it_is(_context, value):
    return value.data if hasattr(value, "data") else value


NAMES = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
READS = {
    operation["operationId"]: (path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method == "get" and not operation.get("security")
}
BOUNDED = [
    operation["operationId"]
    for item in DOCUMENT["paths"].values()
    for operation in item.values()
    if "requestBody" in operation
    or any(each["in"] == "query" or "pattern" in each["schema"] for each in operation.get("parameters", []))
]
EVERYDAY, LONG = 2, 60
"""Requests of each kind and operation."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The URL of a server that has alice/debian 12.1 and 12.2, and an administrator's headers."""
    world = make_world(tmp_path_factory.mktemp("openapi"), system_clock)
    alice = world.add_publisher("alice")
    token = world.made.admin_token
    with serving(world.settings) as url, requests.Session() as session:
        with connected(url, token) as api:
            for version in ("12.1", "12.2"):
                disk = alice.build("debian", [block("same"), block(version)], family="debian", version=version)
                assert api.publish(alice, "debian", version, disk).status_code == 200
        yield url, {"Authorization": f"Bearer {token}"}, session


def ask(asked, name, mode, count):
    url, headers, session = asked
    operation = SCHEMA.find_operation_by_id(name)

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        response = case.call(base_url=url, headers=headers, session=session, timeout=60)
        case.validate_response(response, checks=CHECKS)

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # it takes whatever there is


@pytest.mark.parametrize("name", READS)
def test_the_examples_of_what_is_public_are_answered(asked, name):
    """Digests apart, what the document names is there."""
    url, _, session = asked
    operation = SCHEMA.find_operation_by_id(name)
    path, described = READS[name]
    values = {each["name"]: each.get("example", 1) for each in described.get("parameters", []) if each["in"] == "path"}
    response = operation.Case(path_parameters=values).call(base_url=url, session=session, timeout=60)
    operation.Case(path_parameters=values).validate_response(response, checks=CHECKS)
    assert response.status_code == (404 if "digest" in values else 200), (path, response.text)


@pytest.mark.parametrize("name", NAMES)
def test_what_fits_the_document_is_answered_as_it_says(asked, name):
    ask(asked, name, GenerationMode.POSITIVE, EVERYDAY)


@pytest.mark.parametrize("name", BOUNDED)
def test_what_does_not_fit_the_document_is_refused_as_it_says(asked, name):
    ask(asked, name, GenerationMode.NEGATIVE, 1)


@pytest.mark.long
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "fits not"])
@pytest.mark.parametrize("name", NAMES)
def test_many_requests_find_nothing_undocumented(asked, name, mode):
    ask(asked, name, mode, LONG)


@pytest.mark.parametrize("path", ["images", "images/alice/debian/versions/12.1/disk.raw", "roles/targets"])
def test_a_real_server_answers_head_and_goes_on_with_the_connection(asked, path):
    url, _, session = asked
    for _ in range(2):
        head = session.head(f"{url}/api/v1/{path}", timeout=60)
        whole = session.get(f"{url}/api/v1/{path}", timeout=60)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))
        assert head.headers["etag"] == whole.headers["etag"]
