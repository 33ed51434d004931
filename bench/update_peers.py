"""How else a client that has version 1 of a disk comes to version 2; each with the options that serve it best.

Every peer makes on the publisher's side what stands on the web server, and updates on the client's, over the same link
and from the same nginx as this project. What the client comes to is compared with version 2, byte for byte.

- casync: the store has version 1's chunks already, what version 2 adds counts; the client has version 1's chunks as a
  store of its own, so that none of them is asked for.
- zsync: a control file, then the ranges of the disk that the old one lacks, as they are. (`-z`, which looks into a gzip
  file, takes minutes of processor to make for such a disk.)
- xdelta3: one patch, made with a source window over the whole disk and its best compression.
- zstd --patch-from: one patch of the used content, which is not a disk: an idea of the limit more than a tool for it.
- downloading again: the disk as one zstd -9 file, through `curl | zstd -d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness import Finished, finish
from update_ours import same
from update_pairs import DiskPair, write_used_content


@dataclass(frozen=True, slots=True)
class Place:
    """Where peers work: `files` is served at `url`, `work` is empty and the peer's own."""

    files: Path
    url: str
    work: Path


@dataclass(frozen=True, slots=True)
class Made:
    """What the publisher's work took, and what it keeps for version 2."""

    seconds: float
    peak_mb: float
    kept_bytes: int


class Peer(Protocol):
    """One tool. `label` stands in tables and plots, `note` says programs and options."""

    name: str
    label: str
    note: str

    def make(self, pair: DiskPair, place: Place) -> Made:
        """The publisher's part; version 1 is published already, off the clock."""

    def prepare(self, pair: DiskPair, place: Place) -> None:
        """What the client has from another day; not measured."""

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """The client's part, as its user types it."""

    def is_right(self, pair: DiskPair, place: Place) -> bool:
        """Whether the client has version 2 now."""


def _made(done: Finished, *files: Path) -> Made:
    return Made(done.seconds, done.peak_mb, sum(file.stat().st_size for file in files))


def _shell(script: str, *arguments: str | Path) -> Finished:
    """A pipe of programs, in which any failure counts."""
    return finish(["bash", "-euo", "pipefail", "-c", script, "bash", *map(str, arguments)])


class _ToDisk:
    """Peers whose client ends with a disk, `new.raw` in its own place."""

    def prepare(self, pair: DiskPair, place: Place) -> None:
        """Nothing: the client has the old disk."""

    def is_right(self, pair: DiskPair, place: Place) -> bool:
        """Compared with the new disk."""
        return same(place.work / "new.raw", pair.new)


@dataclass
class Casync(_ToDisk):
    """Content-defined chunks."""

    name: str = "casync"
    label: str = "casync"
    note: str = "`casync make`, `casync extract` with version 1's chunks in a local store; its defaults"

    def make(self, pair: DiskPair, place: Place) -> Made:
        """Both versions into one store."""
        store = place.files / "casync.castr"
        finish(["casync", "make", f"--store={store}", str(place.files / "v1.caibx"), str(pair.old)])
        before = chunk_bytes(store)
        done = finish(["casync", "make", f"--store={store}", str(place.files / "v2.caibx"), str(pair.new)])
        return Made(done.seconds, done.peak_mb, chunk_bytes(store) - before)

    def prepare(self, pair: DiskPair, place: Place) -> None:
        """Version 1's chunks."""
        finish(["casync", "make", f"--store={place.work / 'own.castr'}", str(place.work / "v1.caibx"), str(pair.old)])

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """Asks its own store first all the same; named the other way round it fails (casync 2.0)."""
        stores = [f"--store={place.url}/casync.castr", f"--extra-store={place.work / 'own.castr'}"]
        return finish(["casync", "extract", *stores, f"{place.url}/v2.caibx", str(place.work / "new.raw")])


