"""Publishing a second version of a stock Debian disk, 2 GiB with 60 MB changed, against publishing the first.

Must show: the second costs at most 0.3 of the first, in bytes sent and in time; what is said about which blocks are
missing is under 1 % of the bytes of the first upload. Bytes are counted at the server, by its own metrics. Time is that
of the whole command with the same work as for the first (`--deltas 0 --level 2`), the median of three repositories.
Once also with what `publish` does by default so that readers fetch less: an update is compressed harder, and a delta
pack is made; by the server as a job after the release, or by the publisher where the server does no jobs (alone): this
publisher, who kept nothing, fetches the first version for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from harness import DISKS, Workstation, add_publisher, debian_disk, initialise, save, timed, warm
from support.commands import Repository, end, free_port, wait_for_line

ROUNDS = 3
COST_AT_MOST = 0.3
NEGOTIATION_AT_MOST = 0.01
PLAIN = ("--deltas", "0", "--level", "2")
WAYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("plain", PLAIN, "off"),
    ("default", (), "1"),
    ("alone", (), "off"),
)
"""Names, options of `publish`, and jobs of the server."""


@contextlib.contextmanager
def counted_repository(directory: Path, jobs: str = "off") -> Iterator[tuple[Workstation, Repository, int]]:
    """An empty repository whose server counts; gives the port of its metrics, too."""
    station, metrics_port = Workstation(directory / "publisher"), free_port()
    made = initialise(station, directory / "repository")
    where = ("--data", made.directory, "--listen", f"127.0.0.1:{made.port}", "--log-level", "warning")
    process = station.start(
        "serve", *where, "--jobs", jobs, "--metrics-listen", f"127.0.0.1:{metrics_port}",
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_line(process, "listening on")
        add_publisher(station, made, "bench")
        yield station, made, metrics_port
    finally:
        end(process)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of bodies: which blocks are missing, questions and answers; all that was sent; all that was fetched."""

    negotiation: int
    sent: int
    fetched: int

    def since(self, before: Traffic) -> Traffic:
        """What came after an earlier count."""
        pairs = zip(astuple(self), astuple(before), strict=True)
        return Traffic(*(now - then for now, then in pairs))


def traffic(metrics_port: int) -> Traffic:
    """What the server has counted by now."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30).read().decode()
    form = r'^oscirc_server_(request|response)_bytes_total\{route="([^"]+)"\} (\S+)'
    counted = [(kind, route, int(float(value))) for kind, route, value in re.findall(form, page, re.MULTILINE)]
    return Traffic(
        sum(value for _, route, value in counted if route.endswith("/missing")),
        sum(value for kind, _, value in counted if kind == "request"),
        sum(value for kind, _, value in counted if kind == "response"),
    )


@dataclass(frozen=True, slots=True)
class Round:
    """One repository: seconds and bytes of the first version, and of the second."""

    first_s: float
    first: Traffic
    second_s: float
    second: Traffic


def measure(work: Path, disks: tuple[Path, Path], options: tuple[str, ...], jobs: str) -> Round:
    """Publish both versions into an empty repository."""
    with counted_repository(work, jobs) as (station, _, port):
        figures: list[float | Traffic] = []
        before = traffic(port)
        for version, disk in enumerate(disks, 1):
            os.sync()  # neither is to wait for what was left to be written
            command = station.command("publish", disk, f"test:bench/debian@{version}", "--key", "bench", *options)
            seconds = timed(command, env=station.environment, stderr=subprocess.DEVNULL)
            now = traffic(port)
            figures += [seconds, now.since(before)]
            before = now
    return Round(*figures)  # type: ignore[arg-type]


def main() -> int:
    """Both ways, in turn."""
    disks = (debian_disk(1), DISKS / "v2-same-kernel.raw")
    assert disks[1].exists(), "guests/debian.py builds it: make bench-update"
    for disk in disks:
        warm(disk)
    load_before = os.getloadavg()[0]
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    found: dict[str, list[Round]] = {way: [] for way, _, _ in WAYS}
    try:
        for number in range(ROUNDS):
            for way, options, jobs in WAYS if number == 0 else WAYS[:1]:
                place = work / f"{way}-{number}"
                found[way].append(measure(place, disks, options, jobs))
                shutil.rmtree(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)

    def ratio(way: str) -> float:
        return statistics.median(each.second_s / each.first_s for each in found[way])

    plain, default, alone = found["plain"][0], found["default"][0], found["alone"][0]
    full = plain.first.sent
    bytes_ratio = max(plain.second.sent, default.second.sent) / full
    asked = max(plain.first.negotiation, plain.second.negotiation)
    save(
        "publish_again",
        {
            "first_mb_sent": round(full / 1e6, 1),
            "second_mb_sent": round(plain.second.sent / 1e6, 1),
            "second_mb_sent_with_defaults": round(default.second.sent / 1e6, 1),
            "second_mb_fetched_with_defaults": round(default.second.fetched / 1e6, 1),
            "second_mb_fetched_alone": round(alone.second.fetched / 1e6, 1),
            "bytes_of_the_second_over_the_first": f"{bytes_ratio:.3f} (at most {COST_AT_MOST})",
            "negotiation_kb": round(asked / 1e3, 1),
            "negotiation_over_a_full_upload": f"{asked / full:.5f} (at most {NEGOTIATION_AT_MOST})",
            "first_s": round(statistics.median(each.first_s for each in found["plain"]), 2),
            "second_s": round(statistics.median(each.second_s for each in found["plain"]), 2),
            "second_s_with_defaults": round(default.second_s, 2),
            "second_s_alone": round(alone.second_s, 2),
            "time_of_the_second_over_the_first": f"{ratio('plain'):.3f} (at most {COST_AT_MOST})",
            "time_with_defaults_over_the_first": round(ratio("default"), 3),
            "time_alone_over_the_first": round(ratio("alone"), 3),
            "load_of_the_machine_before": round(load_before, 1),
        },
    )
    return int(max(bytes_ratio, ratio("plain")) > COST_AT_MOST or asked / full > NEGOTIATION_AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
