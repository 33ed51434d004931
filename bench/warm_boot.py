"""What a mount costs a guest once everything is cached: real boots under TCG from it and from a local raw file.

Must show, on a stock Debian 12 and a Debian 13: the guest's summed read time (QMP `query-blockstats`, from power-on to
the login prompt) exceeds that of a boot from the raw file by at most 3 % of the boot time, as the median of five pairs;
and random 4 KiB reads of what the kernel's page cache holds cause no call to the driver.

Every boot is started by the code of `oscirc boot`, on a new overlay; only the backing file differs. The mount's is
opened as boot does: the kernel may read ahead since all of the image is here, which is asked of the driver first. The
raw file is opened as QEMU opens one by name, where the kernel reads ahead, too.

Each round has one boot of either; who goes first changes from round to round. All begin with nothing in the kernel's
page cache: the pages of the raw file and of oscirc's cache are dropped, the mount is new, so that every block is loaded
from the disk and verified. Random reads are made through a descriptor as guests have it, and only of pages that the
kernel holds at that moment (mincore(2)): it may take any back when it wants memory. How many were left out is told.

    python bench/warm_boot.py [--disk debian12|debian13]… [--pairs N]    N below 5: a quick look
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import DISKS, MIB, RESULTS, Workstation, stamped
from page_cache import PAGE, held
from staging import MEASURED, Stage, nginx, prepare, stage_disk

from oscirc_vmlaunch import launching
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.machine import OVERLAY_NODE
from oscirc_vmlaunch.records import InstanceRecord

PAIRS = 5
SHARE = 0.03
MOUNT, RAW = "mount", "raw_by_name"
BOOT_DEADLINE_S = 600
RANDOM_READS = 20_000
RANDOM_SPAN = 64 * MIB
LEAST_READ = 0.9
"""Share of the random reads that must have been made; with more left out nothing is shown."""
MEMORY_MIB, CPUS = 1024, 2
_NO_VERSION = "00" * 32
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot: seconds to the prompt, and what the guest's disk did until then."""

    seconds: float
    read_s: float
    reads: int
    read_bytes: int


@dataclass(frozen=True, slots=True)
class RandomReads:
    """Reads made, reads left out since their page was not held, calls to the driver meanwhile, the median read."""

    made: int
    left_out: int
    driver_calls: int
    median_us: float


async def boot(disk: Path, work: Path, *, is_here: bool) -> Boot:
    """Boot a disk below a new overlay until its login prompt, then pull the plug."""
    instance = Instances(work).create(
        InstanceRecord(
            name="bench",
            remote="",
            reference="bench/plain",
            manifest_digest=_NO_VERSION,
            version="1",
            firmware="uefi",
            architecture="x86_64",
            memory_mib=MEMORY_MIB,
            cpus=CPUS,
            accelerator="tcg",
            mount_point=str(disk.parent),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            ephemeral=True,
        )
    )
    started = time.monotonic()
    machine = await launching.start(instance, disk, manifest_digest=_NO_VERSION, is_here=is_here)
    try:
        console = machine.instance.console_log
        while not (console.exists() and b"login:" in console.read_bytes()):
            if not machine.alive() or time.monotonic() > started + BOOT_DEADLINE_S:
                raise SystemExit(f"no login prompt from {disk}")
            await asyncio.sleep(_TICK_S)
        seconds = time.monotonic() - started
        async with machine.monitor() as monitor:
            return summed(seconds, await monitor.execute("query-blockstats"))
    finally:
        await launching.stop(machine.instance, timeout_s=0)


