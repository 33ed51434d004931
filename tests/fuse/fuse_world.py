"""What the tests of real mounts share: waiting for conditions, running drivers, ending them."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from oscirc_fusedriver import control_client, kernel, mountpoints, records
from oscirc_fusedriver.records import MountRecord

PROGRAM = Path(__file__).parent / "scripted_driver.py"
IMAGE_PROGRAM = PROGRAM.with_name("image_driver.py")
READY_S = 60


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

    def start(self, mountpoint: Path, *, program: Path = PROGRAM, **script) -> subprocess.Popen:
        self.places.append(Path(os.path.realpath(mountpoint)))
        process = subprocess.Popen(
            [sys.executable, str(program), str(mountpoint), json.dumps(script)],
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


def gone(record: MountRecord) -> bool:
    return not record.process.alive()
