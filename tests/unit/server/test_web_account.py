"""Login to the pages: sessions that the server can end, forms that only its own pages can send."""

import html
import re

import httpx
import pytest

from oscirc_server.services import guessing, sessions

from .server_world import Api

PASSWORD = "correct horse battery"


def key_in(answer):
    return re.search(r'name="form_key" value="([0-9a-f]{64})"', answer.text)[1]


def browser(http, base_url="http://repository.test"):
    return httpx.Client(transport=http._transport, base_url=base_url)


@pytest.fixture
def bea(admin, http):
    """A browser of bea's, before her login; she is a publisher's owner."""
    assert admin.call("POST", "users", json={"name": "bea", "password": PASSWORD}).status_code == 201
    assert admin.call("PUT", "publishers/alice/members/bea", json={"role": "owner"}).status_code == 204
    with browser(http) as client:
        yield client


def log_in(client, name="bea", password=PASSWORD, **headers):
    key = key_in(client.get("/login"))
    fields = {"form_key": key, "name": name, "password": password}
    return client.post("/login", data=fields, headers=headers)


def test_a_login_gives_a_new_cookie_that_scripts_and_other_sites_cannot_use(bea):
    bea.get("/login")
    before = bea.cookies["oscirc_session"]
    answer = log_in(bea)
    assert (answer.status_code, answer.headers["location"]) == (303, "account")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie  # this is plain http
    assert bea.cookies["oscirc_session"] != before
    page = bea.get("/account")
    assert page.status_code == 200
    assert "manage:alice" in page.text
    assert page.headers["cache-control"] == "no-store"
    assert bea.get("/login").headers["location"] == "account"


def test_with_https_the_cookie_is_secure_and_bound_to_the_host(bea, http):
    with browser(http, "https://repository.test") as client:
        cookie = log_in(client).headers["set-cookie"]
        assert cookie.startswith("__Host-oscirc_session=")
        assert "Secure" in cookie
        assert client.get("/account").status_code == 200


def test_a_session_ends_at_the_server_when_its_user_logs_out(bea):
    log_in(bea)
    stolen = bea.cookies["oscirc_session"]
    answer = bea.post("/logout", data={"form_key": key_in(bea.get("/account"))})
    assert answer.headers["location"] == "login"
    bea.cookies.set("oscirc_session", stolen)
    assert bea.get("/account").headers["location"] == "login"


@pytest.mark.parametrize("change", [{"disabled": True}, {"password": "another password"}])
def test_a_session_ends_when_its_user_is_disabled_or_has_another_password(admin, bea, change):
    log_in(bea)
    assert admin.call("PATCH", "users/bea", json=change).status_code == 200
    assert bea.get("/account").status_code == 303


def test_a_session_ends_when_it_was_not_used_and_after_a_week(world, bea):
    log_in(bea)
    for _ in range(14):
        world.clock.advance(sessions.IDLE_S - 1)
        assert bea.get("/account").status_code == 200
    world.clock.advance(14)
    assert bea.get("/account").status_code == 303
    log_in(bea)
    world.clock.advance(sessions.IDLE_S)
    assert bea.get("/account").status_code == 303


@pytest.mark.parametrize(("name", "password"), [("bea", "wrong"), ("nobody", PASSWORD), ("bea", ""), ("", "")])
def test_a_wrong_name_or_password_is_told_alike(bea, name, password):
    answer = log_in(bea, name, password)
    assert answer.status_code == 401
    assert "the name or the password is wrong" in answer.text
    assert bea.get("/account").status_code == 303


