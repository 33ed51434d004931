"""A job's own process, `python -m oscirc_server.job_process`: an order on standard input, an outcome on its output.

Limits come first and are the kernel's: address space, length of a file, niceness, no core dumps. Signals that mean the
server are left to it; when the server (or whoever gave the order) is gone, standard input ends and so does this.

Exit code 0: the outcome says what was made or why not. Anything else counts as a crash.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import BusyError, OscircError, StoreFullError, TransportError
from oscirc_server import job_making, logs
from oscirc_server.installation import Installation
from oscirc_server.services.jobs import Wanted
from oscirc_server.settings import Settings

MAX_ORDER_BYTES = 64 << 10
MAX_OUTCOME_BYTES = 64 << 10
MADE = "made"
_ORPHANED = 3
_MAY_PASS = (TransportError, StoreFullError, BusyError, SQLAlchemyError)


@dataclass(frozen=True, slots=True)
class Order:
    """What to make, from where, and within which limits; `scratch` is an empty directory for this job alone."""

    wanted: Wanted
    data_dir: str
    database_url: str | None
    blocks_url: str | None
    scratch: str
    threads: int
    memory_bytes: int
    file_bytes: int
    niceness: int

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Order:
        """As it was sent."""
        fields = json.loads(raw)
        return cls(**{**fields, "wanted": Wanted(**fields["wanted"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made (`kind`, `name`; the file is `MADE` in the scratch directory), or `error` and if it may pass."""

    kind: str = ""
    name: str = ""
    facts: dict[str, object] | None = None
    error: str = ""
    may_pass: bool = False

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Outcome:
        """As it was sent."""
        return cls(**json.loads(raw))


def _limit(order: Order) -> None:
    """Take the limits upon this process; a lower one that it has already stays."""
    for which, most in (
        (resource.RLIMIT_AS, order.memory_bytes),
        (resource.RLIMIT_FSIZE, order.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(which)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (least, least))
    with contextlib.suppress(OSError):
        os.nice(order.niceness)


def _end_with_the_server() -> None:
    """The server never says more than the order: whatever comes next is the end of its side."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _outcome(order: Order) -> Outcome:
    settings = Settings(data_dir=Path(order.data_dir), database_url=order.database_url, blocks_url=order.blocks_url)
    try:
        with Installation(settings) as installation:
            made = job_making.make(installation, order.wanted, Path(order.scratch) / MADE, threads=order.threads)
    except (OscircError, SQLAlchemyError) as error:
        text, hint = str(error), getattr(error, "hint", "")
        return Outcome(error=f"{text} ({hint})" if hint else text, may_pass=isinstance(error, _MAY_PASS))
    except MemoryError:
        return Outcome(error=f"it needs more than the {order.memory_bytes >> 20} MiB of memory that a job may have")
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Outcome(error=f"it needs a longer file than the {order.file_bytes >> 20} MiB that a job's may have")
        return Outcome(error=f"its scratch directory does not take it: {error.strerror}", may_pass=True)
    return Outcome(made.kind, made.name, made.facts)


def main() -> int:
    """Do one job."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as orders:  # the watcher reads on
        order = Order.parse(orders.readline(MAX_ORDER_BYTES))
    _limit(order)
    _end_with_the_server()
    logs.configure("warning")
    sys.stdout.buffer.write(_outcome(order).line())
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
