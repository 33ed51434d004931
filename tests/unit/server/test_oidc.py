"""Pipelines: a JWT of a trusted issuer becomes a token, once; every other JWT becomes nothing. The issuer is real."""

import base64
import hashlib
import hmac
import itertools
import json

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc.jwk import OctKey, RSAKey
from sqlalchemy import func, select
from support.oidc_issuer import DISCOVERY, running_issuer

from oscirc_server import issuer_keys
from oscirc_server.issuer_keys import usable_keys
from oscirc_server.models import AuditRow, OidcUse
from oscirc_server.services import guessing

from .server_world import DAY_S, START_S, Api

AUDIENCE = "http://repository.test/r"
CLAIMS = {"repository": "example/images", "repository_id": "12345"}
NAMES = {"publisher": "alice", "image": "debian", "version": "1", "block_size": 65536}
SERIAL = itertools.count()


@pytest.fixture
def issuer():
    with running_issuer() as started:
        yield started


@pytest.fixture
def trusted(admin, issuer):
    """The issuer, trusted, with a rule of alice's; returns the rule's id."""
    answer = admin.call("PUT", "oidc/issuers", json={"issuer": issuer.url})
    assert answer.status_code == 204, answer.text
    rule = {"name": "nightly", "issuer": issuer.url, "claims": CLAIMS, "claim_prefixes": {"ref": "refs/tags/"}}
    answer = admin.call("POST", "publishers/alice/oidc-rules", json=rule)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.fixture
def claims(issuer, world):
    def make(**changed):
        now_s = int(world.clock())
        made = {
            "iss": issuer.url,
            "aud": AUDIENCE,
            "sub": "repo:example/images:ref:refs/tags/1",
            "iat": now_s,
            "exp": now_s + 300,
            "jti": f"jti-{next(SERIAL)}",
            "ref": "refs/tags/1",
            **CLAIMS,
        }
        return {name: value for name, value in (made | changed).items() if value is not None}

    return make


def exchange(http, jwt, publisher="alice"):
    return Api(http, None).call("POST", "tokens/oidc", json={"publisher": publisher, "jwt": jwt})


def refused(answer, words=""):
    assert (answer.status_code, answer.json()["type"]) == (401, "IdentityRefusedError"), answer.text
    assert words in answer.json()["detail"]
    return True


def part(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def test_a_pipelines_jwt_becomes_a_token_that_publishes_for_an_hour(world, http, installation, issuer, trusted, claims):
    answer = exchange(http, issuer.sign(claims()))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["scopes"], made["expires"]) == (["publish:alice"], "2027-01-15T09:00:00Z")
    token = Api(http, made["token"])
    assert token.call("POST", "drafts", json=NAMES).status_code == 201
    assert token.call("POST", "tokens", json={"name": "x", "scopes": ["publish:alice"]}).status_code == 403
    assert token.call("GET", "users").status_code == 403
    with installation.database.read() as session:
        row = session.scalars(select(AuditRow).where(AuditRow.action == "oidc.exchange")).one()
    assert (row.subject, json.loads(row.detail)["by"]) == ("alice", "repo:example/images:ref:refs/tags/1")
    assert made["token"] not in row.detail
    world.clock.advance(3600)
    assert token.call("GET", "whoami").status_code == 401


