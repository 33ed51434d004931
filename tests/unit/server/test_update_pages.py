"""The update picker as a page and as JSON, over disks that were really published."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from oscirc_blockstore import delta, package_list
from oscirc_blockstore.accelerators import DELTA
from oscirc_blockstore.delta import MadeRecord, Run, Source
from oscirc_blockstore.delta_record import encode
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import BusyError, UsageError
from oscirc_blockstore.image_index import Yank
from oscirc_server.services import comparisons, differences, disk_maps

from .server_world import BLOCK, block
from .test_versions_of_images import change, delete

PAGE = "/images/alice/debian/updates"
JSON = {"Accept": "application/json"}
DISKS = {
    "1.9": [block("a"), block("b"), None, block("d")],
    "1.10": [block("a"), block("B"), block("c"), None],
    "1.11": [block("a"), block("B"), block("c"), block("e")],
}


@pytest.fixture
def disks(api, alice):
    built = {label: alice.build("debian", contents) for label, contents in DISKS.items()}
    for label, disk in built.items():
        assert api.publish(alice, "debian", label, disk).status_code == 200
    return built


def get(http, old="", new="", status=200, headers=None):
    answer = http.get(PAGE, params={"from": old, "to": new}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer


def selected(text):
    return re.findall(r'<option value="([^"]+)" selected>', text)


def test_without_a_choice_it_shows_the_version_before_and_what_stable_points_at(http, disks):
    text = get(http).text
    assert selected(text) == ["1.10", "1.11"]
    assert re.findall(r'<option value="([^"]+)"', text)[:3] == ["1.11", "1.10", "1.9"]
    assert "1.11 (stable)" in text
    assert "oscirc update test-repository:alice/debian<" in text


def test_it_says_blocks_bytes_and_draws_where_they_are(http, disks):
    answer = get(http, "1.9", "1.10")
    found = get(http, "1.9", "1.10", headers=JSON).json()
    lengths = {record.digest: len(record.frame) for record in disks["1.10"].records}
    old = {record.digest for record in disks["1.9"].records}
    difference = found["difference"]
    assert difference["bytes"] == sum(length for digest, length in lengths.items() if digest not in old)
    assert difference == http.get("/api/v1/images/alice/debian/versions/1.9/diff/1.10").json()
    assert found["whole_bytes"] == sum(lengths.values())
    assert found["map"]["cells"] == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert found["map"]["runs"] == [{"start": 1, "blocks": 3}]
    assert "1 blocks changed, 1 are new where zeros were, 1 became zeros, 1 stay as they are" in answer.text
    assert "There is no delta pack for just this pair" in answer.text
    (svg,) = re.findall(r'<svg class="diskmap".*?</svg>', answer.text, re.DOTALL)
    drawn = ET.fromstring(svg)  # noqa: S314  # our own
    assert len(drawn.findall("g")) == len(drawn.findall("g/title")) == 1
    assert {path.get("class") for path in drawn.findall("g/path")} == {"k-changed", "k-new", "k-removed", "k-unchanged"}
    assert "style=" not in answer.text


def test_with_a_pack_it_says_what_that_saves_though_it_was_asked_before_there_was_one(api, http, disks):
    without = get(http, "1.9", "1.10", headers=JSON).json()["difference"]
    assert without["bytes_with_pack"] is None
    frame = encode(block("B"), b"")
    runs = (Run(Source.LITERAL, 0, BLOCK // delta.PAGE_SIZE),)
    record = MadeRecord(digest_of(block("B")), 500, len(frame) - 1, runs)
    base = disks["1.9"].digest
    raw = delta.build_index(disks["1.10"].digest, base, BLOCK, [replace(record, length=len(frame))], []) + frame
    path = f"images/alice/debian/versions/1.10/accelerators/{DELTA}/{delta.name_for(base)}"
    assert api.call("PUT", path, params={"sha256": digest_of(raw).hex()}, content=raw).status_code == 200
    with_pack = get(http, "1.9", "1.10", headers=JSON).json()["difference"]
    assert with_pack["bytes_with_pack"] > 0
    assert "with the delta pack" in get(http, "1.9", "1.10").text


def test_it_goes_back_as_well(http, disks):
    text = get(http, "1.11", "1.9").text
    assert "This goes back" in text
    assert "oscirc pull test-repository:alice/debian@1.9" in text
    assert get(http, "1.11", "1.9", headers=JSON).json()["back"] is True


def test_from_a_version_to_itself_nothing_changes(http, disks):
    text = get(http, "1.10", "1.10").text
    assert "nothing changes" in text
    assert "<svg class" not in text


def test_a_withdrawn_version_is_named_with_its_reason_and_one_withdrawn_for_security_has_no_command(
    http, api, alice, disks
):
    index = alice.indexes["debian"].with_channel("stable", "1.11")
    yanks = {
        "1.9": Yank("it <b>eats</b> files", "2027-01-16T08:00:00Z"),
        "1.10": Yank("hole", "2027-01-16T08:00:00Z", security=True),
    }
    for label, yank in yanks.items():
        index = index.with_yank(label, yank)
    change(api, alice, index)
    text = get(http, "1.9", "1.10").text
    assert "it &lt;b&gt;eats&lt;/b&gt; files" in text
    assert "1.10 was withdrawn for security" in text
    assert "no client boots it" in text
    assert "oscirc update" not in text


def test_an_unknown_or_deleted_version_is_answered_with_the_form_and_the_reason(http, api, alice, disks):
    text = get(http, "9.9", status=404).text
    assert "has no version &#39;9.9&#39;" in text
    assert re.findall(r'<option value="([^"]+)"', text)[:3] == ["1.11", "1.10", "1.9"]
    assert get(http, "<script>", status=404).text.count("<script") == 1
    assert get(http, "9.9", status=404, headers=JSON).headers["content-type"] == "application/problem+json"
    delete(api, alice, "1.9")
    text = get(http, "1.9", "1.11", status=404).text
    assert "was deleted by its publisher on 2027-01-16: too old" in text
    assert "1 deleted version" in text
    assert http.get("/images/alice/nothing/updates").status_code == 404


def test_an_image_with_one_version_says_so(http, api, alice):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    assert "There is one version of this image so far" in get(http).text


def test_who_has_the_page_is_told_that_it_did_not_change(http, disks):
    first = get(http)
    assert first.headers["cache-control"] == "no-cache"
    again = get(http, status=304, headers={"If-None-Match": first.headers["etag"]})
    assert again.content == b""
    assert http.head(PAGE).status_code == 200


def test_a_pair_is_compared_once(http, disks, monkeypatch):
    asked, real = [], differences.difference
    monkeypatch.setattr(comparisons.differences, "difference", lambda *given: asked.append(1) or real(*given))
    for _ in range(3):
        get(http, "1.9", "1.10")
    assert len(asked) == 1


@pytest.mark.parametrize("error", [BusyError("ask again"), UsageError("blocks of two sizes", hint="fetch all")])
def test_what_cannot_be_compared_is_said_and_the_rest_stands(http, disks, monkeypatch, error):
    def refuse(*_given):
        raise error

    monkeypatch.setattr(comparisons.differences, "difference", refuse)
    text = get(http, "1.9", "1.10").text
    assert str(error) in text
    assert "oscirc pull" in text


def test_of_what_is_too_much_for_memory_the_bytes_are_estimated(http, disks, monkeypatch):
    monkeypatch.setattr(differences, "MOST_DIGESTS", 0)
    found = get(http, "1.9", "1.10", headers=JSON).json()["difference"]
    assert (found["exact"], found["blocks"], found["bytes_with_pack"]) == (False, 2, None)
    assert found["block_bytes"] > 0
    assert "bytes are estimated" in get(http, "1.9", "1.10").text


def test_what_there_was_no_time_for_is_neither_changed_nor_unchanged(http, disks, monkeypatch):
    real = differences.difference
    monkeypatch.setattr(disk_maps, "_LOOK_EVERY", 1)
    monkeypatch.setattr(comparisons.differences, "difference", lambda *given: real(*given, limit_s=-1))
    found = get(http, "1.9", "1.10", headers=JSON).json()
    assert found["difference"]["exact"] is False
    assert set(found["difference"]["positions"].values()) == {0}
    assert found["map"]["looked_at"] == 0
    text = get(http, "1.9", "1.10").text
    assert "To fetch, at least" in text
    assert "were not looked at: too much differs" in text


def test_very_many_versions_leave_the_form_short(http, disks, monkeypatch):
    monkeypatch.setattr("oscirc_server.web.update_pages.MOST_OPTIONS", 1)
    text = get(http, "1.10", "1.11").text
    assert re.findall(r'<option value="([^"]+)"', text)[:2] == ["1.11", "1.10"]
    assert "1 older versions are not in this form" in text


def listed(api, disks, label, packages):
    raw = package_list.of(disks[label].digest, packages).serialise()
    path = f"images/alice/debian/versions/{label}/accelerators/packages/installed"
    return api.call("PUT", path, params={"sha256": digest_of(raw).hex()}, content=raw)


def test_packages_are_compared_where_both_versions_came_with_a_list(api, http, disks):
    assert "Not known here" in get(http, "1.9", "1.10").text
    assert get(http, "1.9", "1.10", headers=JSON).json()["packages"] is None
    assert listed(api, disks, "1.9", {"bash": "5.1", "old": "1", "same": "3"}).status_code == 200
    assert get(http, "1.9", "1.10", headers=JSON).json()["packages"] is None
    assert listed(api, disks, "1.10", {"bash": "5.2", "<b>new": "2", "same": "3"}).status_code == 200
    assert get(http, "1.9", "1.10", headers=JSON).json()["packages"] == [
        {"name": "<b>new", "old": None, "new": "2"},
        {"name": "bash", "old": "5.1", "new": "5.2"},
        {"name": "old", "old": "1", "new": None},
    ]
    text = get(http, "1.9", "1.10").text
    assert "As the publisher says" in text
    assert "&lt;b&gt;new" in text
    for words in ("1 in another version", "1 added", "1 removed"):
        assert f"<details open><summary>{words}" in text


def test_a_long_list_of_packages_is_folded_and_cut(api, http, disks):
    listed(api, disks, "1.9", {})
    listed(api, disks, "1.10", {f"package-{number:05}": "1" for number in range(1100)})
    text = get(http, "1.9", "1.10").text
    assert "<details><summary>1100 added" in text
    assert "and 100 more" in text
    assert text.count("package-") == 1000


def test_a_list_of_another_disk_or_another_form_is_refused(api, disks):
    raw = package_list.of(disks["1.9"].digest, {"bash": "5"}).serialise()
    versions = "images/alice/debian/versions"
    for path, body in (
        (f"{versions}/1.10/accelerators/packages/installed", raw),
        (f"{versions}/1.9/accelerators/packages/other", raw),
        (f"{versions}/1.9/accelerators/packages/installed", raw + b" "),
    ):
        answer = api.call("PUT", path, params={"sha256": digest_of(body).hex()}, content=body)
        assert answer.status_code == 422, answer.text
    long = b" " * (package_list.MAX_BYTES + 1)
    path = f"{versions}/1.9/accelerators/packages/installed"
    assert api.call("PUT", path, params={"sha256": digest_of(long).hex()}, content=long).status_code == 413
