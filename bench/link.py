"""A link between a client and a server on this machine: one rate and one delay, as TCP connections over it would see.

    with Link(server_port, rate_bits=100e6, round_trip_s=0.02) as link:
        ...  http://127.0.0.1:<link.port>/
        link.bytes_down, link.requests

What is emulated, and how:

- **One shared rate** in each direction. Bytes pass a virtual clock: each chunk occupies the link for size / rate, so
  a late wake-up of this program loses no rate.
- **Fair queueing** among connections, in small chunks, as routers with fq_codel do: a small answer does not stand
  behind a bulk transfer. A connection has at most some 10 ms of the link's bytes waiting; then it is not read from.
- **A fixed one-way delay** after that. A connection's first bytes wait a round trip more, which its handshake takes.
- `cut` freezes everything, silently; `restore` goes on; `kill` closes what is open; `rate` changes the rate.

It runs as a process of its own, so that it shares no interpreter with what is measured. There is no loss, no slow start
and no TLS: the peers of a benchmark are all spared them alike.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self

QUEUE_S = 0.010
MIN_QUEUE_BYTES = 32 << 10
MAX_ROUND_TRIP_S = 10
_HEAD = re.compile(rb" HTTP/1\.[01]\r\n")
_BUNDLE = re.compile(rb"GET \S*/accel/[0-9a-f]{64} ")


def chunk_bytes(rate_bits: float) -> int:
    """How much of one connection passes at once: half a millisecond of the link, 4 to 64 KiB."""
    return int(min(max(rate_bits / 8 * 0.0005, 4 << 10), 64 << 10))


def check(rate_bits: float, round_trip_s: float) -> None:
    """Refuse a link that cannot be: no rate, a negative or endless delay; raises ValueError."""
    if not 0 < rate_bits < float("inf"):
        raise ValueError(f"a link needs a rate above zero, in bit/s: {rate_bits}")
    if not 0 <= round_trip_s <= MAX_ROUND_TRIP_S:
        raise ValueError(f"a round trip is 0 to {MAX_ROUND_TRIP_S} s (not milliseconds): {round_trip_s}")


def queue_bytes(rate_bits: float) -> int:
    """How much of one connection waits for the link."""
    return int(max(rate_bits / 8 * QUEUE_S, MIN_QUEUE_BYTES))


class Direction:
    """One way of the link: queues by connection, served in turn, then a delay line. Times in seconds."""

    def __init__(self, rate_bits: float, delay_s: float) -> None:
        self.rate = rate_bits / 8
        self.delay_s = delay_s
        self.free_at = 0.0
        self.passed_bytes = 0
        self._queues: dict[int, deque[tuple[float, bytes]]] = {}
        self._turns: deque[int] = deque()
        self.held: dict[int, int] = {}
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._serial = 0

    def put(self, key: int, raw: bytes, now: float) -> None:
        """Bytes of a connection that want to pass, not before `now`."""
        queue = self._queues.setdefault(key, deque())
        if not queue:
            self._turns.append(key)
        queue.append((now, raw))
        self.held[key] = self.held.get(key, 0) + len(raw)

    def serve(self, now: float) -> None:
        """Let pass what has its turn by now."""
        waiting = 0
        while self._turns and self.free_at <= now and waiting < len(self._turns):
            key = self._turns.popleft()
            queue = self._queues[key]
            ready, raw = queue[0]
            if ready > now:
                self._turns.append(key)
                waiting += 1
                continue
            waiting = 0
            queue.popleft()
            self.free_at = max(self.free_at, ready) + len(raw) / self.rate
            self._serial += 1
            heapq.heappush(self._flying, (self.free_at + self.delay_s, self._serial, key, raw))
            self.held[key] -= len(raw)
            self.passed_bytes += len(raw)
            if queue:
                self._turns.append(key)

    def arrived(self, now: float) -> list[tuple[int, bytes]]:
        """What has come to the other end by now, in order."""
        done = []
        while self._flying and self._flying[0][0] <= now:
            _, _, key, raw = heapq.heappop(self._flying)
            done.append((key, raw))
        return done

    def next_event(self) -> float:
        """When something happens next without new bytes; infinity when nothing will."""
        times = [self._flying[0][0]] if self._flying else []
        if self._turns:
            times.append(max(self.free_at, min(self._queues[key][0][0] for key in self._turns)))
        return min(times, default=float("inf"))

    def forget(self, key: int) -> None:
        """A connection is gone."""
        self._queues.pop(key, None)
        self.held.pop(key, None)
        self._turns = deque(each for each in self._turns if each != key)
        self._flying = [each for each in self._flying if each[2] != key]
        heapq.heapify(self._flying)

    def idle(self, key: int) -> bool:
        """Whether nothing of a connection is on the way."""
        return not self._queues.get(key) and not any(each[2] == key for each in self._flying)


@dataclass
class Pair:
    """One connection of a client and the one to the server that stands for it."""

    client: socket.socket
    server: socket.socket
    ready_at: float
    out: dict[socket.socket, deque[bytes]] = field(default_factory=dict)
    ended: set[socket.socket] = field(default_factory=set)
    closed_for_writing: set[socket.socket] = field(default_factory=set)


class Emulator:
    """The loop. `up` leads to the server, `down` to the client."""

    def __init__(self, target_port: int, rate_bits: float, round_trip_s: float) -> None:
        self.target_port = target_port
        self.round_trip_s = round_trip_s
        self.up = Direction(rate_bits, round_trip_s / 2)
        self.down = Direction(rate_bits, round_trip_s / 2)
        self._set_rate(rate_bits)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.listener.settimeout(0)
        self.pairs: dict[int, Pair] = {}
        self.serial = 0
        self.requests = 0
        self.connections = 0
        self.first_bundle_s: float | None = None
        self.cut = False

    def run(self) -> None:
        """Serve until standard input ends; answers each line of it with the counters."""
        print(json.dumps({"port": self.listener.getsockname()[1]}), flush=True)
        while True:
            now = time.monotonic()
            if not self.cut:
                self._move(now)
            readable, writable = self._wanted()
            timeout = None if self.cut else max(0.0, min(self.up.next_event(), self.down.next_event()) - now)
            if timeout == float("inf"):
                timeout = None
            can_read, can_write, _ = select.select([sys.stdin, *readable], writable, [], timeout)
            now = time.monotonic()
            for each in can_read:
                if each is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._command(line.strip())
                elif each is self.listener:
                    self._accept(now)
                else:
                    self._read(each, now)
            for each in can_write:
                self._flush(each)

    def _set_rate(self, rate_bits: float) -> None:
        """From the next chunk on."""
        self.up.rate = self.down.rate = rate_bits / 8
        self.chunk = chunk_bytes(rate_bits)
        self.queue = queue_bytes(rate_bits)

    def _wanted(self) -> tuple[list[socket.socket], list[socket.socket]]:
        if self.cut:
            return [], []
        readable: list[socket.socket] = [self.listener]
        writable = []
        self.owner: dict[int, tuple[int, Pair]] = {}
        for key, pair in self.pairs.items():
            for side, direction in ((pair.client, self.up), (pair.server, self.down)):
                self.owner[side.fileno()] = (key, pair)
                if side not in pair.ended and direction.held.get(key, 0) < self.queue:
                    readable.append(side)
                if pair.out.get(side):
                    writable.append(side)
        return readable, writable

    def _accept(self, now: float) -> None:
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            client.close()
            return
        for side in (client, server):
            side.settimeout(0)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.serial += 1
        self.connections += 1
        self.pairs[self.serial] = Pair(client, server, now + self.round_trip_s)

    def _read(self, side: socket.socket, now: float) -> None:
        found = self.owner.get(side.fileno())
        if found is None:  # closed a moment ago, with the other end of its pair
            return
        key, pair = found
        direction = self.up if side is pair.client else self.down
        try:
            raw = side.recv(self.chunk)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if not raw:
            pair.ended.add(side)
            self._close_if_done(key, pair)
            return
        if side is pair.client:
            self.requests += len(_HEAD.findall(raw))
            if self.first_bundle_s is None and _BUNDLE.search(raw):
                self.first_bundle_s = now
            direction.put(key, raw, max(now, pair.ready_at))
        else:
            direction.put(key, raw, now)

    def _move(self, now: float) -> None:
        for direction, to_client in ((self.up, False), (self.down, True)):
            direction.serve(now)
            for key, raw in direction.arrived(now):
                pair = self.pairs.get(key)
                if pair is not None:
                    side = pair.client if to_client else pair.server
                    pair.out.setdefault(side, deque()).append(raw)
                    self._flush_pair(key, pair, side)
        for key, pair in list(self.pairs.items()):
            if pair.ended:
                self._close_if_done(key, pair)

    def _flush(self, side: socket.socket) -> None:
        found = self.owner.get(side.fileno())
        if found is not None:
            self._flush_pair(*found, side)

    def _flush_pair(self, key: int, pair: Pair, side: socket.socket) -> None:
        queue = pair.out.get(side)
        while queue:
            try:
                sent = side.send(queue[0])
            except BlockingIOError:
                return
            except OSError:
                self._drop(key, pair)
                return
            if sent < len(queue[0]):
                queue[0] = queue[0][sent:]
                return
            queue.popleft()

    def _close_if_done(self, key: int, pair: Pair) -> None:
        for side, other, direction in (
            (pair.client, pair.server, self.up),
            (pair.server, pair.client, self.down),
        ):
            done = side in pair.ended and direction.idle(key) and not pair.out.get(other)
            if done and other not in pair.closed_for_writing:
                pair.closed_for_writing.add(other)
                with contextlib.suppress(OSError):
                    other.shutdown(socket.SHUT_WR)
        if len(pair.closed_for_writing) == 2 or (pair.client in pair.ended and not self._busy(key)):
            self._drop(key, pair)

    def _busy(self, key: int) -> bool:
        return not self.up.idle(key)

    def _drop(self, key: int, pair: Pair) -> None:
        self.pairs.pop(key, None)
        self.up.forget(key)
        self.down.forget(key)
        pair.client.close()
        pair.server.close()

    def _command(self, line: str) -> None:
        if line == "cut":
            self.cut = True
        elif line == "restore":
            self.cut = False
        elif line == "kill":
            for key, pair in list(self.pairs.items()):
                self._drop(key, pair)
        elif line.startswith("rate "):
            self._set_rate(float(line.removeprefix("rate ")))
        elif line == "reset":
            self.up.passed_bytes = self.down.passed_bytes = self.requests = self.connections = 0
            self.first_bundle_s = None
        print(
            json.dumps(
                {
                    "bytes_down": self.down.passed_bytes,
                    "bytes_up": self.up.passed_bytes,
                    "requests": self.requests,
                    "connections": self.connections,
                    "first_bundle_s": self.first_bundle_s,
                    "open": len(self.pairs),
                }
            ),
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Counters:
    """What passed since the start or the last `reset`. `first_bundle_s` is monotonic time."""

    bytes_down: int
    bytes_up: int
    requests: int
    connections: int
    first_bundle_s: float | None
    open: int


class Link:
    """A running link to `target_port` on this machine; `port` is what clients connect to."""

    def __init__(self, target_port: int, *, rate_bits: float, round_trip_s: float) -> None:
        check(rate_bits, round_trip_s)
        self._arguments = (str(target_port), str(rate_bits), str(round_trip_s))
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def tell(self, command: str = "counters") -> Counters:
        """`cut`, `restore`, `kill`, `reset`, `rate BITS`, or nothing but the counters."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return Counters(**json.loads(self._process.stdout.readline()))


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    Emulator(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])).run()
