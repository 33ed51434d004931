"""This project's side of the comparison of updates: a repository with two versions, and clients that come to it.

A `Publication` is an empty repository, served while it lives: by its own server to the publisher, by nginx as static
files to clients. Two images have the same disks and so the same block files: of `packed` the publisher makes delta
packs, of `plain` none. Clients hold all of version 1 by pulling it on another day, over the loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from contenders import detach
from harness import Finished, Repository, Workstation, finish, fresh_repository
from link import Counters, Link
from staging import static_files
from update_pairs import BLOCK

NODE = 32768
PACKED, PLAIN = "packed", "plain"
_KEY = ("--key", "bench", "--firmware", "uefi")


@dataclass
class Publication:
    """A running repository. Its own files are at /repo of `port`, those below `files` at /files."""

    station: Workstation
    repository: Repository
    port: int
    files: Path

    @property
    def tree(self) -> Path:
        """What clients read."""
        return self.repository.tree

    def line(self, port: int) -> str:
        """What a client adds that reaches it at that loopback port."""
        return f"http://127.0.0.1:{port}/repo#{self.repository.url.partition('#')[2]}"

    def publish(
        self, disk: Path, image: str, version: str, *, deltas: int = 0, level: int | None = None
    ) -> tuple[Finished, dict[str, object]]:
        """Release a disk, with delta packs against so many previous versions; what it took and its facts."""
        levels = () if level is None else ("--level", level)
        reference = f"test:bench/{image}@{version}"
        command = self.station.command("publish", disk, reference, *_KEY, "--deltas", deltas, *levels, "--json")
        done = finish(command, environment=self.station.environment)
        return done, json.loads(done.output)

    def make_pack(self, image: str, version: str, base: str) -> Finished:
        """Make the delta pack of a released version, from what the repository has; what it took."""
        command = self.station.command("delta", "make", f"test:bench/{image}@{version}", "--from", base, "--json")
        return finish(command, environment=self.station.environment)

    def manifest(self, image: str, version: str) -> str:
        """A version's manifest digest."""
        return str(self.station.json("show", f"test:bench/{image}@{version}")["manifest"])

    def pack(self, manifest: str) -> tuple[Path, int] | None:
        """The file of a version's first delta pack and the length of its index, if it has one."""
        listing = self.tree / "accel" / f"{manifest}.json"
        if listing.exists():
            for entry in json.loads(listing.read_text())["accelerators"]:
                if entry["kind"] == "delta":
                    return self.tree / "accel" / entry["sha256"], int(entry["index_length"])
        return None


@contextlib.contextmanager
def publication(work: Path) -> Iterator[Publication]:
    """An empty one, below `work`."""
    with fresh_repository(work / "published") as (station, repository):
        files = work / "files"
        files.mkdir(parents=True)
        with static_files(repository.tree, files, work / "nginx") as port:
            yield Publication(station, repository, port, files)


@dataclass
class Stored:
    """How a tree of static files is made up, by what the files are; `since` gives the growth."""

    blocks: int = 0
    block_bytes: int = 0
    table_bytes: int = 0
    pack_bytes: int = 0
    other_bytes: int = 0
    seen: dict[str, tuple[int, bool]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, tree: Path, before: Stored | None = None) -> Stored:
        """Look at a tree; block files that were there before are not opened again."""
        found = cls()
        known = {} if before is None else before.seen
        for path in tree.rglob("*"):
            if not path.is_file():
                continue
            name, size = str(path.relative_to(tree)), path.stat().st_size
            if not name.startswith("blocks/"):
                packs = name.startswith("accel/") and not name.endswith(".json")
                found.pack_bytes += size * packs
                found.other_bytes += size * (not packs)
                continue
            _, is_node = known.get(name) or (size, _is_node(path))
            found.seen[name] = (size, is_node)
            found.blocks += not is_node
            found.table_bytes += size * is_node
            found.block_bytes += size * (not is_node)
        return found

    def since(self, before: Stored) -> Stored:
        """What came."""
        return Stored(
            self.blocks - before.blocks,
            self.block_bytes - before.block_bytes,
            self.table_bytes - before.table_bytes,
            self.pack_bytes - before.pack_bytes,
            self.other_bytes - before.other_bytes,
        )


def _is_node(path: Path) -> bool:
    """Whether a block file is of a table's node: blocks have another size."""
    with path.open("rb") as file:
        return bool(zstandard.get_frame_parameters(file.read(18)).content_size == NODE)


@dataclass
class Client:
    """A workstation behind a link, with a fast way for what is not measured: `r` is the link, `near` is not."""

    station: Workstation
    published: Publication
    link: Link

    @classmethod
    def new(cls, home: Path, published: Publication, link: Link) -> Client:
        """One that knows the repository and has nothing of it."""
        station = Workstation(home)
        station.run("remote", "add", "near", published.line(published.port))
        station.run("remote", "add", "r", published.line(link.port))
        return cls(station, published, link)

    def hold(self, image: str, version: str) -> None:
        """Have all of a version, as if pulled over the link."""
        self.station.run("pull", f"near:bench/{image}@{version}", timeout=600)
        self.station.run("pull", f"r:bench/{image}@{version}", timeout=600)

    def pull(self, image: str) -> tuple[Finished, Counters]:
        """Follow the channel over the link; what it took and what passed."""
        self.link.tell("reset")
        command = self.station.command("pull", f"r:bench/{image}", "--json")
        done = finish(command, environment=self.station.environment)
        return done, self.link.tell()

    def cached(self) -> set[str]:
        """Digests of what is in the cache."""
        blocks = self.station.home / "cache" / "oscirc" / "blocks"
        return {path.name for path in blocks.glob("[0-9a-f][0-9a-f]/*")}

    @contextlib.contextmanager
    def mounted(self, reference: str, *options: str) -> Iterator[Path]:
        """The disk of a reference as a file."""
        place = self.station.home / "mount"
        place.mkdir(exist_ok=True)
        try:
            self.station.run("mount", reference, place, *options, timeout=120)
            yield place / "disk.raw"
            self.station.run("umount", place)
        finally:
            detach(place)

    def check(self, image: str, disk: Path) -> None:
        """What is mounted must be that disk, byte for byte."""
        with self.mounted(f"r:bench/{image}") as file:
            assert same(file, disk), f"{image} is not {disk}"


def same(one: Path, other: Path) -> bool:
    """Whether two files are equal; holes are read as the zeros that they are."""
    return subprocess.run(["cmp", "-s", str(one), str(other)], check=False).returncode == 0


def frame_lengths(tree: Path, disk: Path) -> dict[int, tuple[str, int]]:
    """Of each block of a disk with data: digest and the length of its block file, by position."""
    import hashlib  # noqa: PLC0415  # here alone

    found, zeros = {}, bytes(BLOCK)
    lengths: dict[str, int] = {}
    with disk.open("rb") as file:
        for position in range(-(-os.fstat(file.fileno()).st_size // BLOCK)):
            block = file.read(BLOCK).ljust(BLOCK, b"\0")
            if block == zeros:
                continue
            digest = hashlib.sha256(block).hexdigest()
            if digest not in lengths:
                lengths[digest] = (tree / "blocks" / "sha256" / digest[:2] / f"{digest}.zst").stat().st_size
            found[position] = (digest, lengths[digest])
    return found
