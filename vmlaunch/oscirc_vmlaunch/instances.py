"""Instances: one folder for each virtual machine, and who may touch it when.

    ROOT/NAME/instance.json   what it is (records.InstanceRecord)      overlay.qcow2   its private disk
              run.json        its last start (records.RunRecord)       vars.fd         its UEFI variables
              data.qcow2      its data disk, where it has one          overlay-N.qcow2, vars-N.fd   the same of layer N
              lock            see below                                pid, qemu.log   of QEMU
              qmp.sock        monitor for commands                     console.sock    the serial console
              watch.sock      monitor for the supervisor               console.log     all that came out of it

Rules:

- A folder appears and disappears whole: it is filled, or emptied, under a name that starts with a dot.
- The lock is a flock(2) on `lock`. Starting and removing take it; QEMU inherits it, so it is held for as long as
  QEMU lives, whatever happens to its launcher. The file holds the holder's process id, for messages.
- Whether an instance runs is decided by its run's process identity, never by a process id alone.
- Files are replaced by rename, and readable by their owner only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from oscirc_blockstore.errors import BusyError, NotFoundError, OscircError, UsageError
from oscirc_remote.paths import data_directory
from oscirc_vmlaunch.records import (
    NAME_LIMIT,
    RECORD_LIMIT_BYTES,
    InstanceRecord,
    RunRecord,
    check_name,
    decode_instance,
    decode_run,
    encode,
)

_log = logging.getLogger(__name__)


class State(Enum):
    """What an instance is doing."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: its folder, and its record as it was read."""

    directory: Path
    record: InstanceRecord

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def overlay(self) -> Path:
        """Its private disk."""
        return self.overlay_of(self.record.layer)

    @property
    def variables(self) -> Path:
        """Its UEFI variables."""
        return self.variables_of(self.record.layer)

    @property
    def data_disk(self) -> Path:
        """Its second disk, which stays whatever version its system has."""
        return self.directory / "data.qcow2"

    def overlay_of(self, layer: int) -> Path:
        """The private disk of a layer."""
        return self.directory / (f"overlay-{layer}.qcow2" if layer else "overlay.qcow2")

    def variables_of(self, layer: int) -> Path:
        """The UEFI variables of a layer."""
        return self.directory / (f"vars-{layer}.fd" if layer else "vars.fd")

    @property
    def command_socket(self) -> Path:
        """The monitor for commands: one client at a time, so connect, speak, leave."""
        return self.directory / "qmp.sock"

    @property
    def watch_socket(self) -> Path:
        """The monitor that the supervisor may hold on to."""
        return self.directory / "watch.sock"

    @property
    def console_socket(self) -> Path:
        """The serial console, one client at a time."""
        return self.directory / "console.sock"

    @property
    def console_log(self) -> Path:
        """All that came out of the console since the last start."""
        return self.directory / "console.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU said."""
        return self.directory / "qemu.log"

    @property
    def pid_file(self) -> Path:
        """The process id that QEMU itself wrote."""
        return self.directory / "pid"

    def last_run(self) -> RunRecord | None:
        """The last start, or None when there was none."""
        path = self.directory / "run.json"
        try:
            return decode_run(_read(path), source=path)
        except FileNotFoundError:
            return None

    def state(self) -> State:
        """Created, running or stopped, from what the kernel says; whether it is paused only QEMU knows (launching)."""
        run = self.last_run()
        if run is None:
            return State.CREATED
        return State.RUNNING if run.process.alive() else State.STOPPED

    def write_run(self, run: RunRecord) -> None:
        """Note a start; for the holder of the lock."""
        _replace(self.directory / "run.json", encode(run))

    def moved_to(self, mount_point: Path) -> Instance:
        """The instance with another mount of the same image noted in its record; for the holder of the lock."""
        if str(mount_point) == self.record.mount_point:
            return self
        return self.become(dataclasses.replace(self.record, mount_point=str(mount_point)))

    def become(self, record: InstanceRecord) -> Instance:
        """The instance with another record, which is in force whole or not at all; for the holder of the lock."""
        _replace(self.directory / "instance.json", encode(record))
        return Instance(self.directory, record)

    def reloaded(self) -> Instance:
        """The instance as its record is now; for the holder of the lock."""
        path = self.directory / "instance.json"
        record = decode_instance(_read(path), source=path)
        return Instance(self.directory, dataclasses.replace(record, name=self.name))

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the instance for oneself: the lock's descriptor, which a child may inherit to hold it on.

        BusyError, naming the process, when it is held already.
        """
        with _lock(self.directory) as descriptor:
            yield descriptor


class Instances:
    """The instances of one user, below `root` (`$XDG_DATA_HOME/oscirc/instances`)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = data_directory() / "instances" if root is None else root

    def create(self, record: InstanceRecord) -> Instance:
        """Make a new instance; UsageError when the name is taken."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self.root / check_name(record.name)
        temporary = Path(tempfile.mkdtemp(dir=self.root, prefix=".new-"))
        try:
            _replace(temporary / "instance.json", encode(record))
            temporary.rename(directory)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # it may be gone again by now
                raise UsageError(
                    f"there is an instance called {record.name} already",
                    hint=f"boot it again by its name, remove it (oscirc rm {record.name}), or give --name",
                ) from error
            raise
        return Instance(directory, record)

    def load(self, name: str) -> Instance:
        """The instance of this name; NotFoundError when there is none."""
        directory = self.root / check_name(name)
        path = directory / "instance.json"
        try:
            record = decode_instance(_read(path), source=path)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no instance called {name}", hint="oscirc ps lists them") from error
        return Instance(directory, dataclasses.replace(record, name=name))

    def unused_name(self, wish: str) -> str:
        """A name for a new instance: the wish itself, or with the lowest number that makes it a new one."""
        taken = set(self.names())
        candidates = itertools.chain([wish], (f"{wish[: NAME_LIMIT - 6]}-{number}" for number in itertools.count(2)))
        return check_name(next(name for name in candidates if name not in taken))

    def names(self) -> list[str]:
        """The names of all instances, in order, readable or not."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))

    def load_all(self) -> list[Instance]:
        """All instances, in order; what ephemeral ones left when they ended by themselves is removed first.

        One that cannot be read is logged and left out, so that it does not hide the others.
        """
        found = []
        for name in self.names():
            try:
                instance = self.load(name)
                if instance.record.ephemeral and instance.state() is State.STOPPED:
                    self.remove(name)
                else:
                    found.append(instance)
            except OscircError as error:
                _log.warning("%s", error)
        return found

    def remove(self, name: str) -> None:
        """Remove an instance with all it holds, also one whose record is damaged; BusyError while it runs."""
        directory = self.root / check_name(name)
        if not directory.is_dir():
            raise NotFoundError(f"there is no instance called {name}", hint="oscirc ps lists them")
        with _lock(directory):
            self._bury(directory)
        for left in self.root.glob(".removed-*"):  # also what an interrupted removal left
            shutil.rmtree(left, ignore_errors=True)

    def _bury(self, directory: Path) -> None:
        while True:
            graveyard = Path(tempfile.mkdtemp(dir=self.root, prefix=".removed-"))
            try:
                directory.rename(graveyard / directory.name)
            except FileNotFoundError:
                if not directory.exists():
                    raise NotFoundError(f"the instance {directory.name} was removed just now") from None
                continue  # the graveyard was swept by who removed another one
            return


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[int]:
    path = directory / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no instance called {directory.name}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(directory, path) from error
        if _moved(descriptor, path):
            raise NotFoundError(f"the instance {directory.name} was removed just now")
        name_holder(descriptor, os.getpid())
        yield descriptor
    finally:
        os.close(descriptor)


def name_holder(descriptor: int, pid: int) -> None:
    """Write into a held lock who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(pid).encode(), 0)


def _moved(descriptor: int, path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return True


def _busy(directory: Path, lock: Path) -> BusyError | NotFoundError:
    try:
        holder = lock.read_text(errors="replace")[:20].strip() or "unknown"
    except FileNotFoundError:  # the holder was removing it
        return NotFoundError(f"the instance {directory.name} was removed just now")
    return BusyError(
        f"the instance {directory.name} is in use by process {holder}",
        hint=f"oscirc console {directory.name} attaches to it, oscirc stop {directory.name} ends it",
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(RECORD_LIMIT_BYTES + 1)


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
