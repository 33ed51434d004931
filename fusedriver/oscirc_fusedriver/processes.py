"""A process is its id and the moment it started: an id alone may belong to somebody else by now."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATE, _START = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted after the parenthesised name (proc(5))
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """`start_ticks`: clock ticks after boot at which the process started."""

    pid: int
    start_ticks: int

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Of this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Of whoever has this id now; one that never lives when nobody has."""
        fields = _stat_fields(pid)
        return cls(pid, int(fields[_START]) if fields else -1)

    def alive(self) -> bool:
        """Whether that very process still runs; a zombie does not."""
        fields = _stat_fields(self.pid)
        return bool(fields) and int(fields[_START]) == self.start_ticks and fields[_STATE] not in _DEAD

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; False when the time is over first."""
        with self._held() as descriptor:
            return descriptor is None or _ends(descriptor, timeout_s)

    def end(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL when it takes longer than that."""
        with self._held() as descriptor:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if descriptor is None or _ends(descriptor, 0):
                    return
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
                _ends(descriptor, timeout_s)

    @contextlib.contextmanager
    def _held(self) -> Iterator[int | None]:
        """A descriptor that means this very process, or None when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            yield None
            return
        try:
            yield descriptor if self.alive() else None  # else the id had been given to another
        finally:
            os.close(descriptor)


def _ends(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _stat_fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def users_of(directory: Path) -> list[str]:
    """Processes with a file, mapping or current directory below `directory`, as `name (pid)`; those we may look at."""
    inside = str(directory) + "/"
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _holds(process, inside):
            with contextlib.suppress(OSError):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def _holds(process: Path, inside: str) -> bool:
    links = [process / "cwd"]
    with contextlib.suppress(OSError):
        links += (process / "fd").iterdir()
    for link in links:
        with contextlib.suppress(OSError):
            if f"{link.readlink()}/".startswith(inside):
                return True
    with contextlib.suppress(OSError):
        return f" {inside}" in (process / "maps").read_text(errors="replace")
    return False