def test_a_jwt_counts_once_until_it_expires_and_is_then_forgotten(world, http, installation, issuer, trusted, claims):
    text = issuer.sign(claims())
    assert exchange(http, text).status_code == 201
    assert refused(exchange(http, text), "before")
    world.clock.advance(400)
    assert refused(exchange(http, text), "expired")
    assert exchange(http, issuer.sign(claims())).status_code == 201
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(OidcUse)) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"aud": "https://elsewhere.example"}, "audience"),
        ({"aud": [AUDIENCE, "https://elsewhere.example"]}, "audience"),
        ({"aud": AUDIENCE + "/"}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://elsewhere.example"}, "issuer"),
        ({"iss": 7}, "who signed"),
        ({"exp": START_S - 31}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": START_S + DAY_S + 1}, "a day"),
        ({"iat": START_S + 31, "exp": START_S + 300}, "not valid yet"),
        ({"iat": None}, "iat"),
        ({"nbf": START_S + 31}, "not valid yet"),
        ({"jti": None}, "jti"),
        ({"jti": "x" * 257}, "jti"),
        ({"repository": "example/images-of-a-thief"}, "no rule"),
        ({"repository": "Example/images"}, "no rule"),
        ({"repository": ["example/images"]}, "no rule"),
        ({"repository_id": 12345}, "no rule"),
        ({"repository_id": None}, "no rule"),
        ({"ref": "refs/tags"}, "no rule"),
        ({"ref": "refs/heads/refs/tags/1"}, "no rule"),
    ],
)
def test_a_jwt_that_says_something_else_is_refused(http, issuer, trusted, claims, changed, words):
    assert refused(exchange(http, issuer.sign(claims(**changed))), words)


def test_half_a_minute_of_slack_is_given(http, issuer, trusted, claims):
    assert exchange(http, issuer.sign(claims(exp=START_S - 29, iat=START_S - 300))).status_code == 201
    assert exchange(http, issuer.sign(claims(iat=START_S + 29))).status_code == 201
    assert exchange(http, issuer.sign(claims(aud=[AUDIENCE]))).status_code == 201


def test_forged_jwts_are_refused(http, issuer, trusted, claims):
    genuine = issuer.sign(claims())
    header, payload, signature = genuine.split(".")
    public = issuer.keys["one"].public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forged = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(claims())}"
    mac = hmac.digest(public, forged.encode(), hashlib.sha256)
    stranger = RSAKey.generate_key(2048, {"kid": "one"})
    issuer_key, issuer.keys["one"] = issuer.keys["one"], stranger
    by_stranger = issuer.sign(claims())
    issuer.keys["one"] = issuer_key
    for text in (
        f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims())}.",
        f"{part({'alg': 'none'})}.{part(claims())}.{signature}",
        f"{forged}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        f"{header}.{part(claims(repository='x'))}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}.AAAA",
        f"{part({'alg': 'RS256', 'kid': 'one', 'crit': ['b64'], 'b64': False})}.{payload}.{signature}",
        f"{part({'alg': 'RS256', 'kid': ['one']})}.{payload}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'x' * 300})}.{payload}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'one', 'jwk': stranger.as_dict(private=False)})}.{payload}.{signature}",
        by_stranger,
        "",
        "a.b",
        "a.b.c",
        "ä.b.c",
        f"{header}.{'A' * 17_000}.{signature}",
        f"{part([1])}.{part([2])}.{signature}",
    ):
        assert refused(exchange(http, text)), text[:80]
        guessing_again(http)
    assert exchange(http, genuine).status_code == 201


def guessing_again(http):
    """Let the next failure be judged, too: this is not about how many there may be."""
    context = http._transport._app._rest.context
    object.__setattr__(context, "guessing", guessing.Guessing(context.installation))


def test_an_issuer_that_is_not_trusted_is_asked_nothing(http, issuer, claims):
    assert refused(exchange(http, issuer.sign(claims())), "not trusted")
    assert issuer.requests == []


def test_keys_are_fetched_once_and_a_new_key_is_found_when_it_is_used(world, http, issuer, trusted, claims):
    for _ in range(3):
        assert exchange(http, issuer.sign(claims())).status_code == 201
    assert issuer.requests == [DISCOVERY, "/keys"]
    issuer.add_key("two")
    issuer.keys.pop("one")
    world.clock.advance(60)
    assert exchange(http, issuer.sign(claims(), "two")).status_code == 201
    assert len(issuer.requests) == 4