@dataclass
class Zsync(_ToDisk):
    """rsync's algorithm, turned round."""

    name: str = "zsync"
    label: str = "zsync"
    note: str = "`zsyncmake`, `zsync -i` the old disk; its defaults"

    def make(self, pair: DiskPair, place: Place) -> Made:
        """The control file; what is kept is that and the disk itself, which is counted with its zeros."""
        disk, control = place.files / "zsync.raw", place.files / "zsync.raw.zsync"
        disk.symlink_to(pair.new)
        return _made(finish(["zsyncmake", "-u", disk.name, "-o", str(control), str(disk)]), control, disk)

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """Reads the old disk, fetches the rest."""
        return _shell('cd "$1"; zsync -q -i "$2" -o new.raw "$3"', place.work, pair.old, f"{place.url}/zsync.raw.zsync")


@dataclass
class Xdelta(_ToDisk):
    """VCDIFF."""

    name: str = "xdelta3"
    label: str = "xdelta3"
    note: str = "`xdelta3 -e -9 -S lzma -W 16777216`, `-B` the whole disk"

    def make(self, pair: DiskPair, place: Place) -> Made:
        """One patch."""
        patch = place.files / "disk.xdelta"
        options = ("-e", "-f", "-q", "-9", "-S", "lzma", "-B", self._window(pair), "-W", "16777216")
        return _made(finish(["xdelta3", *options, "-s", str(pair.old), str(pair.new), str(patch)]), patch)

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """Fetch it, apply it."""
        script = 'curl -sf "$1" -o "$2/patch"; xdelta3 -d -f -q -B "$4" -s "$3" "$2/patch" "$2/new.raw"'
        return _shell(script, f"{place.url}/disk.xdelta", place.work, pair.old, self._window(pair))

    def _window(self, pair: DiskPair) -> str:
        """A power of two that the old disk fits in: 2 GiB is the most that xdelta3 takes."""
        return str(min(1 << (pair.old.stat().st_size - 1).bit_length(), 2 << 30))


@dataclass
class PatchFrom:
    """zstd with the old content as its dictionary."""

    name: str = "zstd-patch"
    label: str = "zstd -9 --patch-from"
    note: str = "`zstd -9 --long=31 --patch-from` over the used content: no disk comes of it"

    def make(self, pair: DiskPair, place: Place) -> Made:
        """The contents off the clock, then the patch."""
        old, new, patch = place.files / "old.used", place.files / "new.used", place.files / "used.zst"
        write_used_content(pair.old, old)
        write_used_content(pair.new, new)
        return _made(
            finish(["zstd", "-9", "-q", "-f", "--long=31", f"--patch-from={old}", str(new), "-o", str(patch)]), patch
        )

    def prepare(self, pair: DiskPair, place: Place) -> None:
        """The old content is there."""

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """Fetch it, apply it."""
        unpack = 'zstd -d -q -f --long=31 --memory=2048MB --patch-from="$3" "$2/patch" -o "$2/new"'
        script = f'curl -sf "$1" -o "$2/patch"; {unpack}'
        return _shell(script, f"{place.url}/used.zst", place.work, place.files / "old.used")

    def is_right(self, pair: DiskPair, place: Place) -> bool:
        """Compared with the new content."""
        return same(place.work / "new", place.files / "new.used")


@dataclass
class Download(_ToDisk):
    """All of it."""

    name: str = "download"
    label: str = "downloading again"
    note: str = "the disk as one `zstd -9 -T0` file, `curl | zstd -d`"

    def make(self, pair: DiskPair, place: Place) -> Made:
        """One archive."""
        archive = place.files / "disk.zst"
        return _made(finish(["zstd", "-9", "-T0", "-q", "-f", str(pair.new), "-o", str(archive)]), archive)

    def update(self, pair: DiskPair, place: Place) -> Finished:
        """Decompressed as it comes."""
        return _shell('curl -sf "$1" | zstd -d -q -f -o "$2/new.raw"', f"{place.url}/disk.zst", place.work)


def chunk_bytes(store: Path) -> int:
    """Bytes of a casync store's chunks."""
    return sum(path.stat().st_size for path in store.rglob("*.cacnk"))


def peers() -> Sequence[Peer]:
    """In the order of the tables."""
    return (Casync(), Zsync(), Xdelta(), PatchFrom(), Download())
