"""The catalog: the same facts as JSON and as a page that needs no script and trusts no publisher."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import delete

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import Yank
from oscirc_server.models import Fact
from oscirc_server.services import catalog
from oscirc_server.web import catalog_pages
from oscirc_server.web.rendering import asset_path, human_size

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
    alone = http.get("/api/v1/images/alice/debian").json()
    assert {**alone, "about": {**alone["about"], "readme": None}} == image


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


def test_the_pages_are_of_this_server_alone_and_need_no_script(world, http, two_versions):
    for path, up in (("/", ""), ("/images/alice/debian", "../../")):
        answer = http.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'")
        assert "unsafe" not in policy
        page = Page(answer.text)
        assert page.tags.count("script") == 1
        assert not {"style", "img", "iframe", "base"} & set(page.tags)
        assert not [name for name in page.attributes if name == "style" or name.startswith("on")]
        assert not [link for link in page.links if re.match(r"/", link)]
        strangers = [link for link in page.links if re.match(r"[a-z]+:", link)]
        assert all(link.startswith(world.made.remote_url.partition("#")[0]) for link in strangers)
        assert f"{up}{asset_path('catalog.css')}" in page.links
        assert f"oscirc remote add test-repository &#39;{world.made.remote_url}&#39;" in answer.text
        assert http.head(path).status_code == 200


def test_an_asset_is_kept_for_good_under_the_name_that_its_content_gives(http):
    for name, kind in (("catalog.css", "text/css"), ("catalog.js", "text/javascript")):
        answer = http.get(f"/{asset_path(name)}")
        assert answer.headers["content-type"].startswith(kind)
        assert "immutable" in answer.headers["cache-control"]
    gone = http.get("/assets/catalog.0000000000000000.css")
    assert (gone.status_code, gone.headers["cache-control"]) == (404, "no-store")


def test_the_list_shows_what_an_image_is_and_costs(http, two_versions):
    text = http.get("/").text
    for expected in ("images/alice/debian", "by alice", "2.0", "UEFI", "1024 MiB", "1 image"):
        assert expected in text
    table = http.get("/", params={"view": "table"}).text
    assert "<table>" in table
    assert "alice/debian" in table


def test_the_list_as_json_is_the_answer_of_the_search(http, two_versions):
    params = {"q": "debian", "firmware": "uefi"}
    answer = http.get("/", params=params, headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    assert "Accept" in answer.headers["vary"]
    assert answer.json() == http.get("/api/v1/search", params={**params, "limit": 30}).json()
    image = http.get("/images/alice/debian", headers={"Accept": "application/json"})
    assert image.json() == http.get("/api/v1/images/alice/debian").json()


def test_a_facet_says_how_many_images_choosing_it_gives(http, two_versions):
    text = http.get("/", params={"firmware": "uefi"}).text
    assert re.search(r'name="firmware" value="uefi" checked>.*?<span class="count">1</span>', text)
    assert "Firmware: <bdi" in text
    assert 'href="./"' in text


def test_an_empty_answer_offers_the_search_without_one_of_its_conditions(http, two_versions):
    text = http.get("/", params={"q": "debian", "architecture": "aarch64"}).text
    assert "No image matches all of this" in text
    assert re.search(r'<a href="\./\?q=debian">Without .*?</a>: 1 image', text)
    assert re.search(r'<a href="\./\?architecture=aarch64">Without .*?</a>: 0 images', text)


def test_many_conditions_make_no_more_searches_than_one(http, two_versions, monkeypatch):
    asked, real = [], catalog_pages.search.search
    monkeypatch.setattr(catalog_pages.search, "search", lambda *args, **more: asked.append(1) or real(*args, **more))
    text = http.get("/", params={"q": "debian", "version": [f"no-{at}" for at in range(20)]}).text
    assert "No image matches all of this" in text
    assert "Without “<bdi" in text
    assert len(asked) == 1


def test_an_images_own_page_says_how_to_run_it_what_it_costs_and_how_to_check_it(world, http, two_versions):
    text = http.get("/images/alice/debian").text
    assert "oscirc boot test-repository:alice/debian" in text
    assert "qemu-system-x86_64 -accel kvm -accel tcg" in text
    assert f"oscirc remote add test-repository &#39;{world.made.remote_url}&#39; &amp;&amp; oscirc boot" in text
    assert "versions/2.0/disk.qcow2" in text
    assert two_versions.digest.hex() in text
    assert world.made.remote_url.partition("#sha256=")[2] in text
    assert "what is new in 1.0" in text
    assert text.count("<rect") == 2
    assert "No boot of this version was recorded" in text
    missing = http.get("/images/alice/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_the_feed_has_the_newest_releases(http, two_versions):
    answer = http.get("/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    feed = ET.fromstring(answer.text)  # noqa: S314  # our own
    atom = "{http://www.w3.org/2005/Atom}"
    titles = {entry.findtext(f"{atom}title") for entry in feed.iter(f"{atom}entry")}
    assert titles == {"alice/debian 2.0", "alice/debian 1.0"}
    assert feed.findtext(f"{atom}updated") == max(each.findtext(f"{atom}updated") for each in feed.iter(f"{atom}entry"))


def test_what_publishers_write_is_escaped(api, alice, http):
    disk = alice.build("debian", [block("a")], family="<script>alert(1)</script>", default_login='"><b>')
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    text = http.get("/", params={"q": "<script>"}).text + http.get("/images/alice/debian").text
    assert "<script>" not in text
    assert '"><b>' not in text
    assert "&lt;script&gt;" in text


def test_a_publishers_text_cannot_make_the_feed_unreadable(api, alice, http):
    disk = alice.build("debian", [block("a")])
    draft = api.stage(alice, "debian", "1.0", disk)
    index = alice.index_with("debian", "1.0", disk.digest)
    changed = replace(index.versions[0], changelog="]]> & <b>\ufffe\uffff\U0001f600")
    indexes = {"debian": replace(index, versions=(changed,))}
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
    feed = ET.fromstring(http.get("/feed.atom").text)  # noqa: S314  # our own
    assert feed.findtext(".//{http://www.w3.org/2005/Atom}content") == "]]> & <b>\U0001f600"


def test_an_empty_catalog_says_so(http):
    assert "Nothing has been published here yet" in http.get("/").text
    assert "No image matches" in http.get("/", params={"q": "x"}).text
    assert "<entry>" not in http.get("/feed.atom").text


def test_the_list_of_the_page_goes_on(http, many, monkeypatch):
    monkeypatch.setattr(catalog_pages, "PAGE_IMAGES", 3)
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