def test_forged_key_ids_make_the_issuer_be_asked_once_a_minute_at_most(world, http, issuer, trusted, claims):
    issuer.add_key("two")
    text = issuer.sign(claims(), "two")
    issuer.answers["/keys"] = json.dumps({"keys": [issuer.keys["one"].as_dict(private=False)]}).encode()
    for _ in range(5):
        assert refused(exchange(http, text), "key")
    assert issuer.requests.count("/keys") == 1
    world.clock.advance(61)
    assert refused(exchange(http, issuer.sign(claims(), "two")), "key")
    assert issuer.requests.count("/keys") == 2


def gigabytes(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(4 << 30))
    handler.end_headers()
    for _ in range(4096):
        handler.wfile.write(b"x" * (1 << 20))


def compressed(handler):
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(b"\x1f\x8b")


def elsewhere(handler):
    handler.send_response(302)
    handler.send_header("Location", "/other")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 7}',
        b'{"keys": [7, {}, {"kty": "RSA", "kid": "one"}, {"kty": "oct", "kid": "one", "k": "AAAA"}]}',
        b"[" * 100_000,
        b" " * (issuer_keys.MAX_BYTES + 1),
        gigabytes,
        compressed,
        elsewhere,
    ],
    ids=["empty", "list", "nothing", "number", "odd-keys", "deep", "long", "gigabytes", "compressed", "redirect"],
)
def test_an_issuer_that_answers_oddly_costs_little_and_lets_nobody_in(http, issuer, trusted, claims, answer):
    issuer.answers["/keys"] = answer
    refusal = exchange(http, issuer.sign(claims()))
    assert (refusal.status_code, refusal.json()["type"]) == (503, "IssuerUnreachableError")
    assert "/other" not in issuer.requests


def test_an_issuer_that_trickles_is_given_up(http, issuer, trusted, claims, monkeypatch):
    monkeypatch.setattr(issuer_keys, "DEADLINE_S", 0.3)

    def trickle(handler):
        handler.send_response(200)
        handler.end_headers()
        while not issuer.stopped.wait(0.05):
            handler.wfile.write(b" ")

    issuer.answers["/keys"] = trickle
    assert exchange(http, issuer.sign(claims())).status_code == 503


def test_what_the_issuer_said_counts_for_six_hours_when_it_is_away(world, http, issuer, trusted, claims):
    assert exchange(http, issuer.sign(claims())).status_code == 201
    issuer.answers["/keys"] = b"broken"
    world.clock.advance(5 * 3600)
    assert exchange(http, issuer.sign(claims())).status_code == 201
    world.clock.advance(3601)
    assert exchange(http, issuer.sign(claims())).status_code == 503


@pytest.mark.parametrize("document", [{"issuer": "https://other.example"}, {"jwks_uri": "http://other.example/keys"}])
def test_a_discovery_document_of_another_issuer_or_without_tls_is_refused(http, issuer, trusted, claims, document):
    honest = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
    issuer.answers[DISCOVERY] = json.dumps(honest | document).encode()
    assert exchange(http, issuer.sign(claims())).status_code == 503


