"""A publisher's pages: shown to its members only, changed by forms of our own pages and by whoever may."""

import re

import pytest

from oscirc_server.web.publisher_pages import yank_command

from .server_world import block
from .test_web_account import PASSWORD, browser, key_in, log_in


@pytest.fixture
def member(admin, http):
    """Gives a browser of a new user with this role at alice's; None: at none."""
    clients = []

    def new(role, name="bea"):
        assert admin.call("POST", "users", json={"name": name, "password": PASSWORD}).status_code == 201
        if role is not None:
            path = f"publishers/alice/members/{name}"
            assert admin.call("PUT", path, json={"role": role}).status_code == 204
        client = browser(http)
        clients.append(client)
        assert log_in(client, name).status_code == 303
        return client

    yield new
    for client in clients:
        client.close()


@pytest.fixture
def draft(api, alice):
    """A draft of alice's that is half here."""
    disk = alice.build("debian", [block("a"), block("b")])
    draft = api.draft("alice", "debian", "1")
    api.missing(draft, [record.digest for record in disk.records])
    assert api.upload(draft, disk.records[:1]).status_code == 200
    return draft


def test_a_member_sees_his_publishers_and_nobody_elses(member, world):
    world.add_publisher("bob")
    page = member("reader").get("/publishers")
    assert page.headers["cache-control"] == "no-store"
    assert 'href="../publishers/alice"' in page.text or 'href="publishers/alice"' in page.text
    assert "bob" not in page.text


def test_a_stranger_is_sent_to_the_login_and_another_publishers_member_refused(member, http, draft):
    paths = (
        "/publishers",
        "/publishers/alice",
        f"/publishers/alice/drafts/{draft}/abandon",
        "/publishers/alice/images/debian",
        "/publishers/alice/images/debian/versions/1",
    )
    foreigner = member(None)
    for path in paths:
        answer = http.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"] == "../" * (path.count("/") - 1) + "login"
        if path != "/publishers":
            refused = foreigner.get(path)
            assert refused.status_code == 403
            assert 'role="alert"' in refused.text
            assert refused.headers["cache-control"] == "no-store"


def test_a_draft_is_shown_with_what_it_lacks_and_has_leased(member, draft):
    page = member("publisher").get("/publishers/alice").text
    assert "debian@1" in page
    assert "uploading" in page
    assert "2 blocks that it asked about and its manifest" in page
    assert "in 1 blocks" in page
    assert f"drafts/{draft}/abandon" in page


def test_a_draft_is_abandoned_after_a_page_that_asks(member, admin, draft):
    client = member("publisher")
    path = f"/publishers/alice/drafts/{draft}/abandon"
    asked = client.get(path)
    assert "Abandon alice/debian@1?" in asked.text
    assert admin.call("GET", f"drafts/{draft}").status_code == 200
    answer = client.post(path, data={"form_key": key_in(asked)})
    assert (answer.status_code, answer.headers["location"]) == (303, "../../../alice?said=abandoned")
    assert "The draft was abandoned." in client.get("/publishers/alice?said=abandoned").text
    assert admin.call("GET", f"drafts/{draft}").status_code == 404
    (row,) = admin.call("GET", "audit?action=draft.discard").json()["entries"]
    assert row["subject"] == "alice/debian@1"
    assert row["actor"].startswith("bea (session ")


def test_a_draft_is_not_abandoned_by_a_reader_a_stranger_or_another_site(member, admin, draft, http):
    path = f"/publishers/alice/drafts/{draft}/abandon"
    reader = member("reader")
    key = key_in(reader.get("/account"))
    assert reader.post(path, data={"form_key": key}).status_code == 403
    publisher = member("publisher", "carl")
    assert publisher.post(path, data={"form_key": "0" * 64}).status_code == 403
    assert publisher.post(path, data={"sure": "yes"}).status_code == 403
    own = {"form_key": key_in(publisher.get(path))}
    assert publisher.post(path, data=own, headers={"Origin": "https://evil.example"}).status_code == 403
    with browser(http) as stranger:
        key = key_in(stranger.get("/login"))
        assert stranger.post(path, data={"form_key": key}).headers["location"].endswith("/login")
    assert admin.call("GET", f"drafts/{draft}").status_code == 200


def test_a_draft_is_found_under_its_own_publisher_only(member, admin, world, draft):
    world.add_publisher("bob")
    client = member("publisher")
    assert admin.call("PUT", "publishers/bob/members/bea", json={"role": "owner"}).status_code == 204
    path = f"/publishers/bob/drafts/{draft}/abandon"
    assert client.get(path).status_code == 404
    assert client.post(path, data={"form_key": key_in(client.get("/account"))}).status_code == 404
    assert admin.call("GET", f"drafts/{draft}").status_code == 200


def test_versions_show_their_state_and_the_command_that_the_key_is_needed_for(member, api, alice):
    disk = alice.build("debian", [block("a")])
    assert api.publish(alice, "debian", "1", disk).status_code == 200
    client = member("reader")
    assert re.search(r"versions/1\">1</a>.*released", client.get("/publishers/alice/images/debian").text)
    path = "/publishers/alice/images/debian/versions/1"
    assert "oscirc yank" not in client.get(path).text
    page = client.get(path, params={"why": "it's <bad>", "security": "on"}).text
    assert "oscirc yank test-repository:alice/debian@1" in page
    assert "<bad>" not in page
    assert "--security" in page


def test_words_of_a_form_cannot_leave_their_quotes_in_the_command():
    line = yank_command("r", "alice/debian@1", "a'; rm -rf / #\n\u202e", security=False)
    assert line == """oscirc yank r:alice/debian@1 --why 'a'"'"'; rm -rf / #' --key KEY"""


def test_the_publishers_page_shows_keys_quota_and_no_limit_as_such(member, admin):
    client = member("owner")
    page = client.get("/publishers/alice").text
    assert admin.call("GET", "publishers/alice").json()["fingerprints"][0] in page
    assert "no limit" in page
    limits = {"unique_bytes": 1 << 20, "logical_bytes": None}
    assert admin.call("PUT", "publishers/alice/quota", json=limits).status_code == 204
    assert "0 bytes of 1.0 MiB, 1.0 MiB left" in client.get("/publishers/alice").text


def test_a_link_cannot_put_words_into_a_page(member):
    page = member("owner").get("/publishers?said=<b>send+money</b>").text
    assert "money" not in page
    assert 'class="said"' not in page
