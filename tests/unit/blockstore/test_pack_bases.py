"""A delta pack starts from those versions that people have."""

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.pack_bases import bases

DATE = "2026-03-01T12:00:00Z"


def index_of(*labels, channels=None, yanked=()):
    versions = tuple(
        ImageVersion(
            label, digest_of(label.encode()), DATE, "", Yank("bad", DATE, security=False) if label in yanked else None
        )
        for label in labels
    )
    return ImageIndex("alice", "debian", versions, channels or {})


def test_a_pack_starts_from_what_the_channel_points_at_then_from_the_latest():
    index = index_of("1", "2", "3", "4", channels={"stable": "2"})
    assert bases(index, "5", "stable", 3) == ["2", "4", "3"]
    assert bases(index, "5", None, 2) == ["4", "3"]
    assert bases(index, "5", "testing", 9) == ["4", "3", "2", "1"]


def test_withdrawn_versions_come_last_and_later_ones_not_at_all():
    index = index_of("1", "2", "3", "4", yanked=["2"])
    assert bases(index, "4", None, 9) == ["3", "1", "2"]
    assert bases(index, "2", None, 9) == ["1"]
    assert bases(index, "1", None, 9) == []
    assert bases(ImageIndex("alice", "debian"), "1", None, 9) == []
