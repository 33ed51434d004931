"""What every request goes through: its id from trusted proxies only, one line in the log, figures with bounded labels."""

import logging
from dataclasses import replace

import pytest

from oscirc_server import request_ids
from oscirc_server.app import create_app
from oscirc_server.metrics import Metrics
from oscirc_server.services import catalog

from .in_process import client_at, client_of
from .server_world import Api, block
from .test_app import is_problem
from .test_metrics import values

MADE = "0123456789abcdef"


def test_an_id_is_made_for_who_brings_none_and_is_in_the_problem_too(http):
    answer = http.get("/api/v1/nothing")
    made = answer.headers["x-request-id"]
    assert request_ids.is_request_id(made)
    assert is_problem(answer, 404)["request_id"] == made
    assert http.get("/api/v1/nothing").headers["x-request-id"] != made


def test_a_trusted_proxys_id_is_kept_and_a_strangers_is_not(http):
    headers = {"X-Request-Id": MADE}
    assert http.get("/api/v1/images", headers=headers).headers["x-request-id"] == MADE
    stranger = client_at("203.0.113.9", http)
    assert stranger.get("/api/v1/images", headers=headers).headers["x-request-id"] != MADE


@pytest.mark.parametrize("told", ["", "short", "a" * 65, 'quote"quote', "line\tline", "{}{}{}{}{}", "ümlautümlaut"])
def test_an_id_that_could_trick_a_log_is_replaced(http, told):
    made = http.get("/api/v1/images", headers={"X-Request-Id": told.encode()}).headers["x-request-id"]
    assert made != told
    assert request_ids.is_request_id(made)


def test_files_of_the_tree_carry_no_id_and_their_problems_do(http):
    assert "x-request-id" not in http.get("/metadata/timestamp.json").headers
    problem = http.get("/blocks/sha256/00/none.zst")
    assert request_ids.is_request_id(is_problem(problem, 404)["request_id"])


def test_whose_address_is_logged_is_said_by_trusted_proxies_only(http, caplog):
    headers = {"X-Forwarded-For": "198.51.100.7"}
    with caplog.at_level(logging.INFO, "oscirc_server"):
        http.get("/api/v1/images", headers=headers)
        client_at("203.0.113.9", http).get("/api/v1/images", headers=headers)
    assert [vars(record)["client"] for record in caplog.records] == ["198.51.100.7", "203.0.113.9"]


def test_proxies_may_be_networks_or_nobody(world, installation, caplog):
    for trusted, expected in (("10.0.0.0/8", "198.51.100.7"), ("", "10.1.2.3")):
        installation.settings = replace(installation.settings, trusted_proxies=trusted)
        with client_of(create_app(installation)) as http, caplog.at_level(logging.INFO, "oscirc_server.requests"):
            client_at("10.1.2.3", http).get("/api/v1/images", headers={"X-Forwarded-For": "198.51.100.7"})
        assert vars(caplog.records[-1])["client"] == expected


def test_the_line_of_a_request_says_who_what_and_how_much(world, http, admin, caplog):
    with caplog.at_level(logging.INFO, "oscirc_server"):
        answer = admin.call("POST", "tokens?x=secret", json={"name": "ci", "scopes": ["publish:alice"]})
    (record,) = [record for record in caplog.records if record.message == "request"]
    facts = vars(record)
    assert (facts["method"], facts["path"], facts["route"]) == ("POST", "/api/v1/tokens", "/api/v1/tokens")
    assert (facts["status"], facts["client"]) == (201, "127.0.0.1")
    assert (facts["received_bytes"], facts["sent_bytes"]) == (len(answer.request.content), len(answer.content))
    assert facts["token"] in {token.id for token in world.administration.tokens()}
    assert "secret" not in str(facts)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reads_line_has_its_route_and_token_too(http, admin, caplog, method):
    with caplog.at_level(logging.INFO, "oscirc_server"):
        admin.call(method, "tokens")
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert (vars(record)["method"], vars(record)["route"], bool(vars(record)["token"])) == (
        method,
        "/api/v1/tokens",
        True,
    )


def test_what_a_service_logs_has_the_id_of_its_request(http, monkeypatch, caplog):
    seen = []

    def images(*_args, **_kwargs):
        seen.append(request_ids.current())
        raise RuntimeError

    monkeypatch.setattr(catalog, "images", images)
    answer = http.get("/api/v1/images", headers={"X-Request-Id": MADE})
    assert (answer.status_code, seen) == (500, [MADE])  # in a thread of the pool


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def counted(installation, metrics):
    with client_of(create_app(installation, metrics)) as client:
        yield client


def test_requests_are_counted_by_template_and_status(counted, metrics, world, alice):
    api = Api(counted, world.made.admin_token)
    for number in range(3):
        counted.get(f"/api/v1/images/alice/none{number}")
        counted.get(f"/nowhere/{number}")
        counted.request(f"ODD{number}", "/api/v1/images")
    disk = alice.build("debian", [block("a"), block("b")])
    assert api.publish(alice, "debian", "1", disk).status_code == 200
    counted.get("/metadata/timestamp.json")
    found = values(metrics, "oscirc_server_requests_total")
    image = "/api/v1/images/{publisher}/{image}"
    assert found[("method", "GET"), ("route", image), ("status", "404")] == 3
    assert found[("method", "GET"), ("route", "unmatched"), ("status", "404")] == 3
    assert found[("method", "GET"), ("route", "/metadata"), ("status", "200")] == 1
    odd = {labels: value for labels, value in found.items() if ("method", "other") in labels}
    assert sum(odd.values()) == 3
    assert len(odd) == 1
    frames = values(metrics, "oscirc_server_uploaded_frames_total")
    assert frames == {(("kind", "stored"),): len(disk.records), (("kind", "present"),): 0}
    stored = sum(len(record.frame) for record in disk.records)
    assert values(metrics, "oscirc_server_stored_bytes_total") == {(): stored}
    received = values(metrics, "oscirc_server_request_bytes_total")
    assert received[(("route", "/api/v1/drafts/{draft_id}/frames"),)] > stored
    assert values(metrics, "oscirc_server_requests_under_way") == {(): 0}


def test_an_application_that_fails_is_counted_and_is_not_under_way_any_more(counted, metrics, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError

    monkeypatch.setattr(catalog, "images", fail)
    assert counted.get("/api/v1/images").status_code == 500
    assert values(metrics, "oscirc_server_requests_under_way") == {(): 0}
    (labels,) = values(metrics, "oscirc_server_requests_total")
    assert ("status", "500") in labels
