"""Real block lists: of published trees as their manifests and files say, of successive disks as publishing cuts them.

The first disk's list is read both ways and must be the same. Frames of a later version's new blocks are made at the
level at which `publish` makes those of an update.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaling_model import Version

from oscirc_blockstore import accelerators, frame, profile
from oscirc_blockstore import manifest as manifests
from oscirc_blockstore.digests import Digest, block_digest, block_path
from oscirc_blockstore.table import NODE_SIZE, iterate_blocks

BLOCK = 256 << 10
FIRST_LEVEL, UPDATE_LEVEL = frame.DEFAULT_LEVEL, 15


@dataclass(frozen=True, slots=True)
class Published:
    """One published version: digests by position, lengths of block files, its profile's positions, its bundle."""

    blocks: dict[int, Digest]
    frames: dict[Digest, int]
    boot: tuple[int, ...]
    bundle_bytes: int

    @property
    def version(self) -> Version:
        """As the simulation takes it."""
        boot = frozenset(self.blocks[position] for position in self.boot if position in self.blocks)
        return Version(self.frames, boot, self.bundle_bytes)


def published(tree: Path) -> Published:
    """The version of a tree that has a bundle."""
    for listing in sorted((tree / "accel").glob("*.json")):
        listed = accelerators.parse_listing(listing.read_bytes())
        bundle, recorded = (listed.find(kind, "boot") for kind in (accelerators.BUNDLE, accelerators.PROFILE))
        if bundle is None or recorded is None:
            continue
        manifest = manifests.parse((tree / manifests.manifest_path(listed.manifest)).read_bytes())

        def load(node: Digest) -> bytes:
            return frame.decode_verified((tree / block_path(node)).read_bytes(), NODE_SIZE, node)

        blocks = dict(iterate_blocks(manifest.geometry, manifest.root, load))
        frames = {digest: (tree / block_path(digest)).stat().st_size for digest in dict.fromkeys(blocks.values())}
        boot = profile.parse((tree / recorded.path).read_bytes()).positions
        return Published(blocks, frames, boot, bundle.length)
    raise SystemExit(f"no version in {tree} has a bundle: run bench/boot_cold.py first")


def cut(disk: Path) -> Iterator[tuple[int, bytes]]:
    """(position, block) of all that is not zeros."""
    with disk.open("rb") as file:
        position = 0
        while raw := file.read(BLOCK):
            block = raw.ljust(BLOCK, b"\0")
            if block.count(0) != BLOCK:
                yield position, block
            position += 1


def successive(first: Published, disks: Sequence[Path], pack_bytes: Sequence[int]) -> list[Version]:
    """The versions of these disks, of which the first is the published one; packs are from the one before each."""
    frames: dict[Digest, int] = dict(first.frames)
    ratio = first.bundle_bytes / sum(first.frames[digest] for digest in first.version.boot)
    versions = []
    for number, disk in enumerate(disks):
        blocks: dict[int, Digest] = {}
        for position, block in cut(disk):
            digest = blocks[position] = block_digest(block)
            if digest not in frames:
                frames[digest] = len(frame.encode(block, UPDATE_LEVEL))
        if number == 0 and blocks != first.blocks:
            raise SystemExit(f"{disk} is not the disk that was published")
        boot = _boot(first, blocks)
        bundle = first.bundle_bytes if number == 0 else round(ratio * sum(frames[digest] for digest in boot))
        own = {digest: frames[digest] for digest in dict.fromkeys(blocks.values())}
        versions.append(Version(own, boot, bundle, pack_bytes[number - 1] if number else 0))
    return versions


def _boot(first: Published, blocks: dict[int, Digest]) -> frozenset[Digest]:
    """What a boot reads: where it read on the first disk; what is zeros there now (an initrd that moved) is new."""
    wanted = len(first.version.boot)
    found = dict.fromkeys(blocks[position] for position in first.boot if position in blocks)
    for digest in blocks.values():
        if len(found) >= wanted:
            break
        if digest not in first.frames:
            found[digest] = None
    return frozenset(found)


def night_packs(results: Path) -> list[int]:
    """The lengths of the packs that `bench/update.py` measured, one for each night."""
    document = json.loads(results.read_text(encoding="utf-8"))
    return [night["pack_bytes"] for night in document["nights"] if night["changed_blocks"]]
