"""Replays a read trace: the recorded reads, one after the other, without a pause, from a file.

    python bench/replay.py TRACE FILE [ORIGINAL]

Prints one line of JSON: monotonic seconds at the start and the end, bytes, the slowest reads, and, where ORIGINAL is
given, how many reads differed from it. Runs on the bare interpreter: it is part of what is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def reads_of(trace: str) -> list[tuple[int, ...]]:
    """(offset, length) of every read; the file's form is `oscirc_blockstore.trace`'s."""
    with Path(trace).open() as lines:
        next(lines)
        return [tuple(map(int, line.split()[:2])) for line in lines if line.endswith("\n")]


def main(trace: str, place: str, original: str = "") -> None:
    """Replay, and say how it went."""
    reads = reads_of(trace)
    buffer = memoryview(bytearray(max((length for _, length in reads), default=1)))
    file = os.open(place, os.O_RDONLY)
    stalls: list[float] = []
    wrong = 0
    witness = os.open(original, os.O_RDONLY) if original else -1
    started = previous = time.monotonic()
    for offset, length in reads:
        at = 0
        while at < length:
            count = os.preadv(file, [buffer[at:length]], offset + at)
            if count <= 0:
                sys.exit(f"{place}: nothing at {offset + at}")
            at += count
        now = time.monotonic()
        stalls.append(now - previous)
        if witness >= 0 and os.pread(witness, length, offset) != buffer[:length]:
            wrong += 1
        previous = now if witness < 0 else time.monotonic()
    ended = time.monotonic()
    os.close(file)
    stalls.sort()
    facts = {
        "started": started,
        "ended": ended,
        "seconds": round(ended - started, 4),
        "reads": len(reads),
        "bytes": sum(length for _, length in reads),
        "worst_s": [round(each, 4) for each in stalls[-3:]],
        "waited": sum(each > 0.005 for each in stalls),
        "wrong": wrong if witness >= 0 else None,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
