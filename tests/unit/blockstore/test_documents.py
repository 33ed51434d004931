"""Manifest, image index and repository facts: canonical, bounded, typed, and nobody else's."""

import json
from dataclasses import replace

import pytest

from oscirc_blockstore import canonical, image_index, manifest, repository_facts
from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, NotFoundError, UsageError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank, check_successor
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableRoot

MANIFEST = Manifest(
    "alice",
    "debian",
    Geometry(2 << 30, 1 << 18),
    TableRoot(digest_of(b"root"), 2),
    3500,
    SystemFacts(family="debian", version="12"),
)
RAW = MANIFEST.serialise()
V1 = ImageVersion("1.0", digest_of(b"m1"), "2026-03-01T12:00:00Z", "first\nrelease")
V2 = ImageVersion("2.0", digest_of(b"m2"), "2026-04-01T12:00:00Z")
INDEX = ImageIndex("alice", "debian").with_version(V1).with_version(V2).with_channel("stable", "1.0")


def changed(**fields):
    return canonical.serialise({**json.loads(RAW), **fields})


def test_a_manifest_comes_back_as_it_was():
    assert manifest.parse_verified(RAW, digest_of(RAW)) == MANIFEST


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"null",
        b"{}",
        RAW + b"\n",
        b" " + RAW,
        RAW.replace(b'":', b'": ', 1),
        RAW.replace(b'{"block_size":', b'{"block_size":262144,"block_size":', 1),
        RAW.replace(b"262144", b"262144.0"),
        RAW.replace(b"262144", b"2.62144e5"),
        RAW.replace(b"262144", b"NaN"),
        RAW.replace(b"262144", b"9" * 5000),
        RAW.replace(b"262144", b"true"),
        RAW.replace(b"alice", b"\\u0061lice"),
        b'{"a":' * 30000,
        b"[" * 60000,
        json.dumps(dict(reversed(json.loads(RAW).items())), separators=(",", ":")).encode(),
    ],
)
def test_other_forms_of_a_manifest_are_refused(raw):
    with pytest.raises(DocumentRefusedError):
        manifest.parse(raw)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "oscirc-manifest-2"},
        {"hash": "md5"},
        {"publisher": "../etc"},
        {"publisher": "?lice"},
        {"publisher": "root"},
        {"image": "a/b"},
        {"image": 7},
        {"disk_size": 0},
        {"disk_size": 1000},
        {"disk_size": 1 << 50},
        {"block_size": 300000},
        {"data_blocks": 9000},
        {"data_blocks": -1},
        {"data_blocks": 0},
        {"table": {"root": "00" * 32, "depth": 2}},
        {"table": {"root": "AB" * 32, "depth": 2}},
        {"table": {"root": digest_of(b"root").hex(), "depth": 1}},
        {"table": {"root": digest_of(b"root").hex(), "depth": 2, "more": 1}},
        {"table": [1]},
        {"surplus": 1},
        {"system": {**json.loads(RAW)["system"], "firmware": "coreboot"}},
        {"system": {**json.loads(RAW)["system"], "family": "\x1b[2Jdebian"}},
        {"system": {**json.loads(RAW)["system"], "default_login": "a\u202eb"}},
        {"system": {**json.loads(RAW)["system"], "minimum_memory_mib": True}},
    ],
)
def test_a_manifest_with_other_values_is_refused(fields):
    with pytest.raises(DocumentRefusedError):
        manifest.parse(changed(**fields))


def test_a_manifest_under_another_name_or_too_long_is_refused():
    with pytest.raises(DigestMismatchError):
        manifest.parse_verified(RAW, digest_of(b"other"))
    with pytest.raises(DocumentRefusedError, match="at most"):
        manifest.parse_verified(RAW + bytes(70000), digest_of(RAW))


def test_an_empty_disk_has_a_manifest():
    empty = Manifest("a", "b", Geometry(512, 1 << 16), TableRoot(ZERO_DIGEST, 1), 0, SystemFacts())
    assert manifest.parse(empty.serialise()) == empty


def test_an_index_comes_back_as_it_was():
    index = INDEX.with_yank("2.0", Yank("broken", "2026-05-01T00:00:00Z", security=True))
    assert image_index.parse(index.serialise(), "alice", "debian") == index


def test_an_index_of_another_image_or_publisher_is_refused():
    raw = INDEX.serialise()
    for publisher, image in (("mallory", "debian"), ("alice", "ubuntu")):
        with pytest.raises(DocumentRefusedError):
            image_index.parse(raw, publisher, image)


def test_a_channel_that_points_nowhere_is_refused():
    document = json.loads(INDEX.serialise())
    document["channels"]["beta"] = "9.9"
    with pytest.raises(DocumentRefusedError, match="beta"):
        image_index.parse(canonical.serialise(document), "alice", "debian")


def test_two_versions_with_one_label_are_refused():
    document = json.loads(INDEX.serialise())
    document["versions"].append(document["versions"][0])
    with pytest.raises(DocumentRefusedError, match="one label"):
        image_index.parse(canonical.serialise(document), "alice", "debian")


