"""What `oscirc diff` says, in words: nothing of a publisher's that a terminal would obey, and never more than is meant."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from oscirc import difference_text
from oscirc.difference_text import MARKS, file_lines, package_lines, plain
from oscirc_blockstore.file_tree import FileChange
from oscirc_blockstore.packages import PackageChange
from oscirc_remote.file_differences import PartitionFiles, SystemPackages
from oscirc_remote.table_difference import Change


def test_every_change_of_a_block_has_a_look_of_its_own():
    assert set(difference_text.LOOKS) == {change.value for change in Change}
    assert len({look.letter for look in difference_text.LOOKS.values()}) == len(difference_text.LOOKS)


@given(st.text(max_size=600), st.integers(1, 500))
def test_what_a_publisher_wrote_is_one_printable_line_of_bounded_length(text, most):
    said = plain(text, most)
    assert said.isprintable() or not said
    assert len(said) <= most + 1
    if text.isprintable() and len(text) <= most:
        assert said == text


def test_packages_are_told_with_what_they_were_and_are():
    changes = [
        PackageChange("a", None, "1"),
        PackageChange("b", "1", "2", 3 << 20),
        PackageChange("c\x1b[2J", "1", None),
    ]
    old, new = SystemPackages("Debian 12", {}), SystemPackages("Debian 13", {})
    assert list(package_lines(old, new, changes, None)) == [
        "packages: 3 differ (Debian 12 -> Debian 13)",
        "  + a 1",
        "  ~ b 1 -> 2 (3.0 MiB)",
        "  - c?[2J 1",
    ]
    assert list(package_lines(old, new, changes, 1))[2:] == ["  and 2 more: --packages lists all"]


def test_why_no_packages_are_told_is_said():
    none = SystemPackages()
    rpm = SystemPackages("Fedora", None, "var/lib/rpm/rpmdb.sqlite")
    assert list(package_lines(none, none, None, None)) == ["packages: none found"]
    (line,) = package_lines(rpm, rpm, None, None)
    assert line == "packages: var/lib/rpm/rpmdb.sqlite is of a kind that is not read (Fedora)"


def test_files_are_counted_by_kind_and_the_largest_named():
    changes = tuple(
        FileChange(kind, f"/{kind}", "file", 1 << 20, 0 if kind == "removed" else 2 << 20, "/was" * (kind == "renamed"))
        for kind in MARKS
    )
    lines = list(file_lines([PartitionFiles(2, changes, 500)], 3))
    assert lines[0] == (
        "files in partition 2: 1 added, 1 removed, 1 changed, 1 renamed, 1 written anew as they were, "
        "1 with another owner or mode, of 500"
    )
    assert lines[1:4] == ["  +    2.0 MiB  /added", "  -    1.0 MiB  /removed", "  ~    2.0 MiB  /changed"]
    assert lines[4].startswith("  and 1 smaller ones")
    assert list(file_lines([PartitionFiles(1, (), 5)], 3)) == ["files in partition 1: none differ, of 5"]


def side(label, changelog=""):
    version = SimpleNamespace(released="2026-11-25T00:00:00Z", changelog=changelog)
    resolved = SimpleNamespace(manifest=SimpleNamespace(data_blocks=10))
    return SimpleNamespace(name=f"test:alice/debian@{label}", version=version, resolved=resolved)


def found(*, missing=3, estimated=0, records=0, pack_bytes=None):
    here = SimpleNamespace(
        block_size=65536, missing_blocks=missing, is_exact=not estimated, whole_bytes=3 << 20, pack_bytes=1 << 20, records=records
    )  # fmt: skip
    full = SimpleNamespace(
        blocks=3, nodes=2, block_bytes=3 << 20, node_bytes=0, pack_bytes=pack_bytes, estimated=estimated
    )
    table = SimpleNamespace(positions={"c": 2, "n": 1, "r": 4, "s": 7, "z": 0})
    return SimpleNamespace(table=table, here=here, full=full)


def test_bytes_are_told_with_and_without_packs_and_how_sure_they_are():
    lines = list(difference_text.lines(side("1"), side("2"), found(records=2, pack_bytes=1 << 20)))
    assert lines[1].startswith("  blocks     2 changed, 1 new, 4 removed, 7 unchanged (64.0 KiB each)")
    assert lines[2] == (
        "  to fetch   3.0 MiB in 3 blocks that are not here; with delta packs 1.0 MiB (2 blocks are rebuilt)"
    )
    assert lines[3].endswith("for somebody who has all of the old version; with the delta pack 1.0 MiB")
    guessed = list(difference_text.lines(side("1"), side("2"), found(estimated=2)))
    assert guessed[2].startswith("  to fetch   about 3.0 MiB")
    assert guessed[3].startswith("  from all   about 3.0 MiB")
    nothing = list(difference_text.lines(side("1"), side("2"), found(missing=0)))
    assert nothing[2] == "  to fetch   nothing: all of its blocks are here"


def test_a_long_changelog_is_cut():
    lines = list(difference_text.lines(side("1"), side("2", "\n".join("abc" for _ in range(40))), found()))
    assert lines[4] == "  says       abc"
    assert (len(lines), lines[-1].strip()) == (4 + 12 + 1, "…")
