"""Booting the stock Debian disk from the mount under TCG: bytes fetched against the bytes of the blocks it touched.

Must show: at most 1.3 of the touched blocks' bytes are fetched until the login prompt. Touched is what a second
workstation fetches through a mount without the page cache (`--direct-io`): the blocks that the guest itself read.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from harness import DISKS, Repository, Workstation, debian_disk, fresh_repository, save

OPTIONS = ("--accel", "tcg", "--cpus", "2", "--memory", "1024", "--wait-for", "login:", "--timeout", "600")


def boot(work: Path, repository: Repository, *, direct: bool) -> tuple[float, int, int]:
    """Seconds to the prompt, bytes fetched, requests; on a workstation that has nothing."""
    station = Workstation(work)
    station.run("remote", "add", "test", repository.url)
    if direct:
        (work / "mnt").mkdir()
        station.run("mount", "test:bench/debian", work / "mnt", "--direct-io")
    booted = station.json("boot", "test:bench/debian", "--name", "bench", *OPTIONS, timeout=700)
    status = station.json("status", "bench")
    station.run("stop", "bench", "--timeout", "90", timeout=180)
    if direct:
        station.run("umount", work / "mnt")
    return booted["seconds"], status["fetched_bytes"], status["requests"]


def main() -> None:
    """One boot as users boot, one as a witness."""
    disk = debian_disk()
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        with fresh_repository(work) as (station, repository):
            published = station.json("publish", disk, "test:bench/debian@1", "--key", "bench", "--firmware", "uefi")
            seconds, fetched, requests = boot(work / "user", repository, direct=False)
            _, touched, _ = boot(work / "witness", repository, direct=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    save(
        "boot",
        {
            "seconds_to_login": seconds,
            "image_stored_bytes": published["stored_bytes"],
            "fetched_bytes": fetched,
            "requests": requests,
            "touched_bytes": touched,
            "ratio": round(fetched / touched, 3),
        },
    )


if __name__ == "__main__":
    main()
