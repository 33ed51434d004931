"""Processes that outlive the command that started them, and how they are found again.

A process id alone names nothing: ids are reused. An identity is the id, the start time (field 22 of
`/proc/PID/stat`, in clock ticks since boot) and the boot's own id. Waiting and signalling go through a pidfd, which
is opened *before* the identity is checked, so that a signal can never reach another process (pidfd_open(2)).

A process is gone when all of its threads are: a killed QEMU whose main thread is a zombie already can still hang in a
read of its disk. The pidfd becomes readable only then; the state in `/proc/PID/stat` speaks of the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.errors import LocalError

_START_FIELD = 19  # counted after the command name, which may itself hold spaces and brackets

# The children of this process that were not waited for yet; without a reference Python would warn about them.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, for good: never another one that was given the same id later."""

    pid: int
    start_ticks: int
    boot_id: str

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        with self._open() as descriptor:
            return descriptor is not None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it is gone."""
        with self._open() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    async def wait(self, deadline_s: float | None = None) -> bool:
        """Wait until the process is gone, at most `deadline_s` seconds; whether it is. Reaps it if it is our child."""
        with self._open() as descriptor:
            if descriptor is not None:
                loop = asyncio.get_running_loop()
                gone = asyncio.Event()
                loop.add_reader(descriptor, gone.set)
                try:
                    async with asyncio.timeout(deadline_s):
                        await gone.wait()
                except TimeoutError:
                    return False
                finally:
                    loop.remove_reader(descriptor)
        if child := _children.pop(self.pid, None):
            child.wait()
        return True

    @contextlib.contextmanager
    def _open(self) -> Iterator[int | None]:
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            yield descriptor if identify(self.pid) == self and not poll.poll(0) else None
        finally:
            os.close(descriptor)


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the process with this id, a zombie's too, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return ProcessIdentity(pid, int(fields[_START_FIELD]), boot_id)


def spawn_detached(argv: Sequence[str], *, log: Path, inherited: Sequence[int]) -> ProcessIdentity:
    """Start a program in a session of its own, its output appended to `log`, and return at once.

    It inherits the descriptors `inherited` under their own numbers and no others, and holds no folder busy (its
    working directory is `/`).
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
            pass_fds=inherited,
        )
    _children[child.pid] = child
    identity = identify(child.pid)
    if identity is None:  # a child that nobody waited for has an entry, dead or not
        raise LocalError(f"process {child.pid}, just started, is not to be found in /proc")
    return identity
