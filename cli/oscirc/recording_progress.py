"""What a recorded boot has done so far, beside the wait for its prompt: on a terminal, and nowhere else.

The trace is read as it grows (its recorder writes it every second or so), the console's log at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from oscirc.output import Bar, progress
from oscirc_blockstore import trace
from oscirc_blockstore.errors import OscircError

EVERY_S = 0.5
_TAIL_BYTES = 2000
_LEAST_COLUMNS = 20
_BESIDE_COLUMNS = 50  # for what a bar says before the console's line
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


class Touched:
    """The blocks that a growing trace names, counted from where the last look ended."""

    def __init__(self, file: Path, block_size: int) -> None:
        self._file, self._block_size = file, block_size
        self._seen: set[int] = set()
        self._at = 0

    def bytes_so_far(self) -> int:
        """Whole blocks, each once. A trace that is not there yet, or damaged, counts for what could be read of it."""
        try:
            with self._file.open("rb") as opened:
                opened.seek(self._at)
                self._seen.update(trace.first_touch_order(self._reads(opened), self._block_size))
        except (OSError, OscircError, ValueError):
            pass  # told when it is over, by who needs it whole
        return len(self._seen) * self._block_size

    def _reads(self, opened: IO[bytes]) -> Iterator[trace.TracedRead]:
        for line in opened:
            if not line.endswith(b"\n"):
                return  # it is being written
            self._at += len(line)
            words = line.split()
            if len(words) == 3 and words[0].isdigit():  # noqa: PLR2004  # not its head nor its end
                yield trace.TracedRead(*map(int, words))


def last_line(raw: bytes, columns: int) -> str:
    """The last line of a console that says something, as plain text of at most so many characters."""
    text = _ESCAPES.sub("", raw.decode(errors="replace"))
    lines = ("".join(filter(str.isprintable, line)).strip() for line in reversed(re.split(r"[\r\n]+", text)))
    return next(filter(None, lines), "")[:columns].rstrip()


async def show(bar: Bar, touched: Touched, console_log: Path, *, every_s: float = EVERY_S) -> None:
    """Move the bar until cancelled: bytes of the disk that were touched, and what the console said last."""
    from oscirc_vmlaunch import console

    columns = max(_LEAST_COLUMNS, shutil.get_terminal_size().columns - _BESIDE_COLUMNS)
    shown = 0
    while True:
        count = touched.bytes_so_far()
        bar.update(count - shown)
        shown = count
        bar.set_postfix_str(last_line(console.tail(console_log, limit_bytes=_TAIL_BYTES), columns), refresh=True)
        await asyncio.sleep(every_s)


def bar_for(what: str) -> contextlib.AbstractContextManager[Bar]:
    """The bar of one run; draws nothing where standard error is no terminal. A driver is forked beside it."""
    return progress(what, None, threads=False)
