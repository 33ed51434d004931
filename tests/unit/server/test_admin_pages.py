"""Administrators' pages: shown to them alone; every form tried without login, by others, and from elsewhere."""

import html
import re

import pytest
from sqlalchemy import update

from oscirc_server.models import JobRow
from oscirc_server.services import audit, jobs

from .server_world import block
from .test_web_account import PASSWORD, browser, key_in, log_in

PAGES = ("users", "quotas", "storage", "jobs", "metadata", "audit")
WRITES = (
    ("users", {"name": "eve", "password": PASSWORD, "admin": "yes"}),
    ("robots", {"publisher": "alice", "name": "ci"}),
    ("users/disabled", {"name": "root", "disabled": "yes"}),
    ("users/admin", {"name": "olga", "admin": "yes"}),
    ("users/role", {"name": "olga", "publisher": "alice", "role": "reader"}),
    ("quotas", {"publisher": "alice", "unique": "1"}),
    ("jobs/1/cancel", {}),
    ("jobs/1/retry", {}),
)


@pytest.fixture
def people(admin, http):
    """Browsers of root (administrator) and olga (alice's owner), both logged in."""
    assert admin.call("POST", "users", json={"name": "root", "password": PASSWORD, "admin": True}).status_code == 201
    assert admin.call("POST", "users", json={"name": "olga", "password": PASSWORD}).status_code == 201
    assert admin.call("PUT", "publishers/alice/members/olga", json={"role": "owner"}).status_code == 204
    with browser(http) as root, browser(http) as olga:
        assert log_in(root, "root").status_code == 303
        assert log_in(olga, "olga").status_code == 303
        yield root, olga


@pytest.fixture
def root(people):
    return people[0]


@pytest.fixture
def job(installation):
    """A job that waits."""
    with installation.database.write() as session:
        wanted = jobs.Wanted(jobs.BUNDLE_JOB, "alice", "debian", "1", "boot")
        return jobs.queue(session, wanted, installation.now_s(), requested_by="<i>olga</i>").id


def trail(installation):
    """(id, who, what) of every row."""
    with installation.database.read() as session:
        rows, _ = audit.page(session, audit.Wanted(), after="", limit=100)
    return [(row.id, row.action) for row in rows]


def send(client, path, fields, key=None, **headers):
    key = key_in(client.get("/account")) if key is None else key
    return client.post(f"/admin/{path}", data={"form_key": key, **fields}, headers=headers)


@pytest.mark.parametrize("page", PAGES)
def test_only_administrators_see_the_pages(people, http, page):
    root, olga = people
    answer = root.get(f"/admin/{page}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert olga.get(f"/admin/{page}").status_code == 403
    assert http.get(f"/admin/{page}").headers["location"] == "../login"


def test_every_form_is_refused_without_login_to_others_and_without_its_key(people, http, installation, job):
    root, olga = people
    key = key_in(root.get("/account"))
    with browser(http) as stranger:
        stranger_key = key_in(stranger.get("/login"))
        before = trail(installation)
        for path, fields in WRITES:
            assert send(olga, path, fields).status_code == 403, path
            answer = send(stranger, path, fields, stranger_key)
            assert (answer.status_code, answer.headers["location"][-5:]) == (303, "login"), path
            assert send(root, path, fields, "0" * 64).status_code == 403, path
            assert send(root, path, fields, stranger_key).status_code == 403, path
            assert send(root, path, fields, key, Origin="https://evil.example").status_code == 403, path
    assert trail(installation) == before


def test_users_are_added_changed_and_disabled_and_the_audit_says_by_whom(root, admin):
    assert send(root, "users", {"name": "eve", "password": PASSWORD}).headers["location"] == "users?said=added"
    for path, fields in (
        ("users/role", {"name": "eve", "publisher": "alice", "role": "reader"}),
        ("users/admin", {"name": "eve", "admin": "yes"}),
        ("users/disabled", {"name": "eve", "disabled": "yes"}),
    ):
        assert send(root, path, fields).headers["location"] == "../users?said=saved"
    eve = admin.call("GET", "users/eve").json()
    assert (eve["roles"], eve["admin"], eve["disabled"] is not None) == ({"alice": "reader"}, True, True)
    rows = admin.call("GET", "audit?limit=4").json()["entries"]
    assert [row["action"] for row in rows] == ["account.disable", "user.admin", "member.set", "user.create"]
    assert all(row["actor"].startswith("root (session ") for row in rows)
    page = root.get("/admin/users?said=saved").text
    assert "Saved." in page
    assert PASSWORD not in page
    assert send(root, "users/role", {"name": "eve", "publisher": "alice", "role": "none"}).status_code == 303
    assert admin.call("GET", "publishers/alice/members").json()["members"] == {"olga": "owner"}


def test_robots_are_added_and_disabled(root, admin):
    assert send(root, "robots", {"publisher": "alice", "name": "ci"}).status_code == 303
    assert "alice/ci" in root.get("/admin/users").text
    assert send(root, "users/disabled", {"name": "alice/ci", "disabled": "yes"}).status_code == 303
    (robot,) = admin.call("GET", "publishers/alice/robots").json()["robots"]
    assert robot["disabled"] is not None


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("users", {"name": "Not a name"}, 400),
        ("users", {"name": "eve", "password": "short"}, 400),
        ("users", {"name": "olga"}, 409),
        ("users/role", {"name": "olga", "publisher": "nobody", "role": "reader"}, 404),
        ("users/role", {"name": "olga", "publisher": "alice", "role": "emperor"}, 400),
        ("users/disabled", {"name": "root", "disabled": "yes"}, 400),
        ("users/admin", {"name": "root", "admin": "no"}, 400),
        ("quotas", {"publisher": "alice", "unique": "-1"}, 400),
        ("quotas", {"publisher": "alice", "unique": "1e9"}, 400),
        ("jobs/99/cancel", {}, 404),
    ],
)
def test_what_the_services_refuse_is_told_on_a_page(root, path, fields, status):
    answer = send(root, path, fields)
    assert answer.status_code == status, answer.text
    assert 'role="alert"' in answer.text


