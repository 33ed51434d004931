"""What the boot benchmarks stand on: a published disk with a profile and one without, another boot's trace, and nginx.

A stage is prepared once per disk below `<disks>/stages/<name>` and used again while the disk is the same: the published
tree (`bench/profiled` has a boot profile, `bench/plain` has none; the blocks are the same), the whole disk as one zstd
file for who downloads it first, and the trace that is replayed. The profile comes from boots with another memory size
and another number of processors than the trace's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard
from harness import DISKS, ROOT, Repository, Workstation, add_publisher, initialise, serving
from replay import reads_of
from support.commands import end, free_port

PROFILE_RUNS = ((2048, 1), (3072, 1))
"""Memory in MiB and processors of the boots that the profile comes from."""
TRACE_MACHINE = (1024, 2)
BLOCK = 256 << 10
LIMIT_LEVEL = 6
RENEWED_BEFORE = timedelta(days=3)
_BOOT_S = 900


@dataclass(frozen=True, slots=True)
class Stage:
    """One prepared disk. `pin` goes behind the repository's URL; `disk` is below `tree`'s parent as `disk.raw`."""

    name: str
    disk: Path
    directory: Path
    pin: str

    @property
    def tree(self) -> Path:
        """The repository as static files."""
        return self.directory / "repository" / "tree"

    @property
    def trace(self) -> Path:
        """The reads to replay."""
        return self.directory / "boot.trace"

    @property
    def archive(self) -> Path:
        """The whole disk in one zstd file."""
        return self.directory / "disk.raw.zst"

    def remote_line(self, port: int) -> str:
        """What a client adds, when the repository is reached at that loopback port."""
        return f"http://127.0.0.1:{port}/repo#{self.pin}"

    def touched(self) -> Touched:
        """The blocks that the trace touches."""
        positions = dict.fromkeys(
            position
            for offset, length in reads_of(str(self.trace))
            for position in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
        )
        compressor = zstandard.ZstdCompressor(level=LIMIT_LEVEL)
        frames: dict[bytes, int] = {}
        with self.disk.open("rb") as file:
            for position in positions:
                file.seek(position * BLOCK)
                block = file.read(BLOCK).ljust(BLOCK, b"\0")
                if block.strip(b"\0") and block not in frames:
                    frames[block] = len(compressor.compress(block))
        return Touched(len(frames), BLOCK * len(frames), sum(frames.values()))


@dataclass(frozen=True, slots=True)
class Touched:
    """Distinct blocks with data that a trace touches: how many, their bytes, their bytes as zstd level 6 frames."""

    blocks: int
    raw_bytes: int
    frame_bytes: int

    def limit_s(self, rate_bits: float) -> float:
        """Seconds that a link of this rate needs for the frames, and nothing else."""
        return 8 * self.frame_bytes / rate_bits


SUITES = {"debian12": "bookworm", "debian13": "trixie", "debian14": "forky"}
MEASURED = ("debian12", "debian13")
"""The stages that benchmarks measure; the other is there to learn from (`unlearnt.py`)."""


def stage_disk(name: str) -> Path:
    """Where a stage's disk is or will be built: stock Debian, the release as it was published."""
    suite = SUITES[name]
    return DISKS / ("v1.raw" if suite == "bookworm" else f"{suite}/v1.raw")


def is_prepared(name: str, disk: Path) -> bool:
    """Whether a stage is there and made from the disk as it is now."""
    return _made(name, disk) is not None


def _facts(disk: Path) -> dict[str, object]:
    stat = disk.stat()
    return {"disk": str(disk), "size": stat.st_size, "changed_ns": stat.st_mtime_ns, "form": 2}


def _made(name: str, disk: Path) -> Stage | None:
    directory = DISKS / "stages" / name
    made = directory / "stage.json"
    if not disk.exists() or not made.exists():
        return None
    known = json.loads(made.read_text())
    return Stage(name, disk, directory, known["pin"]) if _facts(disk).items() <= known.items() else None


def prepare(name: str, disk: Path) -> Stage:
    """The stage of a disk, made if it is not there; its online metadata signed again if they would soon expire."""
    made = _made(name, disk)
    if made is not None:
        _sign_again_if_due(made)
        return made
    if not disk.exists():
        build = [sys.executable, str(ROOT / "guests" / "debian.py"), str(disk.parent), "--suite", SUITES[name]]
        subprocess.run([*([] if os.geteuid() == 0 else ["sudo"]), *build], check=True)
    directory = DISKS / "stages" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    pin = _publish(directory, disk)
    with disk.open("rb") as source, (directory / "disk.raw.zst").open("wb") as target:
        zstandard.ZstdCompressor(level=3, threads=-1).copy_stream(source, target, size=disk.stat().st_size)
    (directory / "disk.raw").symlink_to(disk)
    (directory / "stage.json").write_text(json.dumps({**_facts(disk), "pin": pin}))
    return Stage(name, disk, directory, pin)


