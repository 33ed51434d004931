"""`oscirc diff`: what changed between two versions, before anything of it is fetched."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from oscirc import difference_text, disk_map
from oscirc.options import json_option
from oscirc.output import human_bytes, print_json, say, warn
from oscirc_blockstore.errors import OscircError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oscirc_remote.file_differences import VersionDisk

CHEAP_BYTES = 8 << 20
_TOLD_BYTES = 1 << 20


@click.command()
@click.argument("first", metavar="[OLD-REF]")
@click.argument("second", required=False, metavar="NEW-REF")
@click.option("--packages", "with_packages", is_flag=True, help="List all packages that changed, whatever that takes.")
@click.option("--files", "with_files", is_flag=True, help="List the files that changed, whatever that takes.")
@click.option("--map", "as_map", is_flag=True, help="Draw where on the disk it changed.")
@json_option
def diff(first: str, second: str | None, *, with_packages: bool, with_files: bool, as_map: bool, as_json: bool) -> None:
    """What changed between two versions: blocks, the bytes to fetch from what is here, packages, files.

    With one reference: from the version before it that this machine has something of, else from the one before.
    Fetched for the answer are the new table, what differs of the old one, and how long blocks are. Packages and files
    are read from ext4 file systems, unmounted: where little is missing for that (8 MiB), or on request.

    \b
    Example:
      oscirc diff alice/debian@12.1 alice/debian@12.2
      oscirc diff alice/debian@12.1 @12.2 --map
      oscirc diff alice/debian --packages --files
    """
    from oscirc_remote.file_differences import VersionDisk
    from oscirc_remote.opening import open_whole
    from oscirc_remote.two_versions import Finder
    from oscirc_remote.version_difference import difference

    old, new = Finder(warn).pair(first, second)
    picture = _Picture.of(max(side.resolved.manifest.geometry.block_count for side in (old, new)), as_json=as_json)
    with (
        contextlib.closing(open_whole(old.resolved)) as opened_old,
        contextlib.closing(open_whole(new.resolved)) as opened_new,
    ):
        found = difference(old.resolved, new.resolved, opened_old, opened_new, picture.add if as_map else _nothing)
        inside = _Inside(
            VersionDisk(old.resolved, opened_old.source, found.length),
            VersionDisk(new.resolved, opened_new.source, found.length),
            with_packages=with_packages,
            with_files=with_files,
        )
        if as_json:
            facts = {**difference_text.facts(old, new, found), **inside.facts()}
            print_json({**facts, "runs": picture.runs.runs} if as_map else facts, indented=not as_map)
            return
        click.echo("\n".join(difference_text.lines(old, new, found)))
        if as_map:
            click.echo("\n".join(["", *picture.lines(found.here.block_size), ""]))
        for line in inside.lines():
            click.echo(line)


def _nothing(_at: int, _change: str, _count: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Picture:
    """The map, drawn or as runs."""

    width: int
    cells: disk_map.Cells
    runs: disk_map.Runs
    as_json: bool

    @classmethod
    def of(cls, block_count: int, *, as_json: bool) -> _Picture:
        width = max(disk_map.LEAST_WIDTH, shutil.get_terminal_size().columns)
        cells = disk_map.Cells.of(block_count, width * disk_map.ROWS, difference_text.LOOKS)
        return cls(width, cells, disk_map.Runs(looks=difference_text.LOOKS), as_json)

    def add(self, at: int, change: str, count: int) -> None:
        if not self.as_json:
            self.cells.add(at, change, count)
        elif not self.runs.is_full:
            self.runs.add(at, change, count)

    def lines(self, block_size: int) -> list[str]:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return disk_map.draw(self.cells, block_size, width=self.width, colour=colour)


@dataclass(slots=True)
class _Inside:
    """Packages and files: what was asked for whatever it takes, the rest where it is cheap.

    What cannot be read, or would take too much, is told in a line; it is an error only of what was asked for.
    """

    old: VersionDisk
    new: VersionDisk
    with_packages: bool
    with_files: bool
    _fetched: int = field(default=0)

    def lines(self) -> Iterator[str]:
        from oscirc_remote import file_differences as reading

        def packages() -> list[str]:
            before, after = (reading.system_packages(disk, self._allow) for disk in (self.old, self.new))
            most = None if self.with_packages else difference_text.FEW_PACKAGES
            changes = reading.changed_packages(before, after)
            return list(difference_text.package_lines(before, after, changes, most))

        def files() -> list[str]:
            found = reading.changed_files(self.old, self.new, self._allow)
            most = difference_text.MOST_FILES if self.with_files else difference_text.FEW_FILES
            return list(difference_text.file_lines(found, most))

        yield from self._told("packages", packages, asked=self.with_packages, others=self.with_files)
        yield from self._told("files", files, asked=self.with_files, others=self.with_packages)
        self._tell_notes()

    def facts(self) -> dict[str, object]:
        """For programs only what was asked for: the same question has the same answer."""
        from oscirc_remote import file_differences as reading

        facts: dict[str, object] = {}
        if self.with_packages:
            before, after = (reading.system_packages(disk, self._allow) for disk in (self.old, self.new))
            changes = reading.changed_packages(before, after)
            facts["packages"] = difference_text.package_facts(before, after, changes)
        if self.with_files:
            facts["files"] = difference_text.file_facts(reading.changed_files(self.old, self.new, self._allow))
        if facts:
            facts["notes"] = list(dict.fromkeys([*self.old.notes, *self.new.notes]))
        return facts

    def _told(self, what: str, look: Callable[[], list[str]], *, asked: bool, others: bool) -> list[str]:
        from oscirc_remote.file_differences import TooMuchToFetchError

        if others and not asked:
            return []
        try:
            return look()
        except TooMuchToFetchError as error:
            about = human_bytes(error.size_bytes)
            return [f"{what}: not looked at, {error.what} would take about {about}; ask for them with --{what}"]
        except OscircError as error:
            if asked:
                raise
            return [f"{what}: not looked at: {error}"]

    def _allow(self, what: str, size_bytes: int) -> bool:
        if self.with_packages or self.with_files:
            if size_bytes >= _TOLD_BYTES:
                say(f"fetching about {human_bytes(size_bytes)}: {what}")
            return True
        self._fetched += size_bytes
        return self._fetched <= CHEAP_BYTES

    def _tell_notes(self) -> None:
        for note in dict.fromkeys([*self.old.notes, *self.new.notes]):
            say(f"note: {note}")
