"""How fast blocks are served on loopback: by nginx with deploy's files, by nginx with hardly any, by `oscirc serve`.

Must show: nginx in front at least 0.95 of nginx that serves the same plain files (both without TLS, in turn, median
of 3); the embedded server at least 400 MB/s of blocks. All blocks of a stock Debian disk are asked for, one after the
other, on 8 connections by `wrk`, out of the page cache; every answer must be a success.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import staging
from harness import DISKS, Workstation, save, warm
from load import Throughput, wrk
from support import front as fronts
from support.certificates import certificate
from support.commands import end, free_port, wait_for_line

SECONDS = 6
ROUNDS = 3
CONNECTIONS = 8
FRONT_AT_LEAST = 0.95
EMBEDDED_AT_LEAST = 400e6


def copied(repository: Path, work: Path) -> Path:
    """A repository of its own, so that the stage stays as it is: the tree as links, since files in it never change."""
    data = work / "data"
    shutil.copytree(repository, data, ignore=shutil.ignore_patterns("tree", "*-wal", "*-shm"))
    shutil.copytree(repository / "tree", data / "tree", copy_function=os.link)
    return data


@contextlib.contextmanager
def embedded(data: Path, work: Path) -> Iterator[int]:
    """`oscirc serve` on its own; gives its port."""
    port = free_port()
    options = ("--data", data, "--listen", f"127.0.0.1:{port}", "--log-level", "warning", "--jobs", "off")
    process = Workstation(work / "operator").start("serve", *options, stdout=subprocess.PIPE, text=True)
    try:
        wait_for_line(process, "listening on")
        yield port
    finally:
        end(process)


@contextlib.contextmanager
def front(tree: Path, work: Path) -> Iterator[int]:
    """The files of deploy/nginx for one machine, but for TLS, in a running nginx; gives its port."""
    made = fronts.new_front(work / "front")
    changes = fronts.machine_changes(made, free_port(), tree, certificate(work))
    changes["listen 443 ssl http2;"] = f"listen 127.0.0.1:{made.port} backlog=1024;"
    changes |= {" buffer=64k flush=5s": " buffer=64k flush=5s"}  # as installed
    with fronts.running(made, "machine", changes):
        yield made.port


def main() -> int:
    """Measure, in turn."""
    stage = staging.prepare("debian12", staging.stage_disk("debian12"))
    files = [path for path in sorted((stage.tree / "blocks").rglob("*.zst")) if path.stat().st_size > 4096]
    paths = ["/" + path.relative_to(stage.tree).as_posix() for path in files]
    for path in files:
        warm(path)
    load_before = os.getloadavg()[0]
    found: dict[str, list[Throughput]] = {"plain": [], "front": [], "embedded": []}
    with tempfile.TemporaryDirectory(prefix="oscirc-bench-", dir=DISKS) as directory:
        work = Path(directory)
        data = copied(stage.directory / "repository", work)
        with contextlib.ExitStack() as stack:
            (work / "files").mkdir()
            plain = stack.enter_context(staging.static_files(data / "tree", work / "files", work / "plain"))
            urls = {
                "plain": f"http://127.0.0.1:{plain}/repo",
                "front": f"http://127.0.0.1:{stack.enter_context(front(data / 'tree', work))}",
                "embedded": f"http://127.0.0.1:{stack.enter_context(embedded(data, work))}",
            }
            for _ in range(ROUNDS):
                for name, url in urls.items():
                    found[name].append(wrk(url, paths, seconds=SECONDS, connections=CONNECTIONS))
    speed = {name: statistics.median(each.bytes_per_s for each in runs) for name, runs in found.items()}
    ratio = statistics.median(
        front_.bytes_per_s / plain_.bytes_per_s for front_, plain_ in zip(found["front"], found["plain"], strict=True)
    )
    save(
        "serving",
        {
            "blocks": len(paths),
            "mean_block_bytes": sum(path.stat().st_size for path in files) // len(files),
            **{f"{name}_mb_per_s": round(value / 1e6) for name, value in speed.items()},
            "nginx_in_front_over_plain_nginx": f"{ratio:.3f} (at least {FRONT_AT_LEAST})",
            "embedded_over_plain_nginx": round(speed["embedded"] / speed["plain"], 3),
            "embedded_answers_per_s": round(statistics.median(run.answers_per_s for run in found["embedded"])),
            "embedded_99th_percentile_ms": round(1000 * statistics.median(r.worst_s for r in found["embedded"]), 1),
            "load_of_the_machine_before": round(load_before, 1),
        },
    )
    return int(ratio < FRONT_AT_LEAST or speed["embedded"] < EMBEDDED_AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())