def _sign_again_if_due(stage: Stage) -> None:
    """Online metadata hold for a week; a server that starts renews those that are a day old."""
    timestamp = json.loads((stage.tree / "metadata" / "timestamp.json").read_text())
    expires = datetime.strptime(timestamp["signed"]["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if expires - datetime.now(UTC) > RENEWED_BEFORE:
        return
    data = stage.directory / "repository"
    with serving(Workstation(stage.directory / "publisher"), Repository(data, data / "keys", "", "", free_port())):
        pass


def _publish(directory: Path, disk: Path) -> str:
    station = Workstation(directory / "publisher")
    repository = initialise(station, directory / "repository")
    facts = ("--key", "bench", "--firmware", "uefi")
    with serving(station, repository):
        add_publisher(station, repository, "bench")
        for image in ("plain", "profiled"):
            station.run("publish", disk, f"test:bench/{image}@1", *facts, timeout=600)
        profiles = []
        for memory, cpus in PROFILE_RUNS:
            profiles.append(directory / f"{memory}.profile.json")
            _record(station, profiles[-1], memory, cpus, 1)
        merged = _merge(profiles, directory / "boot.profile.json")
        _record(station, directory / "unused.profile.json", *TRACE_MACHINE, 1, keep=directory / "traces")
        shutil.copyfile(next((directory / "traces").glob("*.trace")), directory / "boot.trace")
        station.run("profile", "add", "test:bench/profiled@1", merged, timeout=300)
    return repository.url.partition("#")[2]


def _record(station: Workstation, output: Path, memory: int, cpus: int, runs: int, *, keep: Path | None = None) -> None:
    machine = ("--accel", "tcg", "--memory", memory, "--cpus", cpus, "--runs", runs, "--timeout", _BOOT_S)
    traces = ("--keep-traces", keep) if keep else ()
    print(f"recording a boot with {memory} MiB and {cpus} processors", flush=True)
    station.run("record", "test:bench/profiled@1", "-o", output, *machine, *traces, timeout=_BOOT_S + 60)


def _merge(files: list[Path], output: Path) -> Path:
    from oscirc_blockstore import profile  # noqa: PLC0415  # staging alone needs it

    output.write_bytes(profile.merge([profile.parse(file.read_bytes()) for file in files]).serialise())
    return output


_CONFIGURATION = """
worker_processes 2; daemon off; master_process on; pid {work}/nginx.pid; error_log {work}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; keepalive_timeout 600s; etag on;
  access_log {work}/access.log; types {{ }} default_type application/octet-stream;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=512;
    location /repo/ {{ alias {tree}/; }}
    location /files/ {{ alias {files}/; autoindex on; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(stage: Stage, work: Path) -> Iterator[int]:
    """Serve the stage's static files with nginx: the repository at /repo, the whole disks at /files; gives its port."""
    work.mkdir(parents=True, exist_ok=True)
    files = work / "files"
    files.mkdir(exist_ok=True)
    for name, target in (("disk.raw", stage.disk), ("disk.raw.zst", stage.archive)):
        (files / name).unlink(missing_ok=True)
        (files / name).symlink_to(target)
    with static_files(stage.tree, files, work) as port:
        yield port


@contextlib.contextmanager
def static_files(tree: Path, files: Path, work: Path) -> Iterator[int]:
    """Serve a repository's tree at /repo and a folder at /files with nginx, working in `work`; gives its port."""
    port = free_port()
    work.mkdir(parents=True, exist_ok=True)
    configuration = work / "nginx.conf"
    configuration.write_text(
        ("user root;\n" if Path("/proc/self").owner() == "root" else "")
        + _CONFIGURATION.format(work=work, port=port, tree=tree, files=files)
    )
    process = subprocess.Popen(["nginx", "-c", str(configuration), "-p", str(work)], start_new_session=True)
    try:
        _until_it_answers(port, process)
        yield port
    finally:
        end(process)


def _until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket  # noqa: PLC0415  # here alone

    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx does not answer")
