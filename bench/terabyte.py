"""A 1 TiB sparse image with 1 GiB of data: publishing, mounting, and the driver's memory under random reads.

Must show: publishing does not read the holes; mounting takes under 1 s plus round trips; the driver stays under 200 MB
resident while random reads run over the whole disk.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from harness import DISKS, MIB, fresh_repository, save

SIZE = 1 << 40
EXTENTS = 256
EXTENT = 4 * MIB


def make(path: Path) -> list[int]:
    """1 GiB of half-compressible data in 256 places spread over the terabyte; their offsets."""
    generator = random.Random(20260301)  # noqa: S311  # the same disk every time
    offsets = sorted(generator.sample(range(SIZE // EXTENT), EXTENTS))
    with path.open("wb") as file:
        file.truncate(SIZE)
        for index in offsets:
            file.seek(index * EXTENT)
            file.write((generator.randbytes(2048) + bytes(2048)) * (EXTENT // 4096))
    return [index * EXTENT for index in offsets]


def resident_kib(pid: int, field: str) -> int:
    """VmRSS or VmHWM of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def main() -> None:
    """Publish, mount five times, then read at random."""
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    generator = random.Random(7)  # noqa: S311
    try:
        disk = work / "terabyte.raw"
        offsets = make(disk)
        with fresh_repository(work) as (station, _):
            published = station.json("publish", disk, "test:bench/terabyte@1", "--key", "bench", timeout=600)
            mountpoint = work / "mnt"
            mountpoint.mkdir()
            seconds = []
            for _ in range(5):
                started = time.monotonic()
                station.run("mount", "test:bench/terabyte", mountpoint)
                seconds.append(round(time.monotonic() - started, 3))
                if len(seconds) < 5:
                    station.run("umount", mountpoint)
            pid = station.json("status", mountpoint)["pid"]
            descriptor = os.open(mountpoint / "disk.raw", os.O_RDONLY)
            peak, reads = 0, 0
            for number in range(6000):
                inside = generator.random() < 0.5
                base = generator.choice(offsets) + generator.randrange(EXTENT) if inside else generator.randrange(SIZE)
                reads += len(os.pread(descriptor, 4096, base // 4096 * 4096))
                if number % 100 == 0:
                    peak = max(peak, resident_kib(pid, "VmRSS"))
            os.close(descriptor)
            high_water = resident_kib(pid, "VmHWM")
            station.run("umount", mountpoint)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    save(
        "terabyte",
        {
            "publish_seconds": published["seconds"],
            "publish_bytes_read": published["read_bytes"],
            "mount_seconds": seconds,
            "random_reads": 6000,
            "driver_resident_peak_MB": round(max(peak, high_water) * 1024 / 1e6, 1),
        },
    )


if __name__ == "__main__":
    main()
