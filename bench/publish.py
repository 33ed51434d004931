"""Publishing a stock Debian disk into an empty local server, against `casync make` on the same file; and version 2.

Must show: wall time at most 0.35 of casync's (defaults, same file system, warm source, median of 3, the server's
re-hashing included), and no more bytes stored.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from harness import DISKS, debian_disk, fresh_repository, save, timed, warm


def stored(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def main() -> None:
    """Measure both, three times, in turn."""
    disk, upgraded = debian_disk(1), debian_disk(2)
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    ours: dict[str, object] = {}
    update: dict[str, object] = {}
    sizes = {"oscirc": 0, "casync": 0, "casync_update": 0}
    round_number = casync_round = 0

    def publish() -> float:
        nonlocal round_number
        round_number += 1
        directory = work / f"oscirc-{round_number}"
        with fresh_repository(directory) as (station, repository):
            os.sync()  # neither is to wait for what an earlier run left to be written
            seconds = timed(
                station.command("publish", disk, "test:bench/debian@1", "--key", "bench", "--firmware", "uefi"),
                env=station.environment,
            )
            sizes["oscirc"] = stored(repository.tree / "blocks")
            if round_number == 3:
                ours.update(station.json("show", "test:bench/debian"))
                warm(upgraded)
                update.update(
                    station.json("publish", upgraded, "test:bench/debian@2", "--key", "bench", "--firmware", "uefi")
                )
        return seconds  # trees stay until the end: freshly deleted inodes slow the next run down

    def casync() -> float:
        nonlocal casync_round
        casync_round += 1
        store = work / f"casync-{casync_round}.castr"
        command = ["casync", "make", f"--store={store}", str(work / "v1.caibx"), str(disk)]
        os.sync()
        seconds = timed(command, stderr=subprocess.DEVNULL)
        sizes["casync"] = stored(store)
        return seconds

    try:
        warm(disk)
        pairs = [(casync(), publish()) for _ in range(3)]
        casync_all, oscirc_all = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        ratio = statistics.median(oscirc_all) / statistics.median(casync_all)
        command = ["casync", "make", f"--store={work / 'casync-3.castr'}", str(work / "v2.caibx"), str(upgraded)]
        timed(command, stderr=subprocess.DEVNULL)
        sizes["casync_update"] = stored(work / "casync-3.castr") - sizes["casync"]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    save(
        "publish",
        {
            "disk": disk.name,
            "oscirc_seconds": oscirc_all,
            "casync_seconds": casync_all,
            "ratio_of_medians": round(ratio, 3),
            "oscirc_stored_bytes": sizes["oscirc"],
            "casync_stored_bytes": sizes["casync"],
            "update_new_blocks": update.get("new_blocks"),
            "update_new_nodes": update.get("new_nodes"),
            "update_uploaded_bytes": update.get("uploaded_bytes"),
            "update_seconds": update.get("seconds"),
            "casync_update_bytes": sizes["casync_update"],
        },
    )


if __name__ == "__main__":
    main()
