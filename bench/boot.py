"""Booting the stock Debian disk from the mount under TCG: bytes fetched against the bytes of the blocks it touched.

Must show: at most 1.3 of the touched blocks' bytes are fetched until the login prompt. Touched are the blocks that the
guest read (what the kernel asked of the driver in a mount without read-ahead), as the frames that the server holds.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from harness import DISKS, debian_disk, fresh_repository, save


def main() -> None:
    """One boot, cold."""
    disk = debian_disk()
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        with fresh_repository(work) as (station, _):
            published = station.json("publish", disk, "test:bench/debian@1", "--key", "bench", "--firmware", "uefi")
            options = ("--accel", "tcg", "--cpus", "2", "--memory", "1024", "--wait-for", "login:", "--timeout", "400")
            booted = station.json("boot", "test:bench/debian", "--name", "bench", *options, timeout=500)
            status = station.json("status", "bench")
            station.run("stop", "bench", "--timeout", "60", timeout=120)
            station.run("umount", status["mountpoint"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    save(
        "boot",
        {
            "seconds_to_login": booted["seconds"],
            "image_stored_bytes": published["stored_bytes"],
            "fetched_bytes": status["fetched_bytes"],
            "requests": status["requests"],
            "touched_frame_bytes": status["touched_bytes"],
            "ratio": round(status["fetched_bytes"] / status["touched_bytes"], 3),
        },
    )


if __name__ == "__main__":
    main()