def test_weak_symmetric_and_encryption_keys_are_not_used():
    weak = RSAKey.generate_key(2048, {"kid": "weak"}).as_dict(private=False)
    weak["n"] = weak["n"][:341]
    mac = OctKey.generate_key(256, {"kid": "mac"}).as_dict(private=True)
    for_encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"}).as_dict(private=False)
    assert usable_keys({"keys": [weak, mac, for_encryption]}) == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://localhost:1",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "https://",
        "https://a@b.example",
        "https://b.example/#x",
        "https://b.example/ x",
        "https://" + "b" * 300,
        "https://[b",
    ],
)
def test_issuers_have_https_addresses_or_are_on_loopback(admin, url):
    assert admin.call("PUT", "oidc/issuers", json={"issuer": url}).status_code == 400
    answer = admin.call("PUT", "oidc/issuers", json={"issuer": "https://a.example", "jwks": url})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "rule",
    [
        {"claims": {}},
        {"claims": {"ref": "refs/tags/1"}},
        {"claims": {}, "claim_prefixes": {"repository": "example/"}},
        {"claim_prefixes": {"ref": "refs/tags"}},
        {"claim_prefixes": {"ref": ""}},
        {"claims": {**CLAIMS, "aud": "x"}},
        {"claims": {**CLAIMS, "jti": "x"}},
        {"claims": {**CLAIMS, "a b": "x"}},
        {"claims": {**CLAIMS, "ref": "x" * 513}},
        {"claims": {**CLAIMS, **{f"c{n}": "x" for n in range(20)}}},
        {"name": "../x"},
        {"lifetime_s": 3601},
        {"lifetime_s": 0},
    ],
)
def test_rules_that_would_let_in_whoever_asks_are_not_made(admin, issuer, trusted, rule):
    wanted = {"name": "x", "issuer": issuer.url, "claims": CLAIMS, **rule}
    assert admin.call("POST", "publishers/alice/oidc-rules", json=wanted).status_code == 400


def test_rules_are_the_owners_and_issuers_the_administrators(world, http, admin, api, issuer, trusted):
    owner = Api(http, world.token("manage:alice"))
    rule = {"name": "x", "issuer": issuer.url, "claims": CLAIMS}
    made = owner.call("POST", "publishers/alice/oidc-rules", json=rule)
    assert made.status_code == 201
    assert made.json() in api.call("GET", "publishers/alice/oidc-rules").json()["rules"]
    assert api.call("POST", "publishers/alice/oidc-rules", json=rule).status_code == 403
    assert api.call("DELETE", f"publishers/alice/oidc-rules/{trusted}").status_code == 403
    assert owner.call("POST", "publishers/bob/oidc-rules", json=rule).status_code == 403
    assert owner.call("PUT", "oidc/issuers", json={"issuer": issuer.url}).status_code == 403
    assert owner.call("DELETE", "oidc/issuers", params={"issuer": issuer.url}).status_code == 403
    foreign = {**rule, "issuer": "https://elsewhere.example"}
    assert owner.call("POST", "publishers/alice/oidc-rules", json=foreign).status_code == 404
    assert owner.call("DELETE", "publishers/alice/oidc-rules/none").status_code == 404
    assert admin.call("GET", "oidc/issuers").json() == {"issuers": [{"issuer": issuer.url, "jwks": None}]}


def test_a_rule_is_of_one_publisher(world, http, issuer, trusted, claims):
    world.add_publisher("bob")
    assert refused(exchange(http, issuer.sign(claims()), "bob"), "no rule of bob")


@pytest.mark.parametrize("how", ["rule", "issuer"])
def test_tokens_end_with_the_rule_or_the_issuer_that_gave_them(http, admin, issuer, trusted, claims, how):
    token = Api(http, exchange(http, issuer.sign(claims())).json()["token"])
    assert token.call("GET", "whoami").status_code == 200
    if how == "rule":
        assert admin.call("DELETE", f"publishers/alice/oidc-rules/{trusted}").status_code == 204
    else:
        assert admin.call("DELETE", "oidc/issuers", params={"issuer": issuer.url}).status_code == 204
        assert admin.call("DELETE", "oidc/issuers", params={"issuer": issuer.url}).status_code == 404
    assert token.call("GET", "whoami").status_code == 401
    assert refused(exchange(http, issuer.sign(claims())))


def test_failures_of_a_network_are_slowed_down(http, issuer, trusted, claims):
    bad = issuer.sign(claims(aud="x"))
    statuses = [exchange(http, bad).status_code for _ in range(guessing.TOKENS_OF_A_NETWORK.burst + 1)]
    assert statuses[-2:] == [401, 429]
