"""Who serves what: one JSON file per mount below the runtime directory, written whole or not at all.

`<runtime>/mounts/<id>.json`, with `<id>.sock` (control socket), `<id>.log` (a background driver's last words) and
`<id>.lock` (held by the driver while the mount point is its own). `id` is the first 16 hexadecimal digits of the
SHA-256 of the mount point's real path. A record whose process is gone is a stale one; only its own process or a
clean-up after that process's death removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_fusedriver.processes import ProcessIdentity
from oscirc_fusedriver.readers import MountDescription
from oscirc_remote.deadlines import Deadline
from oscirc_remote.paths import runtime_directory

FILE_NAME = "disk.raw"
_MAXIMUM_RECORD_BYTES = 65536
_TRIES_APART_S = 0.02


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One mount. `mountpoint` is a real path; `device` is the kernel's `major:minor` of it; `created` in Unix time.

    `deadline_ms` is how long a read waits there: who mounts it again after its driver died asks for the same.
    """

    mountpoint: str
    device: str
    pid: int
    start_ticks: int
    remote: str
    reference: str
    manifest_digest: str
    image: str
    version: str
    disk_size: int
    created: int
    deadline_ms: int = 10_000

    @classmethod
    def of_this_process(
        cls, mountpoint: Path, device: str, described: MountDescription, size: int, deadline_s: float
    ) -> MountRecord:
        """What this process is about to serve."""
        me = ProcessIdentity.current()
        return cls(
            mountpoint=str(mountpoint),
            device=device,
            pid=me.pid,
            start_ticks=me.start_ticks,
            disk_size=size,
            created=int(time.time()),
            deadline_ms=round(deadline_s * 1000),
            **asdict(described),
        )

    @property
    def id(self) -> str:
        """The name of its files."""
        return mount_id(Path(self.mountpoint))

    @property
    def disk(self) -> Path:
        """The file that is served."""
        return Path(self.mountpoint) / FILE_NAME

    @property
    def process(self) -> ProcessIdentity:
        """The driver."""
        return ProcessIdentity(self.pid, self.start_ticks)

    @property
    def socket(self) -> Path:
        """Its control socket."""
        return mounts_directory() / f"{self.id}.sock"

    @property
    def log(self) -> Path:
        """Where a background driver writes."""
        return mounts_directory() / f"{self.id}.log"

    def write(self) -> None:
        """Put it in place of any older one."""
        path = _path(self.id)
        temporary = path.with_suffix(f".{self.pid}.tmp")
        try:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
            temporary.chmod(0o600)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise LocalError(f"cannot write {path}: {error.strerror}") from None

    def remove(self) -> None:
        """Take it and its socket away, unless another driver has the mount point by now."""
        if find_at(Path(self.mountpoint)) == self:
            self.socket.unlink(missing_ok=True)
            _path(self.id).unlink(missing_ok=True)


def mounts_directory() -> Path:
    """`<runtime>/mounts`, made with mode 0700."""
    directory = runtime_directory() / "mounts"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {directory}: {error.strerror}") from None
    return directory


def real_path(mountpoint: Path) -> Path:
    """Links resolved; also when what is mounted there is dead."""
    return Path(os.path.realpath(mountpoint))


def mount_id(place: Path) -> str:
    """16 hexadecimal digits that name the files of the mount at a real path.

    A driver must not resolve it again: that asks the file system that this very driver should answer for.
    """
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def _path(identifier: str) -> Path:
    return mounts_directory() / f"{identifier}.json"


def find(mountpoint: Path) -> MountRecord | None:
    """The record of a mount point, whether its process lives or not."""
    return find_at(real_path(mountpoint))


def find_at(place: Path) -> MountRecord | None:
    """The same for a path that is real already: asks no driver."""
    return _read(_path(mount_id(place)))


def list_records() -> list[MountRecord]:
    """All records, by mount point, the stale ones too; files that are not records are passed over."""
    found = (_read(path) for path in mounts_directory().glob("*.json"))
    return sorted((record for record in found if record), key=lambda record: record.mountpoint)


def _read(path: Path) -> MountRecord | None:
    try:
        with path.open(encoding="utf-8") as file:
            fields = json.loads(file.read(_MAXIMUM_RECORD_BYTES))
        record = MountRecord(**fields)
    except (OSError, ValueError, TypeError):
        return None
    right = all(type(value) is (int if name in _NUMBERS else str) for name, value in asdict(record).items())
    return record if right and record.id == path.stem else None


_NUMBERS = ("pid", "start_ticks", "disk_size", "created", "deadline_ms")


@contextlib.contextmanager
def claimed(place: Path, *, deadline: Deadline | None = None) -> Iterator[None]:
    """Hold a mount point (a real path) against other drivers of this user; raises `BusyError` when one has it.

    With a deadline, a driver without a record is waited for until then: one that ends has none from its unmount on,
    one that begins has none yet. The kernel lets go when the process ends, however it ends.
    """
    path = mounts_directory() / f"{mount_id(place)}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):
            record = find_at(place)
            if deadline is None or deadline.remaining_s() <= 0 or (record is not None and record.process.alive()):
                raise _taken(place)
            time.sleep(_TRIES_APART_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _taken(place: Path) -> BusyError:
    record = find_at(place)
    if record is not None and record.process.alive():
        return BusyError(f"{record.image} is already mounted at {place}", hint=f"to end that: oscirc umount {place}")
    return BusyError(f"another oscirc is just mounting at {place}", hint=f"see: oscirc status {place}")