def drop_pages(place: Path) -> None:
    """Empty the kernel's page cache of a file, or of all files below a folder; nobody writes them."""
    for file in [place] if place.is_file() else [each for each in place.rglob("*") if each.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fdatasync(descriptor)  # what is not on the disk yet cannot be dropped
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


def order(number: int) -> list[str]:
    """Who boots when in a round: each is the first in turn."""
    return [MOUNT, RAW] if number % 2 == 0 else [RAW, MOUNT]


def rounds(station: Workstation, stage: Stage, work: Path, count: int) -> list[dict[str, Boot]]:
    """One boot of each kind per round."""
    found = []
    for number in range(count):
        boots: dict[str, Boot] = {}
        for kind in order(number):
            with contextlib.ExitStack() as stack:
                if kind == MOUNT:
                    drop_pages(station.home / "cache")
                    disk = stack.enter_context(mounted(station, work / "mnt"))
                    facts = station.json("status", disk.parent)
                    is_here = facts["surveyed"] and facts["cached_blocks"] == facts["needed_blocks"]
                    assert is_here, "the image was pulled, and boot would find that it is all here"
                else:
                    disk, is_here = stage.disk, True
                    drop_pages(disk)
                boots[kind] = asyncio.run(boot(disk, work / "instances", is_here=is_here))
            print(f"{stage.name}, round {number + 1}, {kind}: {boots[kind]}", flush=True)
        found.append(boots)
    return found


def random_reads(station: Workstation, stage: Stage, place: Path) -> RandomReads:
    """Random 4 KiB reads of what was read before and is still held, through a descriptor as a guest has it."""
    start = next(
        begin for begin in range(0, stage.disk.stat().st_size, RANDOM_SPAN) if _has_data(stage.disk, begin, RANDOM_SPAN)
    )
    chance = random.Random(4)  # noqa: S311  # positions, the same in every run
    times, left_out = [], 0
    with mounted(station, place) as path, launching.opened_for_a_guest(path, is_here=True) as disk:
        for _ in range(2):
            for at in range(start, start + RANDOM_SPAN, MIB):
                os.pread(disk, MIB, at)
        before = station.json("status", place)["read_calls"]
        for _ in range(RANDOM_READS):
            at = start + PAGE * chance.randrange(RANDOM_SPAN // PAGE)
            if not held(disk, at, at + PAGE):
                left_out += 1
                continue
            began = time.perf_counter_ns()
            os.pread(disk, 4096, at)
            times.append(time.perf_counter_ns() - began)
        calls = station.json("status", place)["read_calls"] - before
    return RandomReads(len(times), left_out, calls, statistics.median(times) / 1000 if times else 0.0)


def _has_data(disk: Path, start: int, size: int) -> bool:
    with disk.open("rb") as file:
        file.seek(start)
        return sum(1 for _ in range(size // MIB) if file.read(MIB).strip(b"\0")) > size // MIB // 2


def verdict(boots: list[dict[str, Boot]], reads: RandomReads) -> tuple[dict[str, object], bool]:
    """The figures, and whether both bounds hold."""
    shares = {RAW: [(each[MOUNT].read_s - each[RAW].read_s) / each[RAW].seconds for each in boots]}
    medians = {peer: statistics.median(found) for peer, found in shares.items()}
    shown = reads.made >= LEAST_READ * (reads.made + reads.left_out)
    passed = max(medians.values()) <= SHARE and reads.driver_calls == 0 and shown
    return {
        "pairs": len(boots),
        "boot_seconds": {kind: [round(each[kind].seconds, 1) for each in boots] for kind in boots[0]},
        "read_seconds": {kind: [round(each[kind].read_s, 3) for each in boots] for kind in boots[0]},
        "reads": boots[0][MOUNT].reads,
        "read_MB": round(boots[0][MOUNT].read_bytes / 1e6, 1),
        "excess_share_of_boot": {peer: [round(each, 4) for each in found] for peer, found in shares.items()},
        "median_excess_share_of_boot": {peer: round(median, 4) for peer, median in medians.items()},
        "must_be_at_most": SHARE,
        "random_reads": reads.made,
        "random_reads_left_out": reads.left_out,
        "driver_calls_during_random_reads": reads.driver_calls,
        "random_read_median_us": round(reads.median_us, 1),
        "passed": passed,
    }, passed


def measure(name: str, count: int) -> tuple[dict[str, object], bool]:
    """One disk: cache everything, boot in rounds, read at random."""
    stage = prepare(name, stage_disk(name))
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        with nginx(stage, work / "nginx") as port:
            station = Workstation(work / "client")
            station.run("remote", "add", "r", stage.remote_line(port))
            station.run("pull", "r:bench/plain", timeout=600)
            boots = rounds(station, stage, work, count)
            reads = random_reads(station, stage, work / "mnt")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return verdict(boots, reads)


def keep(file: Path, name: str, figures: dict[str, object]) -> None:
    """Put one disk's figures among the others' in the results."""
    disks = json.loads(file.read_text(encoding="utf-8"))["disks"] if file.exists() else {}
    disks[name] = stamped("warm_boot", figures)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"disks": dict(sorted(disks.items()))}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Measure each disk that is named, or both; exit code 1 when one misses a bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--disk", action="append", choices=list(MEASURED), help="this one; more than once for more")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds of boots, %(default)s if not given")
    parser.add_argument("--results", type=Path, default=RESULTS / "warm_boot.json", help="where the figures go")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the guest ends all the same
    missed = []
    for name in options.disk or list(MEASURED):
        figures, passed = measure(name, options.pairs)
        keep(options.results, name, figures)
        print(f"\n{name}")
        for key, value in figures.items():
            print(f"  {key}: {value}")
        if not passed:
            missed.append(name)
    if missed:
        print(f"missed a bound: {', '.join(missed)}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
