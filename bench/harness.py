"""What the benchmarks share: commands in a home of their own, a repository, timing of whole processes, and results.

Figures are whole-process figures; what a benchmark claims is a ratio against a named peer or a physical limit measured
in the same run. Results go to `bench/results/<name>.json` with the machine they were measured on.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from revisions import revision  # noqa: E402
from support.commands import Repository, Workstation, add_publisher, initialise, serving  # noqa: E402

__all__ = ["Repository", "Workstation", "add_publisher", "initialise", "serving"]

RESULTS = ROOT / "bench" / "results"
DISKS = Path(os.environ.get("OSCIRC_TEST_DISKS", "/var/tmp/oscirc-test-disks"))
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """Where figures were measured."""

    processor: str
    cores: int
    memory_gib: int
    kernel: str
    python: str


def machine() -> Machine:
    """This machine, in the words of /proc."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(
        (line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(model, os.cpu_count() or 0, round(memory / (1 << 30)), platform.release(), platform.python_version())


def timed(command: Sequence[str], **options: object) -> float:
    """Wall seconds of a process that must succeed."""
    started = time.monotonic()
    subprocess.run(list(command), check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that succeeded: wall seconds, the peak memory of the largest among it and its children, its output."""

    seconds: float
    peak_mb: float
    output: str


def finish(command: Sequence[str], *, environment: dict[str, str] | None = None, timeout_s: float = 900) -> Finished:
    """Run a process to its end, which must be a success within the time."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
        )
        alarm = threading.Timer(timeout_s, process.kill)
        alarm.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            alarm.cancel()
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        assert not process.returncode, f"{command} ended with {process.returncode}: {errors.read()[-2000:]}"
        return Finished(seconds, usage.ru_maxrss / 1024, output.read())


def median_of(runs: int, measure: Callable[[], float]) -> tuple[float, list[float]]:
    """The median of several runs, and all of them."""
    values = [measure() for _ in range(runs)]
    return statistics.median(values), values


def warm(path: Path) -> None:
    """Read a file once, so that its bytes come from the page cache."""
    with path.open("rb") as file:
        while file.read(8 * MIB):
            pass


def data_extents(path: Path) -> Iterator[tuple[int, int]]:
    """(start, stop) of a sparse file's data."""
    with path.open("rb") as file:
        size, at = path.stat().st_size, 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, at


@contextlib.contextmanager
def fresh_repository(directory: Path, publisher: str = "bench") -> Iterator[tuple[Workstation, Repository]]:
    """An empty, running repository and the workstation of its one publisher."""
    station = Workstation(directory / "publisher")
    repository = initialise(station, directory / "repository")
    with serving(station, repository):
        add_publisher(station, repository, publisher)
        yield station, repository


def stamped(name: str, figures: dict[str, object]) -> dict[str, object]:
    """A benchmark's figures with the day, the machine and the code that they were measured with."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"measured": day, "machine": asdict(machine()), "code": revision(name), **figures}


def save(name: str, figures: dict[str, object]) -> None:
    """Write a benchmark's figures, and print them."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(stamped(name, figures), indent=1) + "\n", encoding="utf-8")
    print(f"\n{name}")
    for key, value in figures.items():
        print(f"  {key}: {value}")


def debian_disk(version: int = 1) -> Path:
    """The stock Debian disk (built once by `guests/debian.py`)."""
    disk = DISKS / f"v{version}.raw"
    if not disk.exists():
        extra = ["--upgraded"] if version > 1 else []
        prefix = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*prefix, sys.executable, str(ROOT / "guests" / "debian.py"), str(DISKS), *extra], check=True)
    return disk