def test_guesses_are_slowed_down(world, bea):
    statuses = [log_in(bea, password="wrong").status_code for _ in range(guessing.LOGINS_OF_A_NETWORK.burst + 1)]
    assert statuses == [401] * guessing.LOGINS_OF_A_NETWORK.burst + [429]
    assert log_in(bea).status_code == 429
    world.clock.advance(3600)
    assert log_in(bea).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [{"Origin": origin} for origin in ("https://evil.example", "null", "http://[", "http://[::1", "http://a]b")]
    + [{"Sec-Fetch-Site": "cross-site"}],
)
def test_a_form_from_another_site_is_refused(bea, headers):
    assert log_in(bea, **headers).status_code == 403
    log_in(bea)
    fields = {"form_key": key_in(bea.get("/account")), "name": "x", "scope": "publish:alice", "days": "1"}
    assert bea.post("/account/tokens", data=fields, headers=headers).status_code == 403


@pytest.mark.parametrize("key", [None, "", "0" * 64, "ä"])
def test_a_form_without_the_key_of_its_session_is_refused(bea, http, key):
    log_in(bea)
    fields = {"name": "x", "scope": "publish:alice", "days": "1"} | ({} if key is None else {"form_key": key})
    assert bea.post("/account/tokens", data=fields).status_code == 403
    assert bea.post("/logout", data={"form_key": key or ""}).status_code == 403
    with browser(http) as stranger:
        assert (
            stranger.post("/login", data={"form_key": key or "", "name": "bea", "password": PASSWORD}).status_code
            == 403
        )


def test_forms_are_bounded_and_of_one_kind(bea):
    key = key_in(bea.get("/login"))
    assert bea.post("/login", data={"form_key": key, "name": "x" * 20_000}).status_code == 413
    assert bea.post("/login", json={"form_key": key}).status_code == 422
    many = "&".join(f"a{n}=1" for n in range(100))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert bea.post("/login", content=many, headers=form).status_code == 422
    assert bea.post("/login", content=b"\xff", headers=form).status_code == 422


def test_tokens_are_made_shown_once_and_revoked_on_the_page(bea, http):
    log_in(bea)
    key = key_in(bea.get("/account"))
    made = bea.post(
        "/account/tokens", data={"form_key": key, "name": "lap<top", "scope": "publish:alice", "days": "30"}
    )
    assert made.status_code == 200
    token = re.search(r"oscirc_[0-9A-Za-z]{49}", made.text)[0]
    assert html.escape("lap<top") in made.text
    assert Api(http, token).call("GET", "whoami").json()["account"] == "bea"
    again = bea.get("/account")
    assert token not in again.text
    (revoke,) = re.findall(r'action="account/tokens/([0-9a-f]+)/revoke"', again.text)
    assert bea.post(f"/account/tokens/{revoke}/revoke", data={"form_key": key}).status_code == 303
    assert Api(http, token).call("GET", "whoami").status_code == 401
    assert "lap" not in bea.get("/account").text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"scope": "admin"}, 403),
        ({"scope": "publish:bob"}, 403),
        ({"scope": "everything"}, 400),
        ({"days": "0"}, 400),
        ({"days": "99999"}, 400),
        ({"days": "1" + "0" * 5_000}, 400),
        ({"days": "00001" + "0" * 5_000}, 400),
        ({"days": "x"}, 400),
        ({"name": "x" * 64}, 422),
    ],
)
def test_the_page_gives_away_no_more_than_its_user_may_do(bea, fields, status):
    log_in(bea)
    asked = {"form_key": key_in(bea.get("/account")), "name": "x", "scope": "publish:alice", "days": "1", **fields}
    answer = bea.post("/account/tokens", data=asked)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert not re.search(r"oscirc_[0-9A-Za-z]{49}", answer.text)


def test_whoever_is_not_logged_in_is_sent_to_the_login(bea, http):
    key = key_in(bea.get("/login"))
    assert bea.get("/account").headers["location"] == "login"
    assert bea.post("/account/tokens", data={"form_key": key}).headers["location"] == "../login"
    assert bea.post("/account/tokens/x/revoke", data={"form_key": key}).headers["location"] == "../../../login"


def test_the_api_knows_no_cookies(bea):
    log_in(bea)
    assert bea.get("/api/v1/whoami").status_code == 401


