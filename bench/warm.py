"""Reading through the mount from a warm cache, and again from the kernel's page cache.

Must show: sequential read of the non-zero extents at least 500 MB/s (each load from the cache verified), and a second
read that causes no call to the driver. The physical limit beside it: reading and hashing the same bytes from plain
files in one thread, in the same run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import DISKS, MIB, data_extents, debian_disk, fresh_repository, save, warm

CHUNK = MIB


def read_extents(disk: Path, extents: list[tuple[int, int]]) -> float:
    """MB/s of reading the extents in order, 1 MiB a call."""
    buffer = bytearray(CHUNK)
    done, started = 0, time.monotonic()
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        for start, stop in extents:
            at = start
            while at < stop:
                count = os.preadv(descriptor, [memoryview(buffer)[: min(CHUNK, stop - at)]], at)
                at += count
                done += count
    finally:
        os.close(descriptor)
    return done / (time.monotonic() - started) / 1e6


def hash_limit(disk: Path, extents: list[tuple[int, int]]) -> float:
    """MB/s of what no verified read can beat in one thread: read and SHA-256 the same bytes."""
    done, started = 0, time.monotonic()
    with disk.open("rb", buffering=0) as file:
        for start, stop in extents:
            file.seek(start)
            for at in range(start, stop, CHUNK):
                chunk = file.read(min(CHUNK, stop - at))
                hashlib.sha256(chunk).digest()
                done += len(chunk)
    return done / (time.monotonic() - started) / 1e6


def main() -> None:
    """Five cold-page-cache reads of a mount whose cache is full, each followed by a second read."""
    disk = debian_disk()
    extents = list(data_extents(disk))
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    first: list[float] = []
    second: list[float] = []
    limit: list[float] = []
    calls: list[int] = []
    try:
        with fresh_repository(work) as (station, _):
            station.run("publish", disk, "test:bench/debian@1", "--key", "bench", "--firmware", "uefi")
            station.run("pull", "test:bench/debian")
            mountpoint = work / "mnt"
            mountpoint.mkdir()
            warm(disk)
            for _ in range(5):
                station.run("mount", "test:bench/debian", mountpoint)
                first.append(read_extents(mountpoint / "disk.raw", extents))
                before = station.json("status", mountpoint)
                second.append(read_extents(mountpoint / "disk.raw", extents))
                calls.append(station.json("status", mountpoint)["read_calls"] - before["read_calls"])
                limit.append(hash_limit(disk, extents))
                station.run("umount", mountpoint)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    save(
        "warm",
        {
            "bytes_read": sum(stop - start for start, stop in extents),
            "from_cache_MB_per_s": [round(value) for value in first],
            "median_MB_per_s": round(statistics.median(first)),
            "read_and_hash_limit_MB_per_s": round(statistics.median(limit)),
            "ratio_to_limit": round(statistics.median(first) / statistics.median(limit), 2),
            "second_read_MB_per_s": round(statistics.median(second)),
            "driver_calls_during_second_reads": calls,
        },
    )


if __name__ == "__main__":
    main()
