"""The catalog: the same facts as JSON and as a page that needs no script and trusts no publisher."""

import re
from html.parser import HTMLParser

import pytest
from sqlalchemy import delete

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import Yank
from oscirc_server.models import Fact
from oscirc_server.services import catalog
from oscirc_server.web.pages import human_size

from .server_world import BLOCK, block


@pytest.fixture
def two_versions(api, alice):
    """debian 1.0 and 2.0; the first is `old`, the second `stable`."""
    for number, (version, channel) in enumerate((("1.0", "old"), ("2.0", "stable"))):
        disk = alice.build(
            "debian",
            [block("a"), block(version), None, *[None] * number],
            family="debian",
            version=version,
            firmware="uefi",
            default_login="user, no password",
            minimum_memory_mib=1024,
        )
        draft = api.stage(alice, "debian", version, disk)
        indexes = {"debian": alice.index_with("debian", version, disk.digest, channel=channel)}
        assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
        alice.took_force(indexes)
    return disk


def test_an_image_shows_versions_channels_sizes_and_how_to_boot_it(http, two_versions):
    (image,) = http.get("/api/v1/images").json()["images"]
    assert (image["channels"], image["shown"]) == ({"old": "1.0", "stable": "2.0"}, "2.0")
    assert (image["reference"], image["boot"]) == ("alice/debian", "oscirc boot alice/debian")
    newest, older = image["versions"]
    assert (newest["version"], older["version"]) == ("2.0", "1.0")
    assert (newest["disk_size"], newest["data_bytes"]) == (4 * BLOCK, 2 * BLOCK)
    assert newest["download_bytes"] == sum(len(record.frame) for record in two_versions.records)
    assert newest["system"]["firmware"] == "uefi"
    assert newest["manifest"] == two_versions.digest.hex()
    assert http.get("/api/v1/images/alice/debian").json() == image


def test_without_a_stable_channel_the_newest_version_that_was_not_yanked_is_named(api, alice, http):
    for version in ("1.0", "2.0"):
        disk = alice.build("debian", [block(version)])
        draft = api.stage(alice, "debian", version, disk)
        indexes = {"debian": alice.index_with("debian", version, disk.digest, channel=None)}
        assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
        alice.took_force(indexes)
    assert http.get("/api/v1/images").json()["images"][0]["boot"] == "oscirc boot alice/debian@2.0"
    yanked = {"debian": alice.indexes["debian"].with_yank("2.0", Yank("broken", "2027-01-16T08:00:00Z"))}
    assert api.call("PUT", "publishers/alice/role", json=alice.offer(yanked)).status_code == 200
    assert http.get("/api/v1/images").json()["images"][0]["boot"] == "oscirc boot alice/debian@1.0"


@pytest.fixture
def many(api, alice):
    names = [f"image-{number:02}" for number in range(7)]
    for name in names:
        disk = alice.build(name, [block(name)], family="debian" if name < "image-03" else "alpine")
        assert api.publish(alice, name, "1.0", disk).status_code == 200
    return names


def test_pages_follow_each_other_to_the_end(http, many):
    seen = []
    after = ""
    while after is not None:
        answer = http.get("/api/v1/images", params={"limit": 3, "after": after})
        page = answer.json()
        seen += [image["image"] for image in page["images"]]
        after = page["next"]
        assert ("link" in answer.headers) == (after is not None)
    assert seen == many


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 7), ("debian", 3), ("alpine image-06", 1), ("ALICE/image", 7), ("%", 0), ("image_0", 0), ("nothing", 0)],
)
def test_a_search_finds_every_word(http, many, query, count):
    assert len(http.get("/api/v1/images", params={"q": query}).json()["images"]) == count


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"q": "x" * 201}, {"after": "x" * 131}]
)
def test_questions_out_of_bounds_are_refused(http, params):
    answer = http.get("/api/v1/images", params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_place_that_is_none_is_refused(http, installation):
    assert http.get("/api/v1/images", params={"after": "x"}).status_code == 400
    with installation.database.read() as session, pytest.raises(UsageError):
        catalog.images(session, limit=0)


@pytest.mark.parametrize("path", ["alice/nothing", "nobody/debian", "..%2f/x", "Alice/debian"])
def test_an_image_that_is_not_there_is_not_found(http, path):
    assert http.get(f"/api/v1/images/{path}").status_code in (400, 404)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]


def test_the_page_shows_what_the_api_shows_without_scripts_or_strangers(world, http, two_versions):
    answer = http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in policy
    page = Page(answer.text)
    assert not {"script", "style", "img", "iframe"} & set(page.tags)
    assert not [name for name in page.attributes if name == "style" or name.startswith("on")]
    assert not [link for link in page.links if re.match(r"[a-z]+:|/", link)]
    for text in ("alice/debian", "oscirc boot alice/debian", "2.0", "1.0", "stable", "256 KiB", "1024 MiB", "UEFI"):
        assert text in answer.text
    assert f"oscirc remote add test-repository {world.made.remote_url}" in answer.text
    assert http.get("/assets/style.css").headers["content-type"].startswith("text/css")
    assert http.head("/").status_code == 200


def test_an_images_own_page_shows_every_version_and_what_changed(http, two_versions):
    answer = http.get("/images/alice/debian")
    assert answer.status_code == 200
    assert "what is new in 1.0" in answer.text
    assert "../../assets/style.css" in Page(answer.text).links
    missing = http.get("/images/alice/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_what_publishers_write_is_escaped(api, alice, http):
    disk = alice.build("debian", [block("a")], family="<script>alert(1)</script>", default_login='"><b>')
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    text = http.get("/", params={"q": "<script>"}).text + http.get("/images/alice/debian").text
    assert "<script>" not in text
    assert '"><b>' not in text
    assert "&lt;script&gt;" in text


def test_an_empty_catalog_says_so(http):
    assert "Nothing has been published here yet" in http.get("/").text
    assert "No image matches" in http.get("/", params={"q": "x"}).text


def test_the_list_of_the_page_goes_on(http, many, monkeypatch):
    monkeypatch.setattr(catalog.images, "__kwdefaults__", {"limit": 3, "after": ""})
    first = http.get("/", params={"q": "image"})
    (more,) = [link for link in Page(first.text).links if "after=" in link]
    assert "image-03" in http.get("/" + more.removeprefix("./")).text


def test_without_a_public_url_the_page_names_the_address_it_was_asked_at(world, http, installation):
    with installation.database.write() as session:
        session.execute(delete(Fact).where(Fact.name == "public_url"))
    assert f"http://repository.test#sha256={world.made.root_digest}" in http.get("/").text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (65536, "64 KiB"),
        (2 << 30, "2.0 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_are_readable(size, text):
    assert human_size(size) == text
