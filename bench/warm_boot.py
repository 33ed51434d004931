"""What a mount costs a guest once everything is cached: real boots under TCG from it and from a local raw file.

Must show: the guest's summed read time (QMP `query-blockstats`, from power-on to the login prompt) exceeds that of a
boot from the raw file by at most 3 % of the boot time, as the median of five pairs; and random 4 KiB reads of what the
kernel's page cache holds cause no call to the driver.

In each pair one boot of either; who goes first changes from pair to pair. The same QEMU command line but for the
backing file, a new overlay each time, and the kernel's page cache empty at the start of both: the raw file's pages are
dropped, the mount is new, so that every block is loaded from oscirc's cache and verified. `--pairs N`: a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import DISKS, MIB, Workstation, save
from staging import Stage, nginx, prepare, stage_disk
from support.commands import end

from oscirc_vmlaunch import firmware, overlays, qmp
from oscirc_vmlaunch.machine import MACHINE_TYPES, OVERLAY_NODE, Endpoint, MachineSpec, build_arguments
from oscirc_vmlaunch.programs import find_qemu

PAIRS = 5
SHARE = 0.03
BOOT_DEADLINE_S = 600
RANDOM_READS = 20_000
RANDOM_SPAN = 64 * MIB
MEMORY_MIB, CPUS = 1024, 2
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot: seconds to the prompt, and what the guest's disk did until then."""

    seconds: float
    read_s: float
    reads: int
    read_bytes: int


def boot(disk: Path, work: Path) -> Boot:
    """Boot a disk below a new overlay until its login prompt, then pull the plug."""
    work.mkdir()
    asyncio.run(overlays.create(work / "overlay.qcow2", disk, manifest_digest="00" * 32))  # of no version
    qemu = find_qemu("x86_64")
    flash = firmware.prepare(firmware.find("uefi", "x86_64"), work / "variables.fd")
    monitor, console = work / "monitor", work / "console.log"
    machine = MachineSpec(
        name="bench",
        qemu=qemu,
        machine_type=MACHINE_TYPES["uefi"],
        accelerator="tcg",
        cpus=CPUS,
        memory_mib=MEMORY_MIB,
        base=disk,
        overlay=work / "overlay.qcow2",
        flash=flash,
        monitors=(Endpoint(monitor),),
        console=Endpoint(work / "console"),
        console_log=console,
        pid_file=work / "pid",
    )
    started = time.monotonic()
    log = (work / "qemu.log").open("wb")
    process = subprocess.Popen(build_arguments(machine), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work)
    log.close()
    try:
        while not (console.exists() and b"login:" in console.read_bytes()):
            if process.poll() is not None or time.monotonic() > started + BOOT_DEADLINE_S:
                raise SystemExit(f"no login prompt from {disk}")
            time.sleep(_TICK_S)
        seconds = time.monotonic() - started
        return summed(seconds, asyncio.run(_ask(monitor, "query-blockstats")))
    finally:
        end(process)


async def _ask(monitor: Path, command: str) -> object:
    async with qmp.connect(monitor) as connected:
        return await connected.execute(command)


def drop_pages(file: Path) -> None:
    """Empty the kernel's page cache of a file that nobody writes."""
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def summed(seconds: float, entries: object) -> Boot:
    """The guest's disk in the answer to `query-blockstats`."""
    assert isinstance(entries, list)
    [disk] = [entry for entry in entries if entry.get("node-name") == OVERLAY_NODE and entry.get("qdev")]
    stats = disk["stats"]
    return Boot(seconds, stats["rd_total_time_ns"] / 1e9, stats["rd_operations"], stats["rd_bytes"])


@contextlib.contextmanager
def mounted(station: Workstation, place: Path) -> Iterator[Path]:
    """The image on a new mount."""
    place.mkdir(exist_ok=True)
    station.run("mount", "r:bench/plain", place)
    try:
        yield place / "disk.raw"
    finally:
        station.run("umount", place)


