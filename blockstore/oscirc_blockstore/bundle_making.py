"""Makes the bundle of a profile: the blocks that a boot touches and the nodes on the way to them, in one file.

The nodes come first, then the blocks in the profile's order, without zeros and without repetition. Segments are
compressed on all cores, at a level that pays for itself on every boot, and set aside in a temporary file, so that
memory holds a few of them whatever the profile's length. The same profile, disk, level and library give the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from oscirc_blockstore import bundle
from oscirc_blockstore.accelerators import BUNDLE, Accelerator
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, verify
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.pipeline import in_order
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import NODE_SIZE, check_node, entry, positions_below

_COPY_BYTES = 1 << 20

Load = Callable[[Digest, int, int], bytes]
"""The bytes of `(digest, raw_size, position)`; the position is a place where a block stands, -1 for a node."""

Progress = Callable[[int, int], None]
"""Told (raw bytes done, raw bytes in all) after each segment."""


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle in an open temporary file, and what to list it as."""

    file: IO[bytes]
    accelerator: Accelerator
    blocks: int
    raw_bytes: int


@contextlib.contextmanager
def built_bundle(
    profile: Profile,
    manifest: Manifest,
    load: Load,
    *,
    level: int = bundle.DEFAULT_LEVEL,
    workers: int = 2,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[BuiltBundle]:
    """Build the bundle; the file is gone at the end. Raises what `load` raises.

    `DocumentRefusedError` for a profile with a position beyond the disk, or without any block.
    """
    entries, places = contents(profile, manifest, load)
    groups = list(bundle.cut(entries))
    if not places:
        raise DocumentRefusedError("the profile names no block with data: there is nothing to bundle")
    total = sum(each.raw_size for each in entries)

    def compress(group: tuple[Entry, ...]) -> bytes:
        raws = [load(each.digest, each.raw_size, places.get(each.digest, -1)) for each in group]
        for each, raw in zip(group, raws, strict=True):
            verify(raw, each.digest)
        return bundle.compress_segment(raws, level)

    with tempfile.TemporaryFile(prefix="oscirc-bundle-") as spool, tempfile.TemporaryFile(prefix="oscirc-") as file:
        lengths, done = [], 0
        frames = in_order(compress, groups, workers=workers, stop=threading.Event())
        with contextlib.closing(frames):
            for group, frame in zip(groups, frames, strict=True):
                spool.write(frame)
                lengths.append(len(frame))
                done += sum(each.raw_size for each in group)
                progress(done, total)
        index = bundle.build_index(profile.manifest, manifest.geometry.block_size, groups, lengths)
        sha256 = _assemble(file, index, spool)
        accelerator = Accelerator(BUNDLE, profile.name, sha256, len(index) + sum(lengths), len(index))
        yield BuiltBundle(file, accelerator, len(places), total)


def _assemble(file: IO[bytes], index: bytes, spool: IO[bytes]) -> Digest:
    hashed = hashlib.sha256(index)
    file.write(index)
    spool.seek(0)
    while piece := spool.read(_COPY_BYTES):
        hashed.update(piece)
        file.write(piece)
    file.seek(0)
    return Digest(hashed.digest())


def contents(profile: Profile, manifest: Manifest, load: Load) -> tuple[list[Entry], dict[Digest, int]]:
    """The bundle's entries, nodes first, and for each block a position where it stands."""
    geometry = manifest.geometry
    nodes: dict[Digest, bytes] = {}
    places: dict[Digest, int] = {}
    for position in profile.positions:
        if position >= geometry.block_count:
            raise DocumentRefusedError(f"the profile names the position {position}; the disk ends before it")
        digest = manifest.root.digest
        for level in range(manifest.root.depth - 1, -1, -1):
            if digest == ZERO_DIGEST:
                break
            index, within = divmod(position, positions_below(level + 1))
            if digest not in nodes:
                nodes[digest] = check_node(load(digest, NODE_SIZE, -1), geometry, level, index)
            digest = entry(nodes[digest], within // positions_below(level))
        if digest != ZERO_DIGEST:
            places.setdefault(digest, position)
    return (
        [*(Entry(digest, NODE_SIZE) for digest in nodes), *(Entry(digest, geometry.block_size) for digest in places)],
        places,
    )
