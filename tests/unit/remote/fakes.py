"""Stand-ins behind the seams of the read path: a clock that only moves when somebody waits, and scripted sources."""

import threading
from collections.abc import Callable

from oscirc_blockstore import frame
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import NotServedError, UnreachableError
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_remote.deadlines import Deadline
from oscirc_remote.sources import Served
from oscirc_remote.status import MirrorStatus

BLOCK_SIZE = 64 * 1024


class FakeClock:
    """Time passes only in `wait`, and there at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if not event.is_set():
            self.waits.append(timeout_s)
            self.now += timeout_s
        return event.is_set()

    def deadline(self, seconds: float = 10.0) -> Deadline:
        return Deadline.after(seconds, clock=self)


class SteppedClock(FakeClock):
    """Time passes only when the test says so; who waits is woken by the event or by that."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._due: dict[object, float] = {}

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        sleeper = object()
        with self._changed:
            self._due[sleeper] = self.now + timeout_s
            self._changed.notify_all()
        try:
            while not event.wait(0.001) and self.now < self._due[sleeper]:
                pass
        finally:
            with self._changed:
                del self._due[sleeper]
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass, once somebody waits for later than now."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(due > self.now for due in self._due.values()), 20)
            self.now += seconds


class FakeFrames:
    """A `FrameSource` over a mapping of raw blocks; `script` is consulted first: an error to raise, or a frame."""

    def __init__(self, name: str, blocks: dict[Digest, bytes], clock: FakeClock | None = None) -> None:
        self.name = name
        self.blocks = blocks
        self.clock = clock
        self.script: Callable[[bool], bytes | Exception | None] = lambda past_caches: None
        self.asked: list[Digest] = []
        self.shares: list[float] = []
        self.past_caches = 0
        self.costs_s = 0.0
        self.closed = False

    @property
    def requests(self) -> int:
        return len(self.asked)

    @property
    def received_bytes(self) -> int:
        return 0

    def fetch_frame(
        self, digest: Digest, limit_bytes: int, deadline: Deadline, *, stall_s: float, past_caches: bool = False
    ) -> Served:
        self.asked.append(digest)
        self.shares.append(deadline.remaining_s())
        self.past_caches += past_caches
        if self.clock is not None:
            self.clock.now += min(self.costs_s, deadline.remaining_s())
        answer = self.script(past_caches)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return Served(answer, self.costs_s)
        if digest not in self.blocks:
            raise NotServedError(f"{self.name} does not have it")
        return Served(frame.encode(self.blocks[digest]), self.costs_s)

    def close(self) -> None:
        self.closed = True


class GatedFrames(FakeFrames):
    """A `FrameSource` that answers when its gate is opened, or fails when it is called off."""

    def __init__(self, name: str, blocks: dict[Digest, bytes], clock: FakeClock | None = None) -> None:
        super().__init__(name, blocks, clock)
        self.gate = threading.Event()
        self.was_asked = threading.Semaphore(0)
        self.called_off = threading.Event()

    def fetch_frame(
        self, digest: Digest, limit_bytes: int, deadline: Deadline, *, stall_s: float, past_caches: bool = False
    ) -> Served:
        self.was_asked.release()
        with deadline.cancellation.waking(self.gate):
            assert self.gate.wait(20)
        if deadline.cancellation.reason:
            self.gate.clear()
            self.called_off.set()
            raise UnreachableError(deadline.cancellation.reason)
        return super().fetch_frame(digest, limit_bytes, deadline, stall_s=stall_s, past_caches=past_caches)


class FakeBlocks:
    """A `BlockSource` over a mapping of raw blocks. `gate`, when given, holds every fetch until it is set."""

    def __init__(self, blocks: dict[Digest, bytes]) -> None:
        self.blocks = blocks
        self.fetched: list[Digest] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.errors: list[Exception] = []
        self.gate: threading.Event | None = None
        self.arrived = threading.Semaphore(0)
        self.deadlines: list[Deadline] = []
        self.closed = False

    def fetch(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        self.fetched.append(digest)
        self.threads.add(threading.get_ident())
        self.deadlines.append(deadline)
        self.arrived.release()
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        if self.error is not None:
            raise self.error
        if digest not in self.blocks:
            raise NotServedError("nobody has it")
        raw = self.blocks[digest]
        assert len(raw) == raw_size
        return raw

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        return ()

    def close(self) -> None:
        self.closed = True


def block(number: int, size: int = BLOCK_SIZE) -> bytes:
    """A block that no other number gives."""
    return number.to_bytes(8, "big") * (size // 8)


def blocks(*numbers: int) -> dict[Digest, bytes]:
    return {digest_of(block(number)): block(number) for number in numbers}


def make_image(positions: dict[int, bytes], disk_size: int, block_size: int = BLOCK_SIZE):
    """(manifest, blocks and nodes by digest) of a disk given as blocks by position."""
    stored: dict[Digest, bytes] = {}
    geometry = Geometry(disk_size, block_size)
    builder = TableBuilder(geometry, stored.__setitem__)
    for position, raw in sorted(positions.items()):
        padded = raw.ljust(block_size, b"\0")
        digest = digest_of(padded)
        stored[digest] = padded
        builder.add(position, digest)
    return Manifest("alice", "debian", geometry, builder.finish(), len(positions), SystemFacts()), stored