def pairs(station: Workstation, stage: Stage, work: Path, count: int) -> list[tuple[Boot, Boot]]:
    """(from the mount, from the raw file), the first of them changing from pair to pair."""
    found = []
    for number in range(count):
        boots: dict[str, Boot] = {}
        for kind in ("mount", "raw") if number % 2 == 0 else ("raw", "mount"):
            directory = work / f"{number}-{kind}"
            if kind == "raw":
                drop_pages(stage.disk)
                boots[kind] = boot(stage.disk, directory)
            else:
                with mounted(station, work / "mnt") as disk:
                    boots[kind] = boot(disk, directory)
            shutil.rmtree(directory)
            print(f"pair {number + 1}, {kind}: {boots[kind]}", flush=True)
        found.append((boots["mount"], boots["raw"]))
    return found


def random_reads(station: Workstation, stage: Stage, place: Path) -> tuple[int, float]:
    """Driver calls during random 4 KiB reads of what was read before, and microseconds of the median read."""
    start = next(
        begin for begin in range(0, stage.disk.stat().st_size, RANDOM_SPAN) if _has_data(stage.disk, begin, RANDOM_SPAN)
    )
    chance = random.Random(4)  # noqa: S311  # positions, the same in every run
    with mounted(station, place) as path:
        disk = os.open(path, os.O_RDONLY)
        try:
            for _ in range(2):
                for at in range(start, start + RANDOM_SPAN, MIB):
                    os.pread(disk, MIB, at)
            before = station.json("status", place)["read_calls"]
            times = []
            for _ in range(RANDOM_READS):
                # Not the last 2 MiB: there the kernel's read-ahead would look beyond what was read.
                at = start + 4096 * chance.randrange((RANDOM_SPAN - 2 * MIB) // 4096)
                began = time.perf_counter_ns()
                os.pread(disk, 4096, at)
                times.append(time.perf_counter_ns() - began)
            calls = station.json("status", place)["read_calls"] - before
        finally:
            os.close(disk)
    return calls, statistics.median(times) / 1000


def _has_data(disk: Path, start: int, size: int) -> bool:
    with disk.open("rb") as file:
        file.seek(start)
        return sum(1 for _ in range(size // MIB) if file.read(MIB).strip(b"\0")) > size // MIB // 2


def verdict(boots: list[tuple[Boot, Boot]], calls: int) -> tuple[dict[str, object], bool]:
    """The figures, and whether both bounds hold."""
    shares = [(ours.read_s - raw.read_s) / raw.seconds for ours, raw in boots]
    share = statistics.median(shares)
    passed = share <= SHARE and calls == 0
    return {
        "pairs": len(boots),
        "boot_seconds_from_mount": [round(ours.seconds, 1) for ours, _ in boots],
        "boot_seconds_from_raw": [round(raw.seconds, 1) for _, raw in boots],
        "read_seconds_from_mount": [round(ours.read_s, 3) for ours, _ in boots],
        "read_seconds_from_raw": [round(raw.read_s, 3) for _, raw in boots],
        "read_MB": round(boots[0][0].read_bytes / 1e6, 1),
        "excess_share_of_boot": [round(each, 4) for each in shares],
        "median_excess_share_of_boot": round(share, 4),
        "must_be_at_most": SHARE,
        "driver_calls_during_random_reads": calls,
        "passed": passed,
    }, passed


def main() -> int:
    """Cache everything, boot in pairs, read at random."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    count = parser.parse_args().pairs
    stage = prepare("debian12", stage_disk("debian12"))
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        with nginx(stage, work / "nginx") as port:
            station = Workstation(work / "client")
            station.run("remote", "add", "r", stage.remote_line(port))
            station.run("pull", "r:bench/plain", timeout=600)
            boots = pairs(station, stage, work, count)
            calls, micros = random_reads(station, stage, work / "mnt")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    figures, passed = verdict(boots, calls)
    save("warm_boot", {**figures, "random_read_median_us": round(micros, 1)})
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
