"""A boot's reads over a network: this project, cold and warm, against what a user would pick instead.

    python bench/boot_cold.py [--disk NAME]… [--link MBIT:MS]… [--only CONTENDER]… [--quick] [--fresh]

Every contender (`contenders.py`, `peers.py`) replays the same recorded boot of the same disk over the same emulated
link (`link.py`), from the same nginx, without think time. Limit: the blocks that the trace touches, as zstd level 6
frames, over the link's rate. Bytes and requests include all metadata; every read is compared with the disk afterwards.

- *whole way*: from the typed command, on a client that has a URL only, to the last read answered.
- *replay*: from the first read, or from the request for the bundle, which comes earlier.

Cells that a bound hangs on (`must_show.py`) are measured alone on the machine, this project's three times; others on
slow links run side by side, since they wait rather than work. Who needs more than STOP_AT times the limit is stopped.
Results are kept after each cell in bench/results/; a run goes on where the last one was. Exit code 1: a bound missed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import must_show
from cells import Cell, Disk, Place, Results, Run, Took, load
from contenders import Contender, Failed, Setting, TooSlow
from harness import DISKS, RESULTS, ROOT, machine
from link import Link
from peers import all_contenders
from replay import AS_GUEST
from revisions import revision
from staging import Stage, is_prepared, nginx, prepare, stage_disk

STAGES = {"debian12": "Debian 12", "debian13": "Debian 13"}
"""What is measured; `unlearnt` has a third one made, to learn from."""
LINKS = [(rate, round_trip) for rate in (100, 1000, 20) for round_trip in (1, 20, 100, 200)]
STOP_AT = 10
LANES = {20: 12, 100: 3}
"""How many cells run side by side at each rate; any other rate's run alone. A link of 100 Mbit/s takes 8 % of a
core, a peer on it waits most of the time: its seconds among three were within 3 % of those alone."""
REPETITIONS = 3
QUICK_LINK = (100, 20)
_STARTUP_S = 3.0
"""What the cut-off allows for programs to start, beyond its multiple of the limit."""
_AT_LEAST_S = 15.0
"""Nobody is stopped before: on fast links the limit is half a second, and round trips take their time."""


def cutoff_s(limit_s: float) -> float:
    """How long a contender may take from its command to the last read."""
    return max(STOP_AT * limit_s + _STARTUP_S, _AT_LEAST_S)


def measure(contender: Contender, stage: Stage, disk: Disk, place: Place, work: Path) -> Run:
    """One start and replay in a fresh directory, which is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix=f"{contender.name}-", dir=work))
    rate = place.rate_mbit * 1e6
    try:
        with (
            nginx(stage, directory / "nginx") as server_port,
            Link(server_port, rate_bits=rate, round_trip_s=place.round_trip_ms / 1000) as link,
        ):
            setting = Setting(stage, link.port, server_port, directory / "client")
            setting.work.mkdir()
            log = directory / "nginx" / "access.log"
            there, facts, replay = None, None, None
            try:
                contender.prepare(setting)
                answered = _lines(log)
                replay = _Replay(stage, contender)
                link.tell("reset")
                started = time.monotonic()
                cutoff = started + cutoff_s(disk.limit_s(place.rate_mbit))
                with contextlib.suppress(TooSlow):
                    path = contender.start(setting, cutoff)
                    there = time.monotonic()
                    facts = replay.facts(path, cutoff)
                gone = time.monotonic()
            finally:
                contender.stop(setting)
                if replay is not None:
                    replay.reap()
            passed = link.tell()
            requests = _lines(log) - answered
        there = gone if there is None else there
        if facts is None:
            return Run(
                round(gone - started, 3), round(there - started, 3), round(gone - there, 3),
                passed.bytes_down, requests, 0, round(gone - there, 3), stopped=True,
            )  # fmt: skip
        clock = min(facts["started"], passed.first_bundle_s or facts["started"])
        return Run(
            round(facts["ended"] - started, 3), round(there - started, 3), round(facts["ended"] - clock, 3),
            passed.bytes_down, requests, int(facts["wrong"]), facts["worst_s"][-1],
        )  # fmt: skip
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Replay:
    """The replayer as a process, ready to read. One that is stopped may hang in a read until its contender is gone:
    reaped last.
    """

    def __init__(self, stage: Stage, contender: Contender) -> None:
        options = [AS_GUEST] if contender.as_guest else []
        command = [sys.executable, str(ROOT / "bench" / "replay.py"), *options, str(stage.trace), "-", str(stage.disk)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # it was asked for
        if self._process.stdout.readline() != "ready\n":
            raise Failed(f"the replayer did not start: it ended with {self._process.wait(30)}")

    def facts(self, path: Path, cutoff: float) -> dict | None:
        """What it found when reading this file, or None when it was stopped."""
        try:
            output, _ = self._process.communicate(f"{path}\n", timeout=max(0.1, cutoff - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            return None
        if self._process.returncode:
            raise Failed(f"the replay ended with {self._process.returncode}")
        return json.loads(output)

    def reap(self) -> None:
        """Gone, whatever happened."""
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def key_of(stage: Stage) -> str:
    """What a cell's figures hold for: code, stage, machine."""
    facts = (revision("boot_cold"), (stage.directory / "stage.json").read_text(), json.dumps(asdict(machine())))
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


def wanted(disks: list[str], links: list[tuple[int, int]], names: list[str], *, quick: bool) -> list[tuple[Place, int]]:
    """The cells of a selection and how often each is measured; what decides comes first."""
    cells = []
    for link in links:
        for disk in disks:
            for name in names:
                if name == must_show.UNLEARNT and (quick or link not in must_show.PLAIN_BOUNDS):
                    continue
                runs = REPETITIONS if (name, link) in must_show.REPEATED and not quick else 1
                cells.append((Place(disk, *link, name), runs))
    return sorted(cells, key=lambda each: -each[1])


def batches(cells: list[tuple[Place, int]]) -> Iterator[tuple[int, list[tuple[Place, int]]]]:
    """(lanes, cells) in turn: alone what a bound hangs on and what works rather than waits; then rate by rate, the
    longest first.
    """

    def alone(cell: tuple[Place, int]) -> bool:
        place, runs = cell
        compared = (place.rate_mbit, place.round_trip_ms) in must_show.PLAIN_BOUNDS
        ours = place.contender.startswith("oscirc") and place.rate_mbit >= 100
        return runs > 1 or ours or (compared and place.contender in must_show.BLOCK_PEERS)

    yield 1, [cell for cell in cells if alone(cell)]
    for rate in dict.fromkeys(place.rate_mbit for place, _ in cells):
        lanes = LANES.get(rate, 1)
        those = [cell for cell in cells if cell[0].rate_mbit == rate and not alone(cell)]
        yield lanes, sorted(those, key=lambda cell: (cell[0].contender.startswith("oscirc"), -cell[0].round_trip_ms))


class Bench:
    """A run over a selection: measures what is missing, keeps results as they come."""

    def __init__(self, results: Results, path: Path, stages: dict[str, Stage], work: Path) -> None:
        self.results = results
        self.path = path
        self.stages = stages
        self.work = work
        self.failed: list[Place] = []
        self._lock = threading.Lock()
        for name, stage in stages.items():
            touched = stage.touched()
            results.disks[name] = Disk(
                STAGES[name],
                key_of(stage),
                touched.blocks,
                touched.raw_bytes,
                touched.frame_bytes,
                revision("boot_cold"),
            )

    def run(self, cells: list[tuple[Place, int]]) -> None:
        """Measure the cells, side by side where that is allowed."""
        for lanes, batch in batches(cells):
            pool = concurrent.futures.ThreadPoolExecutor(lanes)
            try:
                for done in concurrent.futures.as_completed([pool.submit(self._cell, *cell) for cell in batch]):
                    done.result()
            finally:
                pool.shutdown(cancel_futures=True)  # an interrupted run begins nothing new

    def _cell(self, place: Place, runs: int) -> None:
        disk = self.results.disks[place.disk]
        measured: list[Run] = []
        try:
            for _ in range(runs):
                contender = all_contenders()[place.contender]
                measured.append(measure(contender, self.stages[place.disk], disk, place, self.work))
        except (Failed, AssertionError, subprocess.SubprocessError) as broken:
            self.failed.append(place)
            print(f"{place}: {broken}", file=sys.stderr, flush=True)
            return
        cell = Cell(place, disk.key, tuple(measured))
        with self._lock:
            self.results.cells[place] = cell
            self.results.save(self.path)
            print(self._line(cell), flush=True)

    def _line(self, cell: Cell) -> str:
        place, disk = cell.place, self.results.disks[cell.place.disk]
        more = ">" if cell.stopped else " "
        return (
            f"{place.disk} {place.rate_mbit:>4} Mbit/s {place.round_trip_ms:>3} ms  {place.contender:<15}"
            f"{more}{cell.whole_s:7.2f} s  {more}{self.results.ratio(cell):6.2f} x limit"
            f" (replay {self.results.ratio(cell, replay=True):6.2f})"
            f"  {cell.bytes_down / disk.frame_bytes:5.2f} x bytes {cell.requests:6.0f} requests"
            + ("" if not cell.wrong_reads else f"  {cell.wrong_reads} READS DIFFER")
        )


def main() -> int:
    """Measure, keep, judge."""
    arguments, began = _arguments(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted is unmounted all the same
    path = RESULTS / ("boot_quick.json" if arguments.quick else "boot_cold.json")
    disks = arguments.disk or (["debian12"] if arguments.quick else list(STAGES))
    links = arguments.link or ([QUICK_LINK] if arguments.quick else LINKS)
    names = arguments.only or list(all_contenders())
    for name in disks:
        if not is_prepared(name, stage_disk(name)):
            print(f"{name}: its stage is not there and is made first: a disk, a publication, three boots; 15 minutes")
    stages = {name: prepare(name, stage_disk(name)) for name in disks}
    prepared = time.monotonic()
    results = load(path)
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    try:
        bench = Bench(results, path, stages, work)
        results.measured = datetime.now(UTC).strftime("%Y-%m-%d")
        results.machine = asdict(machine())
        results.contenders = {name: {"label": each.label, "note": each.note} for name, each in all_contenders().items()}
        cells = wanted(disks, links, names, quick=arguments.quick)
        rest = cells if arguments.fresh else results.missing(cells)
        print(f"{len(cells)} cells, {len(cells) - len(rest)} of them measured before", flush=True)
        bench.run(rest)
        results.took = Took(round(prepared - began, 1), round(time.monotonic() - prepared, 1), len(rest))
        print(results.took.line(), flush=True)
        results.save(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    missed = judge(results, disks)
    if bench.failed:
        print(f"not measured, run again: {', '.join(map(str, bench.failed))}", file=sys.stderr)
    return int(bool(missed or bench.failed))


def judge(results: Results, disks: list[str]) -> int:
    """Print every check of these disks; 1 if one failed."""
    found = [check for check in must_show.checks(results) if check.disk in disks]
    print("\n" + "\n".join(check.line() for check in found if check.passed is not None))
    if open_ones := sum(check.passed is None for check in found):
        print(f"{open_ones} checks are open: their cells were not measured")
    return int(any(check.passed is False for check in found))


def link_of(text: str) -> tuple[int, int]:
    """`MBIT:MS` as numbers."""
    rate, _, round_trip = text.partition(":")
    return int(rate), int(round_trip)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--disk", action="append", choices=list(STAGES))
    parser.add_argument(
        "--link", action="append", type=link_of, metavar="MBIT:MS", help="one of the issue's or any other"
    )
    parser.add_argument("--only", action="append", choices=list(all_contenders()), metavar="CONTENDER")
    parser.add_argument("--quick", action="store_true", help="one link, one disk, each contender once")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured with this code")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