def test_a_released_label_never_gets_another_disk():
    assert INDEX.with_version(V1) is INDEX
    with pytest.raises(UsageError, match="already released"):
        INDEX.with_version(ImageVersion("1.0", digest_of(b"other"), V1.released))


def test_unknown_versions_and_channels_say_what_there_is():
    with pytest.raises(NotFoundError) as caught:
        INDEX.version("3")
    assert "1.0, 2.0" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        INDEX.channel("beta")
    assert "stable" in caught.value.hint


def test_a_successor_may_add_yank_and_move_but_not_forget_or_change():
    check_successor(INDEX, INDEX.with_yank("1.0", Yank("x", V1.released)).with_channel("stable", "2.0"))
    with pytest.raises(DocumentRefusedError, match="forgets"):
        check_successor(INDEX, ImageIndex("alice", "debian", (V1,)))
    altered = ImageVersion("2.0", digest_of(b"evil"), V2.released)
    with pytest.raises(DocumentRefusedError, match="changes"):
        check_successor(INDEX, ImageIndex("alice", "debian", (V1, altered)))


def test_a_bad_date_or_text_cannot_be_signed():
    for version in (
        ImageVersion("3", digest_of(b"m"), "yesterday"),
        ImageVersion("3", digest_of(b"m"), V1.released, "a\x07b"),
        ImageVersion("3", digest_of(b"m"), V1.released, "x" * 20000),
    ):
        with pytest.raises(DocumentRefusedError):
            INDEX.with_version(version).serialise()


def test_repository_facts_come_back_and_bad_urls_are_refused():
    facts = repository_facts.RepositoryFacts("example", "https://h.example/api/v1", ("http://m.example:8080/a",))
    assert repository_facts.parse(facts.serialise()) == facts
    for url in ("file:///etc", "https://u:p@h/", "https://h/?q", "ftp://h", "https://", "https://h/\n"):
        with pytest.raises(DocumentRefusedError):
            repository_facts.RepositoryFacts("example", "", (url,)).serialise()


GONE = INDEX.with_channel("stable", "2.0").without_versions(["1.0"], date="2026-06-01T00:00:00Z", why="old")


def test_a_deleted_version_comes_back_as_a_tombstone():
    assert image_index.parse(GONE.serialise(), "alice", "debian") == GONE
    assert [each.label for each in GONE.deleted] == ["1.0"]
    check_successor(INDEX, GONE)
    with pytest.raises(NotFoundError, match="deleted by its publisher on 2026-06-01: old"):
        GONE.version("1.0")


def test_a_version_that_a_channel_points_at_is_not_deleted():
    with pytest.raises(UsageError, match="channel stable"):
        INDEX.with_channel("stable", "2.0").without_versions(["2.0"], date="2026-06-01T00:00:00Z")


def test_deleting_what_is_deleted_changes_nothing():
    assert GONE.without_versions(["1.0"], date="2027-01-01T00:00:00Z", why="again") == GONE


def test_a_deleted_label_is_never_used_again():
    with pytest.raises(UsageError, match="never used again"):
        GONE.with_version(INDEX.version("1.0"))
    both = replace(GONE, versions=INDEX.versions)
    with pytest.raises(DocumentRefusedError, match="as a version too"):
        both.serialise()


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": ()},
        {"deleted": (replace(GONE.deleted[0], manifest=digest_of(b"another")),)},
        {"deleted": (replace(GONE.deleted[0], why="another reason"),)},
        {"versions": INDEX.versions, "deleted": ()},
    ],
    ids=["forgotten", "another disk", "another reason", "back again"],
)
def test_a_tombstone_is_for_ever(change):
    with pytest.raises(DocumentRefusedError):
        check_successor(GONE, replace(GONE, **change))


def test_a_version_is_not_deleted_as_another_disk():
    wrong = replace(GONE, deleted=(replace(GONE.deleted[0], manifest=digest_of(b"another")),))
    with pytest.raises(DocumentRefusedError, match="another disk"):
        check_successor(INDEX, wrong)


def test_a_deleted_image_is_closed_and_stays_closed():
    closed = INDEX.without_all(date="2026-06-01T00:00:00Z", why="moved")
    assert image_index.parse(closed.serialise(), "alice", "debian") == closed
    assert not closed.channels
    assert closed.without_all(date="2027-01-01T00:00:00Z") == closed
    check_successor(INDEX, closed)
    with pytest.raises(DocumentRefusedError, match="opens an image"):
        check_successor(closed, replace(closed, closed=False))
    with pytest.raises(UsageError, match="was deleted"):
        closed.with_version(ImageVersion("3.0", digest_of(b"3"), "2026-06-02T00:00:00Z"))
    with pytest.raises(DocumentRefusedError, match="closed"):
        replace(closed, versions=INDEX.versions, deleted=()).serialise()


def test_a_version_withdrawn_for_security_stays_withdrawn_when_it_is_deleted():
    yanked = INDEX.with_yank("1.0", Yank("a hole", "2026-05-01T00:00:00Z", security=True))
    gone = yanked.with_channel("stable", "2.0").without_versions(["1.0"], date="2026-06-01T00:00:00Z")
    assert gone.deleted[0].security
    assert image_index.parse(gone.serialise(), "alice", "debian") == gone
