"""Ten successive versions, and one that changes nothing: what updates move, and how the store grows.

Each night's disk is published to the image with delta packs (against the night before) and to the one without. Two
clients that follow the channel of one each pull it, over a fast link: bytes count here. The last disk is published once
more under a new label: what that costs is the price of a version as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harness import finish
from link import Link
from update_ours import PACKED, PLAIN, Client, Publication, Stored
from update_peers import chunk_bytes
from update_results import Night

RATE_BITS, ROUND_TRIP_S = 1e9, 0.001
NO_CHANGE = "no change"


def measure(key: str, disks: list[Path], published: Publication, work: Path) -> Iterator[Night]:
    """Each version after the first disk's, as it comes."""
    plan = disks[1].parent / "plan.json"
    fixes = json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else []
    store = work / "nights.castr"
    versions = [(disk, disk.stem) for disk in disks] + [(disks[-1], NO_CHANGE)]
    with Link(published.port, rate_bits=RATE_BITS, round_trip_s=ROUND_TRIP_S) as link:
        clients = {image: Client.new(work / f"client-{image}", published, link) for image in (PACKED, PLAIN)}
        before, chunks = Stored.of(published.tree), 0
        for number, (disk, name) in enumerate(versions):
            label = str(number)
            published.publish(disk, PLAIN, label)
            plain = Stored.of(published.tree, before)
            grown = plain.since(before)
            published.publish(disk, PACKED, label, deltas=1)
            before = Stored.of(published.tree, plain)
            finish(["casync", "make", f"--store={store}", str(work / "night.caibx"), str(disk)])
            casync = chunk_bytes(store) - chunks
            chunks += casync
            moved = {image: client.pull(image)[1].bytes_down for image, client in clients.items()}
            if number:
                brings = fixes[number - 1] if number <= len(fixes) else []
                yield Night(
                    key, name, tuple(brings), grown.blocks, grown.block_bytes, grown.table_bytes,
                    before.pack_bytes - plain.pack_bytes, before.other_bytes - plain.other_bytes,
                    moved[PACKED], moved[PLAIN], casync,
                )  # fmt: skip
        for image, client in clients.items():
            client.check(image, disks[-1])


def take(nights: Iterable[Night], each: Callable[[Night], None]) -> list[Night]:
    """All of them, told as they come."""
    found = []
    for night in nights:
        found.append(night)
        each(night)
    return found
