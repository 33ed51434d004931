"""Whether bytes are what they must be: a mounted disk against the published one, a cache's files against their names,
and nginx's log against the rule that nothing is fetched twice. Reads everything; keeps nothing in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from staging import BLOCK
from support.nginx import Asked

READERS = 8


@dataclass(frozen=True, slots=True)
class Compared:
    """Blocks of a disk that hold data, and blocks (with data or without) that differ."""

    data_blocks: int
    wrong: int


def compare(disk: Path, original: Path) -> Compared:
    """Read the whole disk, block by block, in several places at once; what is missing at its end differs."""
    blocks = -(-original.stat().st_size // BLOCK)
    each = max(1, -(-blocks // READERS))
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(lambda first: _compare(disk, original, first, each), range(0, blocks, each)))
    return Compared(sum(part.data_blocks for part in parts), sum(part.wrong for part in parts))


def _compare(disk: Path, original: Path, first: int, count: int) -> Compared:
    """So many blocks from that one on, or to the end."""
    data = wrong = 0
    with disk.open("rb") as ours, original.open("rb") as theirs:
        ours.seek(first * BLOCK)
        theirs.seek(first * BLOCK)
        for _ in range(count):
            right = theirs.read(BLOCK)
            data += right.count(0) != len(right)
            wrong += ours.read(BLOCK) != right
    return Compared(data, wrong)


@dataclass(frozen=True, slots=True)
class Kept:
    """Files of blocks and nodes in a cache, and those that are not what their name says."""

    files: int
    wrong: int


def check_cache(cache: Path) -> Kept:
    """Hash everything that a client's cache keeps as a block."""
    files = wrong = 0
    for file in (cache / "oscirc" / "blocks").glob("??/*"):
        files += 1
        wrong += hashlib.sha256(file.read_bytes()).hexdigest() != file.name
    return Kept(files, wrong)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a server sent: block files, those of them that it sent more than once, bytes of the bundle, those of them
    that it sent more than once.
    """

    block_files: int
    block_files_again: int
    bundle_bytes: int
    bundle_bytes_again: int


def sent(asked: Iterable[Asked], bundle: str) -> Sent:
    """What the requests were for; `bundle` is the bundle's path. Errors are not counted: they hold no block."""
    asked = [each for each in asked if each.status < 300]
    files = Counter(each.path for each in asked if each.path.startswith("/blocks/"))
    stretches = sorted(_stretch(each) for each in asked if each.path == bundle)
    total = again = reached = 0
    for start, stop in stretches:
        total += stop - start
        again += max(0, min(reached, stop) - start)
        reached = max(reached, stop)
    return Sent(len(files), sum(count > 1 for count in files.values()), total, again)


def _stretch(asked: Asked) -> tuple[int, int]:
    """First byte that was sent and the one after the last."""
    found = re.fullmatch(r"bytes=(\d+)-\d*", asked.byte_range)
    start = int(found[1]) if found and asked.status == 206 else 0
    return start, start + asked.sent_bytes
