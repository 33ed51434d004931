"""The timeline of versions: order, channels, what was withdrawn or deleted and why, hostile changelogs, paging."""

import re
from dataclasses import replace

import pytest

from oscirc_blockstore.image_index import Yank
from oscirc_server.web import version_pages

from .server_world import block
from .test_versions_of_images import change, delete

DATE = "2027-01-16T08:00:00Z"
IMAGE, ALL = "/images/alice/debian", "/images/alice/debian/versions"


@pytest.fixture
def four(api, alice):
    for label in ("1", "2", "3", "4"):
        assert api.publish(alice, "debian", label, alice.build("debian", [block(label)])).status_code == 200
    change(api, alice, alice.indexes["debian"].with_yank("3", Yank("it <i>broke</i>", DATE)).with_channel("old", "2"))
    delete(api, alice, "1")


def labels(text):
    return re.findall(r'<h3 id="version-([^"]+)"', text)


@pytest.mark.parametrize("page", [IMAGE, ALL])
def test_versions_stand_in_order_with_channels_and_with_the_reasons_of_what_is_gone(http, four, page):
    text = http.get(page).text
    assert labels(text) == ["4", "3", "2", "1"]
    assert re.search(r'id="version-2">2 <span class="channel">old</span>', text)
    assert "Withdrawn <time" in text
    assert "it &lt;i&gt;broke&lt;/i&gt;" in text
    assert re.search(r"deleted <time[^>]*>2027-01-16</time>: <bdi dir=\"auto\">too old</bdi>", text)
    links = re.findall(r'href="(?:debian/)?updates\?to=([^"]+)"', text)
    assert links == ["4", "3"]  # nothing is before 2 any more


def test_a_link_of_the_timeline_leads_into_the_picker(http, four):
    text = http.get("/images/alice/debian/updates?to=4").text
    assert re.findall(r'<option value="([^"]+)" selected>', text) == ["2", "4"]  # 3 was withdrawn


def test_a_long_list_is_cut_and_all_versions_are_on_pages_of_their_own(http, four, monkeypatch):
    assert "All 3 versions" not in http.get(IMAGE).text
    monkeypatch.setattr(version_pages, "PAGE", 3)
    first = http.get(ALL).text
    (more,) = re.findall(r'rel="next" class="button" href="([^"]+)"', first)
    second = http.get(f"/images/alice/debian/{more}").text
    assert labels(first) + labels(second) == ["4", "3", "2", "1"]
    assert 'rel="next"' not in second
    assert http.get(ALL, params={"after": "nothing"}).status_code == 400


def test_an_image_of_many_versions_shows_the_newest_and_leads_to_all(http, api, alice):
    disk = alice.build("debian", [block("a")])
    for number in range(version_pages.SHORT + 1):
        assert api.publish(alice, "debian", f"1.{number}", disk).status_code == 200
    text = http.get(IMAGE).text
    assert len(labels(text)) == version_pages.SHORT
    assert f'href="debian/versions">All {version_pages.SHORT + 1} versions' in text


def test_the_same_as_json_is_the_apis_list(http, four):
    answer = http.get(ALL, headers={"Accept": "application/json"})
    assert answer.json() == http.get("/api/v1/images/alice/debian/versions").json()
    assert http.get("/images/alice/nothing/versions").status_code == 404


def test_a_hostile_changelog_is_escaped_isolated_and_folded(http, api, alice):
    disk = alice.build("debian", [block("a")])
    draft = api.stage(alice, "debian", "1", disk)
    index = alice.index_with("debian", "1", disk.digest)
    index = replace(index, versions=(replace(index.versions[0], changelog="<script>" + "\u05d0" * 16_000),))
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer({"debian": index})).status_code == 200
    text = http.get(ALL).text
    assert text.count("<script") == 1  # the page's own
    assert re.search(r'<summary class="changelog" dir="auto">&lt;script&gt;\u05d0+…</summary>', text)
