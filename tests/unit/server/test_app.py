"""The application as a whole: problems from everywhere, health, headers, nothing secret in the log."""

import logging

import pytest
from sqlalchemy.exc import DataError, OperationalError

from oscirc_blockstore import errors
from oscirc_server.api.problems import STATUS, status_of
from oscirc_server.errors import RoleConflictError
from oscirc_server.services import catalog, drafts
from oscirc_server.web.rendering import asset_path

from .server_world import DAY_S, Api


def is_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == status
    return body


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1/nothing", "/api/v2", "/api/v1/", "/metadata/x", "/blocks/", "//"]
)
def test_an_unknown_path_is_a_problem(http, path):
    is_problem(http.get(f"http://repository.test{path}"), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/api/v1/drafts"),
        ("POST", "/api/v1/roles/root"),
        ("POST", "/"),
        ("DELETE", "/metadata/timestamp.json"),
    ],
)
def test_a_wrong_method_is_a_problem_that_names_the_right_ones(http, method, path):
    answer = http.request(method, path)
    is_problem(answer, 405)
    assert answer.headers["allow"]


def test_an_unexpected_error_tells_nothing_and_is_logged(http, monkeypatch, caplog):
    def fail(*_args, **_kwargs):
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(catalog, "images", fail)
    with caplog.at_level(logging.ERROR):
        body = is_problem(http.get("/api/v1/images"), 500)
    assert body["type"] == "InternalError"
    assert "secret" not in str(body)


@pytest.mark.parametrize("path", ["api/v1/roles/%00", "images/alice/debian/versions?after=%00", "images/%00/x"])
def test_a_character_that_a_database_refuses_is_no_failure_of_the_database(http, path):
    assert http.get(f"/{path}").status_code in (400, 404, 422)


def test_what_a_database_refuses_is_logged_without_what_was_asked(http, monkeypatch, caplog):
    def refuse(*_args, **_kwargs):
        raise DataError("SELECT hidden", {"name": "hidden"}, ValueError("hidden\nis out of range"))

    monkeypatch.setattr(catalog, "images", refuse)
    with caplog.at_level(logging.WARNING, "oscirc_server"):
        answer = http.get("/api/v1/images?publisher=hidden")
    assert is_problem(answer, 422)["type"] == "RequestRefusedError"
    (record,) = [record for record in caplog.records if "refused a value" in record.message]
    assert record.levelname == "WARNING"
    assert (vars(record)["method"], vars(record)["error"]) == ("GET", "ValueError")
    assert vars(record)["route"].endswith("/images")
    assert "hidden" not in str(vars(record))
    assert "hidden" not in answer.text


def test_a_database_that_fails_is_told_to_be_tried_again(http, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OperationalError("SELECT secret", {}, Exception("locked"))

    monkeypatch.setattr(catalog, "images", fail)
    answer = http.get("/api/v1/images")
    assert "secret" not in answer.text
    assert is_problem(answer, 503)["type"] == "DatabaseError"
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UsageError("x"), 400),
        (errors.NameRefusedError("x"), 400),
        (errors.NotFoundError("x"), 404),
        (errors.TrustError("x"), 403),
        (errors.SignatureRefusedError("x"), 403),
        (RoleConflictError("x", current_version=3), 409),
        (errors.UnreachableError("x"), 503),
        (errors.BusyError("x"), 503),
        (errors.StoreFullError("x"), 507),
        (errors.LocalError("x"), 500),
        (errors.IntegrityError("x"), 422),
        (errors.FrameRefusedError("x"), 422),
        (errors.OscircError("x"), 500),
    ],
)
def test_every_branch_of_the_tree_has_its_status(error, status):
    assert status_of(error) == status


def test_no_row_of_the_table_hides_another():
    for place, (kind, _) in enumerate(STATUS):
        assert not any(issubclass(kind, earlier) for earlier, _ in STATUS[:place]), kind


def test_what_a_service_says_reaches_the_client_with_its_hint(http, world, monkeypatch):
    def fail(*_args, **_kwargs):
        raise errors.NotFoundError("no such thing", hint="look elsewhere")

    monkeypatch.setattr(drafts, "get", fail)
    body = is_problem(Api(http, world.made.admin_token).call("GET", "drafts/x"), 404)
    assert (body["type"], body["detail"], body["hint"]) == ("NotFoundError", "no such thing", "look elsewhere")


def test_health_says_what_fails(world, http, installation, monkeypatch):
    assert http.get("/api/v1/health/live").json() == {"status": "ok", "failing": []}
    assert http.get("/api/v1/health/ready").json() == {"status": "ok", "failing": []}
    world.place.lose_store()
    world.clock.advance(8 * DAY_S)

    answer = http.get("/api/v1/health/ready")
    assert answer.status_code == 503
    assert answer.json()["failing"] == ["snapshot expired", "timestamp expired", "store"]
    assert http.get("/api/v1/health/live").status_code == 200

    def fail():
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(installation.database, "read", fail)
    assert http.get("/api/v1/health/ready").json()["failing"] == ["database", "store"]


def test_answers_are_not_stored_by_caches_unless_they_say_so(http, admin):
    for path in ("/api/v1/images", "/api/v1/publishers", "/", "/api/v1/tokens", "/api/v1/health/live"):
        answer = http.get(path, headers={"Authorization": f"Bearer {admin.token}"})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "max-age" in http.get(f"/{asset_path('catalog.css')}").headers["cache-control"]


def test_the_interface_describes_itself(http):
    described = http.get("/api/v1/openapi.json").json()
    assert {"/api/v1/drafts", "/api/v1/drafts/{draft_id}/frames", "/api/v1/roles/targets"} <= set(described["paths"])
    assert "requestBody" in described["paths"]["/api/v1/drafts/{draft_id}/release"]["post"]
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert http.get(path).status_code == 404


def test_requests_are_logged_without_secrets(http, admin, caplog):
    with caplog.at_level(logging.DEBUG, "oscirc_server"):
        admin.call("GET", "tokens?token=in-the-query")
        http.get("/api/v1/health/live")
        http.get("/metadata/timestamp.json?secret=in-the-query")
    lines = [(record.levelname, vars(record)["path"]) for record in caplog.records if record.message == "request"]
    assert lines == [
        ("INFO", "/api/v1/tokens"),
        ("DEBUG", "/api/v1/health/live"),
        ("DEBUG", "/metadata/timestamp.json"),
    ]
    assert admin.token not in caplog.text
    assert "in-the-query" not in caplog.text
