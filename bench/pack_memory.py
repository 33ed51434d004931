"""The memory that it takes to make a delta pack, for old versions of 1, 4, 8 and 16 GiB of data.

Must show: at most 1,024 MB for each, and that it does not grow from 8 to 16 GiB by more than 5 %.

    python bench/pack_memory.py [--only GIB]    one size alone: printed, not kept

Each pack is made by the product's code in a process of its own, whose peak is the system's figure of it (so the
interpreter and all libraries are in it). No block is stored anywhere: a page of the old version is computed from its
block's number whenever it is asked for, all pages are different, and the new version has an edit in 1,024 of the
blocks, which is more than the maker's cache of old blocks holds.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable

import numpy as np
from harness import MIB, finish, save

from oscirc_blockstore.delta_making import Version, made_pack
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder

BLOCK = 256 << 10
SIZES_GIB = (1, 4, 8, 16)
CHANGED = 1024
EDIT = b"an edit of some bytes"
MOST_MB = 1024
MOST_GROWTH = 1.05


class Disks:
    """Both versions: their nodes are held, their blocks are computed."""

    def __init__(self, blocks: int) -> None:
        self._nodes: dict[Digest, bytes] = {}
        self._edited: dict[Digest, int] = {}
        step = blocks // CHANGED
        for number in range(0, blocks, step):
            self._edited[digest_of(self._edit(number))] = number
        edits = {number: digest for digest, number in self._edited.items()}
        geometry = Geometry(blocks * BLOCK, BLOCK)
        self.old = self._version(geometry, self._named)
        self.new = self._version(geometry, lambda number: edits.get(number) or self._named(number))

    def load(self, digest: Digest, raw_size: int) -> bytes:
        """A node, an edited block, or an old block."""
        if raw_size == NODE_SIZE:
            return self._nodes[digest]
        if digest in self._edited:
            return self._edit(self._edited[digest])
        return self._content(int.from_bytes(bytes(digest)[:8], "big"))

    def _version(self, geometry: Geometry, digest_at: Callable[[int], Digest]) -> Version:
        table = TableBuilder(geometry, self._nodes.__setitem__)
        count = geometry.disk_size // BLOCK
        for number in range(count):
            table.add(number, digest_at(number))
        manifest = Manifest("bench", "disk", geometry, table.finish(), count, SystemFacts())
        return Version(digest_of(manifest.serialise()), manifest)

    @staticmethod
    def _named(number: int) -> Digest:
        """An old block's name: it begins with its number. Nobody hashes an old block here, only what is made of it."""
        return Digest(number.to_bytes(8, "big") + hashlib.sha256(number.to_bytes(8, "big")).digest()[8:])

    @staticmethod
    def _content(number: int) -> bytes:
        return np.random.Generator(np.random.PCG64(number)).bytes(BLOCK)

    def _edit(self, number: int) -> bytes:
        raw = self._content(number)
        return raw[:9000] + EDIT + raw[9000 + len(EDIT) :]


def make(gib: int) -> None:
    """In the process that is measured: one pack; prints what came of it."""
    disks = Disks((gib << 30) // BLOCK)
    with made_pack(disks.old, disks.new, disks.load, lambda _digest, raw: len(raw)) as pack:
        print(
            json.dumps({"blocks": pack.blocks, "records": pack.records, "sha256": bytes(pack.accelerator.sha256).hex()})
        )


def measured(gib: int) -> dict[str, float]:
    """One size: peak and seconds, and that the pack is what it must be."""
    done = finish([sys.executable, __file__, "--make", str(gib)])
    facts = json.loads(done.output)
    print(f"{gib} GiB: {done.peak_mb * MIB / 1e6:.0f} MB, {done.seconds:.0f} s, {facts}", flush=True)
    assert facts["blocks"] == CHANGED, facts
    # of a disk beyond the limit too the blocks that are gone are looked at first, so every edit finds its old block
    assert facts["records"] == CHANGED, facts
    return {"peak_MB": round(done.peak_mb * MIB / 1e6, 1), "seconds": round(done.seconds, 1)}


def main() -> None:
    """All sizes, then the bounds; figures are kept where they miss them, too."""
    if sys.argv[1:2] == ["--make"]:
        make(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--only"]:
        measured(int(sys.argv[2]))
        return
    started = time.monotonic()
    figures = {gib: measured(gib) for gib in SIZES_GIB}
    peaks = {gib: each["peak_MB"] for gib, each in figures.items()}
    growth = peaks[16] / peaks[8]
    save(
        "pack_memory",
        {
            **{f"{key}, {gib} GiB": value for gib, each in figures.items() for key, value in each.items()},
            "changed_blocks": CHANGED,
            "growth_from_8_to_16_GiB": round(growth, 3),
            "seconds_of_all": round(time.monotonic() - started, 1),
        },
    )
    assert max(peaks.values()) <= MOST_MB, peaks
    assert growth <= MOST_GROWTH, peaks


if __name__ == "__main__":
    main()