def test_quotas_are_set_for_one_and_for_everybody_and_dropped(root, admin):
    assert send(root, "quotas", {"publisher": "alice", "unique": "3", "logical": ""}).status_code == 303
    assert send(root, "quotas", {"publisher": "*", "unique": "5"}).status_code == 303
    limits = admin.call("GET", "publishers/alice/quota").json()["limits"]
    assert limits == {"unique_bytes": 3 << 20, "logical_bytes": None}
    assert "0 bytes of 3.0 MiB, 3.0 MiB left" in root.get("/admin/quotas").text
    assert send(root, "quotas", {"publisher": "alice", "what": "default"}).status_code == 303
    assert admin.call("GET", "publishers/alice/quota").json()["limits"]["unique_bytes"] == 5 << 20


def test_storage_is_drawn_and_told_in_words(root, api, alice):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    page = root.get("/admin/storage").text
    assert page.count("<svg") >= 5
    assert page.count("<svg") == page.count('role="img" aria-label="')
    assert "2027-01" in page
    assert 'scope="row">alice<' in page


def test_jobs_are_shown_with_their_reason_cancelled_and_tried_again(root, installation, job):
    with installation.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job).values(error="<script>no room</script>"))
    page = root.get("/admin/jobs").text
    assert html.escape("<script>no room</script>") in page
    assert "<i>olga" not in page
    assert send(root, f"jobs/{job}/cancel", {}).headers["location"] == "../../jobs?said=cancelled"
    assert f"jobs/{job}/retry" in root.get("/admin/jobs?state=cancelled").text
    assert send(root, f"jobs/{job}/retry", {}).headers["location"] == "../../jobs?said=retried"
    assert "None." in root.get("/admin/jobs?state=failed").text


def test_the_audit_is_filtered_and_goes_on_by_a_link(root, installation):
    with installation.database.write() as session:
        for number in range(60):
            audit.record(session, installation.now_s(), "a&b", "test.row", f"x/{number}", why="<b>")
    page = root.get("/admin/audit", params={"actor": "a&b", "since": "2020-01-01", "until": "2199-12-31"}).text
    assert page.count("test.row") == 50
    assert "<b>" not in page
    (link,) = re.findall(r'rel="next" class="button" href="([^"]+)"', page)
    rest = root.get("/admin/audit" + html.unescape(link)).text
    assert rest.count("test.row") == 10
    assert 'rel="next"' not in rest
    assert "No row matches." in root.get("/admin/audit?since=2199-01-01").text


def test_metadata_shows_what_expires_with_the_command_that_renews_it(root):
    page = root.get("/admin/metadata")
    assert "oscirc serve resign root" in page.text
    assert 'class="severity ok">ok<' in page.text


def test_long_lists_go_on_by_links(root, admin, world, monkeypatch):
    from oscirc_server.web import account, admin_accounts, publisher_pages

    for module in (account, admin_accounts, publisher_pages):
        monkeypatch.setattr(module, "PAGE_ROWS", 2)
    world.add_publisher("bob")
    world.add_publisher("carol")
    for number in range(3):
        admin.call("POST", "users", json={"name": f"user-{number}"})
        admin.call("POST", "publishers/alice/robots", json={"name": f"robot-{number}"})
        admin.call("POST", "tokens", json={"name": f"t{number}", "scopes": ["publish:alice"]})
    walks = {
        "/admin/users": ("More users", ["user-0", "user-2"]),
        "/admin/users?after=root": ("More robots", ["alice/robot-0", "alice/robot-2"]),
        "/admin/quotas": ("More publishers", ["alice", "carol"]),
        "/publishers": ("More publishers", ["alice", "carol"]),
        "/account": ("More tokens", ["t0", "t2"]),
    }
    for path, (words, names) in walks.items():
        shown, link = [], path
        for _ in range(9):
            page = root.get(link)
            assert page.status_code == 200, link
            shown.append(page.text)
            more = re.search(rf'<a rel="next" class="button" href="([^"]+)">{words}</a>', page.text)
            if more is None:
                break
            link = str(page.url.join(html.unescape(more[1])))
        assert len(shown) >= 2, path
        for name in names:
            assert sum(f">{name}<" in text for text in shown) == 1, (path, name)
    assert root.get("/admin/users?after=%00").status_code == 400
    assert root.get("/account?after=nowhere").status_code == 400
