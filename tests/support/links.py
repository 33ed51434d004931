"""A mirror at the far end of a slow link: a `FaultServer` behind the link emulator of `bench/`.

A link that is *cut* is silent, as a pulled cable is: connections stay open and nothing comes. One that is *killed* ends
its connections at once, as a server's host does that restarts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.fault_server import FaultServer, Files

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

from link import Link

MEGABIT = 1_000_000


@dataclass
class FarMirror:
    """The server (`requests`, `inject` …), and the link to it (`tell`)."""

    server: FaultServer
    link: Link

    @property
    def url(self) -> str:
        """What a client asks."""
        return f"http://127.0.0.1:{self.link.port}/repo"


@contextlib.contextmanager
def far_mirror(files: Files, *, megabits: float = 100.0, round_trip_s: float = 0.02) -> Iterator[FarMirror]:
    """A mirror of these files, that far away."""
    with FaultServer(files) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with Link(port, rate_bits=megabits * MEGABIT, round_trip_s=round_trip_s) as link:
            yield FarMirror(server, link)
