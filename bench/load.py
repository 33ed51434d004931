"""Load for a server on loopback: `wrk` for how much it can send, and many simulated workstations for who gets what.

A workstation asks what a real client asked (`Asked`, from the log of the server that it booted from): the bundle on a
connection of its own, the rest in order on another. Statuses and lengths must be those of the recording (of the few
documents that change any length will do), and the bundle must hash to its name. No think time, no decompression: what
is measured is the server and the link.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from support.nginx import Asked

PIECE = 256 << 10
_BUNDLE = re.compile(r"/accel/([0-9a-f]{64})")
_SCRIPT = """
local paths, at = {{}}, 0
for line in io.lines("{paths}") do paths[#paths + 1] = line end
function init() math.randomseed(os.time() + math.floor(os.clock() * 1e6)); at = math.random(#paths) end
function request() at = at % #paths + 1; return wrk.format("GET", paths[at]) end
function done(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.bytes, summary.duration,
    summary.errors.status + summary.errors.read + summary.errors.connect + summary.errors.timeout,
    latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one run of wrk got: answers and bytes a second, and the 99th percentile of an answer's time."""

    answers_per_s: float
    bytes_per_s: float
    worst_s: float


def wrk(base_url: str, paths: Sequence[str], *, seconds: int, connections: int) -> Throughput:
    """Ask for these paths, one after the other on each connection; every answer must be a success."""
    with tempfile.TemporaryDirectory() as work:
        below = urlsplit(base_url).path
        (Path(work) / "paths").write_text("".join(f"{below}{path}\n" for path in paths))
        (Path(work) / "load.lua").write_text(_SCRIPT.format(paths=Path(work) / "paths"))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(Path(work) / "load.lua"), base_url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answers, size, microseconds, errors, worst = map(int, re.search(r"RESULT (.*)", output)[1].split())
    assert not errors, output
    return Throughput(answers / microseconds * 1e6, size / microseconds * 1e6, worst / 1e6)


@dataclass(frozen=True, slots=True)
class Boot:
    """What one boot asks for: the bundle, and the rest in order."""

    bundle: Asked
    others: tuple[Asked, ...]

    @property
    def bytes(self) -> int:
        """Of all answers' bodies."""
        return self.bundle.sent_bytes + sum(asked.sent_bytes for asked in self.others)

    @property
    def requests(self) -> int:
        """How many."""
        return 1 + len(self.others)


def boot_of(asked: Sequence[Asked]) -> Boot:
    """A boot out of a server's log: the bundle is the longest file of `accel/`."""
    bundle = max((each for each in asked if _BUNDLE.fullmatch(each.path)), key=lambda each: each.sent_bytes)
    return Boot(bundle, tuple(each for each in asked if each is not bundle))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> str:
    """One request on an open connection; gives the body's SHA-256."""
    byte_range = f"Range: {asked.byte_range}\r\n" if asked.byte_range else ""
    writer.write(f"GET {asked.path} HTTP/1.1\r\nHost: bench\r\n{byte_range}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    assert status == asked.status, f"{asked.path}: {status}, recorded was {asked.status}"
    left = int(re.search(r"(?im)^content-length: *(\d+)", head)[1])
    changes = re.fullmatch(r"/metadata/timestamp\.json|/accel/.*\.json", asked.path)
    assert changes or left == asked.sent_bytes, f"{asked.path}: {left} bytes, recorded were {asked.sent_bytes}"
    hashed = hashlib.sha256()
    while left:
        piece = await reader.read(min(PIECE, left))
        assert piece, f"{asked.path}: broke off, {left} bytes before its end"
        hashed.update(piece)
        left -= len(piece)
    return hashed.hexdigest()


async def _connection(port: int, requests: Sequence[Asked]) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
    try:
        return [await _ask(reader, writer, asked) for asked in requests]
    finally:
        writer.close()


async def _workstation(port: int, boot: Boot, start: asyncio.Event) -> float:
    await start.wait()
    started = time.monotonic()
    (digest,), _ = await asyncio.gather(_connection(port, [boot.bundle]), _connection(port, boot.others))
    whole = not boot.bundle.byte_range
    assert not whole or digest == _BUNDLE.fullmatch(boot.bundle.path)[1], "the bundle is not what its name says"
    return time.monotonic() - started


def boot_together(port: int, boot: Boot, workstations: int) -> list[float]:
    """So many workstations start at the same moment; the seconds that each took, sorted."""

    async def together() -> list[float]:
        start = asyncio.Event()
        tasks = [asyncio.create_task(_workstation(port, boot, start)) for _ in range(workstations)]
        start.set()
        return sorted(await asyncio.gather(*tasks))

    return asyncio.run(together())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of sorted values that `share` of them do not exceed."""
    return values[min(len(values) - 1, max(0, -(-int(share * len(values) * 1000) // 1000) - 1))]
