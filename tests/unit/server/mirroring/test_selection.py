import pytest

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import NameRefusedError, UsageError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_server.mirroring.selection import Selection

DATE = "2026-01-01T00:00:00Z"


def version(label, *, yanked=False):
    return ImageVersion(label, Digest(label.encode() * 32), DATE, yanked=Yank("bad", DATE) if yanked else None)


def labels(selection, index):
    return [each.label for each in selection.versions_of(index)]


INDEX = ImageIndex(
    "alice", "debian", (version("1"), version("2"), version("3", yanked=True)), {"stable": "2", "old": "1"}
)


def test_everything_is_taken_unless_something_is_named():
    assert Selection().is_whole
    assert labels(Selection(), INDEX) == ["1", "2", "3"]
    assert labels(Selection.parse(["bob"]), INDEX) == []
    assert labels(Selection.parse(["alice"]), INDEX) == ["1", "2", "3"]
    assert labels(Selection.parse(["alice/debian", "bob"]), INDEX) == ["1", "2", "3"]
    assert labels(Selection.parse(["alice/arch"]), INDEX) == []


def test_latest_is_the_newest_that_was_not_withdrawn_if_there_is_one():
    assert labels(Selection.parse([], "latest"), INDEX) == ["2"]
    withdrawn = ImageIndex("alice", "debian", (version("1", yanked=True), version("2", yanked=True)))
    assert labels(Selection.parse([], "latest"), withdrawn) == ["2"]
    assert labels(Selection.parse([], "latest"), ImageIndex("alice", "debian")) == []


def test_channels_are_what_channels_point_at():
    assert labels(Selection.parse([], "channels"), INDEX) == ["1", "2"]


@pytest.mark.parametrize("name", ["", "Alice", "alice/", "alice/*", "a/b/c", "../x", "?lice"])
def test_bad_names_are_refused(name):
    with pytest.raises(NameRefusedError):
        Selection.parse([name])


def test_unknown_policies_are_refused():
    with pytest.raises(UsageError, match="newest"):
        Selection.parse([], "newest")
