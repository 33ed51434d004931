"""Replays a read trace: the recorded reads, one after the other, without a pause, from a file.

    python bench/replay.py [--as-guest] TRACE FILE|- [ORIGINAL]

With `--as-guest` the file is read as `oscirc boot` has QEMU read an image: the kernel reads nothing ahead. Without, as
QEMU reads a file that it opens by its name.
With `-` the file's name comes as a line of standard input, once the replayer has said that it is ready: so that its own
start, and the memory that it keeps reads in, are not measured.

Prints one line of JSON: monotonic seconds at the start and the end, bytes, the slowest reads, and, where ORIGINAL is
given, how many reads differed from it. Runs on the bare interpreter: it is part of what is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path

AS_GUEST = "--as-guest"


def reads_of(trace: str) -> list[tuple[int, ...]]:
    """(offset, length) of every read; the file's form is `oscirc_blockstore.trace`'s."""
    with Path(trace).open() as lines:
        next(lines)
        whole = (line for line in lines if line.endswith("\n") and line != "end\n")
        return [tuple(map(int, line.split()[:2])) for line in whole]


def main(trace: str, place: str, original: str = "", *, as_guest: bool = False) -> None:
    """Replay, and say how it went. Reads are kept, and compared when the clock has stopped."""
    reads = reads_of(trace)
    kept = memoryview(bytearray(sum(length for _, length in reads)))
    kept[:: mmap.PAGESIZE] = bytes(len(kept[:: mmap.PAGESIZE]))  # the kernel gives the memory now, not during the reads
    if place == "-":
        print("ready", flush=True)
        place = sys.stdin.readline().rstrip("\n")
    file = os.open(place, os.O_RDONLY)
    if as_guest:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    stalls: list[float] = []
    here = 0
    started = previous = time.monotonic()
    for offset, length in reads:
        at = 0
        while at < length:
            count = os.preadv(file, [kept[here + at : here + length]], offset + at)
            if count <= 0:
                sys.exit(f"{place}: nothing at {offset + at}")
            at += count
        here += length
        now = time.monotonic()
        stalls.append(now - previous)
        previous = now
    ended = time.monotonic()
    os.close(file)
    stalls.sort()
    facts = {
        "started": started,
        "ended": ended,
        "seconds": round(ended - started, 4),
        "reads": len(reads),
        "bytes": here,
        "worst_s": [round(each, 4) for each in stalls[-3:]],
        "waited": sum(each > 0.005 for each in stalls),
        "wrong": differing(reads, kept, original) if original else None,
    }
    print(json.dumps(facts))


def differing(reads: list[tuple[int, ...]], kept: memoryview, original: str) -> int:
    """How many reads are not what the original holds."""
    witness = os.open(original, os.O_RDONLY)
    here = wrong = 0
    for offset, length in reads:
        wrong += os.pread(witness, length, offset) != kept[here : here + length]
        here += length
    os.close(witness)
    return wrong


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*(word for word in words if word != AS_GUEST), as_guest=AS_GUEST in words)
