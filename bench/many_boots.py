"""200 workstations boot at once through one server and one link: does each get its share, do all get done?

What a boot asks for is recorded from a real client that mounts a stock Debian disk with a profile and replays a boot
(`load.Boot`: metadata, tables, the bundle, what the bundle had not); simulated workstations then ask `oscirc serve` for
it, all from the same moment on, over one emulated link of 200 Mbit/s and 20 ms (`link.py`).

Must show: every workstation gets every answer whole; the 95th percentile of their times is at most 1.3 of the fair
share, which is all bytes of all workstations over the link's rate.

    python bench/many_boots.py [WORKSTATIONS] [MBIT]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import serving
import staging
from contenders import HERE, is_mounted
from harness import DISKS, Workstation, save
from link import Link
from load import Boot, boot_of, boot_together, percentile
from support.commands import free_port
from support.nginx import nginx

WORKSTATIONS = 200
RATE_MBIT = 200
ROUND_TRIP_S = 0.02
AT_MOST = 1.3


def recorded(tree: Path, pin: str, image: str, trace: Path | None, work: Path) -> Boot:
    """What a client asks for that has the remote's root and nothing else: mounts, reads what a boot reads, unmounts."""
    station, port, place = Workstation(work / "client"), free_port(), work / "mount"
    place.mkdir(parents=True)
    with nginx(tree, work / "nginx", port) as served:
        station.run("remote", "add", "r", f"http://127.0.0.1:{port}#{pin}")
        served.forget()
        try:
            station.run("mount", f"r:{image}", place)
            if trace is None:
                (place / "disk.raw").read_bytes()
            else:
                command = [sys.executable, str(HERE / "replay.py"), str(trace), str(place / "disk.raw")]
                subprocess.run(command, check=True, capture_output=True, timeout=300)
        finally:
            if is_mounted(place):
                station.run("umount", place)
        return boot_of([asked for asked in served.asked() if asked.status < 400])


def main() -> int:
    """Record one boot, then boot many."""
    workstations = int(sys.argv[1]) if len(sys.argv) > 1 else WORKSTATIONS
    rate_mbit = float(sys.argv[2]) if len(sys.argv) > 2 else RATE_MBIT
    stage = staging.prepare("debian12", staging.stage_disk("debian12"))
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="oscirc-bench-", dir=DISKS) as directory:
        work = Path(directory)
        data = serving.copied(stage.directory / "repository", work)
        with (
            serving.embedded(data, work) as port,
            Link(port, rate_bits=rate_mbit * 1e6, round_trip_s=ROUND_TRIP_S) as link,
        ):
            boot = recorded(data / "tree", stage.pin, "bench/profiled", stage.trace, work / "recording")
            times = boot_together(link.port, boot, workstations)
            passed = link.tell()
    fair_s = 8 * boot.bytes * workstations / (rate_mbit * 1e6)
    late = percentile(times, 0.95)
    save(
        "many_boots",
        {
            "workstations": workstations,
            "link": f"{rate_mbit:g} Mbit/s, {1000 * ROUND_TRIP_S:g} ms",
            "requests_of_one": boot.requests,
            "megabytes_of_one": round(boot.bytes / 1e6, 1),
            "all_complete": len(times) == workstations,
            "fair_share_s": round(fair_s, 1),
            "median_s": round(percentile(times, 0.5), 1),
            "95th_percentile_s": round(late, 1),
            "last_s": round(times[-1], 1),
            "95th_percentile_over_fair_share": f"{late / fair_s:.3f} (at most {AT_MOST})",
            "connections": passed.connections,
            "bytes_over_the_link": passed.bytes_down,
            "load_of_the_machine_before": round(load_before, 1),
        },
    )
    return int(late > AT_MOST * fair_s)


if __name__ == "__main__":
    sys.exit(main())
