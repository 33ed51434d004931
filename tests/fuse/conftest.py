"""Real mounts of scripted readers. Whatever a test does, its drivers are ended and its mounts taken away."""

import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from oscirc_blockstore.errors import OscircError
from oscirc_fusedriver import control_client, kernel, mountpoints, records
from oscirc_fusedriver.processes import ProcessIdentity
from oscirc_fusedriver.records import MountRecord

PROGRAM = Path(__file__).parent / "scripted_driver.py"
READY_S = 60
KIB = 1024
MIB = 1024 * KIB


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.fuse)


@pytest.fixture(scope="session", autouse=True)
def _can_mount():
    try:
        kernel.check_fuse()
    except OscircError as error:
        pytest.skip(f"{error}: {error.hint}")


def until(condition, what: str, timeout_s: float = 30):
    """Wait for something to become true; it is looked at often, and the first true value is returned."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {what}")


@dataclass
class Mounted:
    """A running driver; `process` is what was started (in the background mode the command, not the driver)."""

    process: subprocess.Popen
    record: MountRecord

    @property
    def disk(self) -> Path:
        return self.record.disk

    @property
    def mountpoint(self) -> Path:
        return Path(self.record.mountpoint)

    def status(self) -> control_client.MountStatus:
        return control_client.status(self.record, timeout_s=20)

    def calls(self) -> int:
        return self.status().driver.reads

    def ends(self) -> int:
        """The exit code, when it ends by itself in good time."""
        return self.process.wait(30)

    def is_mounted(self) -> bool:
        entry = mountpoints.entry_at(self.mountpoint)
        return entry is not None and entry.kind == mountpoints.KIND


class Drivers:
    def __init__(self) -> None:
        self.started: list[subprocess.Popen] = []
        self.places: list[Path] = []

    def start(self, mountpoint: Path, **script) -> subprocess.Popen:
        self.places.append(Path(os.path.realpath(mountpoint)))
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(mountpoint), json.dumps(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def said(self, process: subprocess.Popen) -> dict:
        """The one line that a driver prints: ready, or a failure."""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(READY_S), "the driver says nothing"
        line = process.stdout.readline()
        assert line, process.stderr.read()
        return json.loads(line)

    def end_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for place in self.places:
            record = records.find_at(place)
            if record is not None:
                record.process.end(5)
            while (entry := mountpoints.entry_at(place)) is not None and entry.kind == mountpoints.KIND:
                assert not kernel.unmount_now(place, lazy=True)
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait(10)
            process.stdout.close()
            process.stderr.close()


@pytest.fixture
def drivers():
    running = Drivers()
    yield running
    running.end_all()


@pytest.fixture
def mountpoint(tmp_path):
    place = tmp_path / "mnt"
    place.mkdir()
    return place


@pytest.fixture(scope="session")
def disk_file(tmp_path_factory):
    """A sparse disk of an odd number of sectors: data, a hole, data to the last byte."""
    path = tmp_path_factory.mktemp("disk") / "source.raw"
    content = random.Random(7)
    with path.open("wb") as file:
        file.write(content.randbytes(3 * MIB + 100))
        file.seek(9 * MIB)
        file.write(content.randbytes(2 * MIB + 3 * 512))
    return path


@pytest.fixture
def mounted(drivers, mountpoint, disk_file):
    """Mounts the disk with this script; asserts that it becomes ready."""

    def mount_it(where: Path = mountpoint, **script) -> Mounted:
        if "size" not in script:
            script.setdefault("disk", str(disk_file))
        process = drivers.start(where, **script)
        said = drivers.said(process)
        assert "ready" in said, said
        return Mounted(process, MountRecord(**said["ready"]))

    return mount_it


@pytest.fixture
def refused(drivers, mountpoint, disk_file):
    """Mounts the disk with this script; asserts that it is refused and returns the failure. Nothing is left mounted."""

    def refuse(where: Path = mountpoint, **script) -> dict:
        process = drivers.start(where, **{"disk": str(disk_file), **script})
        said = drivers.said(process)
        assert "failure" in said, said
        assert process.wait(30) == said["failure"]["exit_code"]
        entry = mountpoints.entry_at(Path(os.path.realpath(where)))
        assert entry is None or entry.kind != mountpoints.KIND
        return said["failure"]

    return refuse


def gone(record: MountRecord) -> bool:
    return not ProcessIdentity(record.pid, record.start_ticks).alive()