def test_the_pages_run_no_script_and_are_in_no_frame(bea):
    log_in(bea)
    for path in ("/login", "/account"):
        answer = bea.get(path, follow_redirects=True)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "<script" not in answer.text


def test_forms_are_sent_with_the_origin_by_browsers_and_refused_without_a_name_in_it(bea):
    """Under `no-referrer` a browser says `Origin: null` of our own form, as it does of a sandboxed frame of anybody's."""
    assert bea.get("/login").headers["referrer-policy"] == "same-origin"
    assert log_in(bea, Origin="null").status_code == 403
    assert log_in(bea, Origin="http://repository.test", **{"Sec-Fetch-Site": "same-origin"}).status_code == 303


NEW = "a new horse battery"


def change(client, present=PASSWORD, new=NEW, again=None, key=None, **headers):
    key = key_in(client.get("/account")) if key is None else key
    fields = {"form_key": key, "present": present, "password": new, "again": new if again is None else again}
    return client.post("/account/password", data=fields, headers=headers)


def test_ones_own_password_is_changed_by_the_present_one_and_only_other_logins_end(bea, http, admin):
    log_in(bea)
    made = admin.call("POST", "tokens", json={"name": "t", "scopes": ["publish:alice"], "account": "bea"}).json()
    with browser(http) as other:
        log_in(other)
        answer = change(bea)
        assert answer.status_code == 200
        assert 'role="status"' in answer.text
        assert not {NEW, PASSWORD} & set(re.findall(r'[^<>"]+', answer.text))
        assert bea.get("/account").status_code == 200
        assert other.get("/account").status_code == 303
        assert log_in(other).status_code == 401
        assert log_in(other, password=NEW).status_code == 303
    assert Api(http, made["token"]).call("GET", "whoami").status_code == 200
    (row, *_) = [row for row in admin.call("GET", "audit").json()["entries"] if row["action"] == "user.password"]
    assert (row["actor"].split()[0], row["subject"], row["detail"]["own"]) == ("bea", "bea", True)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"present": "not this one"}, 403),
        ({"present": ""}, 403),
        ({"new": "short"}, 400),
        ({"again": "another horse battery"}, 400),
        ({"key": "0" * 64}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_a_password_is_not_changed_by_who_does_not_know_it_or_from_elsewhere(bea, http, fields, status):
    log_in(bea)
    assert change(bea, **fields).status_code == status
    with browser(http) as other:
        assert log_in(other, password=PASSWORD).status_code == 303


def test_without_a_login_no_password_is_changed_and_guessing_is_slowed_down(bea, http, monkeypatch):
    with browser(http) as stranger:
        key = key_in(stranger.get("/login"))
        assert change(stranger, key=key).headers["location"] == "../login"
    log_in(bea)
    refused = [change(bea, present="wrong wrong wrong").status_code for _ in range(guessing.LOGINS_OF_AN_ACCOUNT.burst)]
    assert set(refused) == {403}
    late = change(bea)
    assert late.status_code == 429
    assert "Retry-After" in late.headers


def test_over_the_api_a_users_token_needs_the_present_password_too(bea, http, admin, api):
    made = admin.call("POST", "tokens", json={"name": "t", "scopes": ["publish:alice"], "account": "bea"}).json()
    log_in(bea)
    mine = Api(http, made["token"])
    wrong = mine.call("PUT", "whoami/password", json={"present": "x", "password": NEW})
    assert (wrong.status_code, wrong.json()["type"]) == (403, "WrongPasswordError")
    assert bea.get("/account").status_code == 200
    assert mine.call("PUT", "whoami/password", json={"present": PASSWORD, "password": NEW}).status_code == 204
    assert bea.get("/account").status_code == 303
    assert log_in(bea, password=NEW).status_code == 303
    nobody = api.call("PUT", "whoami/password", json={"present": PASSWORD, "password": NEW})
    assert (nobody.status_code, nobody.json()["type"]) == (403, "ScopeError")
