"""Read traces: what a guest asked of its disk, in order. Text, one read a line, so that any tool can look at it.

The first line is `oscirc-trace-1 <disk bytes> <manifest digest>`; the others are `<offset> <length> <milliseconds>`,
bytes of the disk and time since the start. A recording that came to its end has the line `end`. A last line that was
cut off (the recorder died) is passed over; `ends` tells whether a trace is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, LocalError
from oscirc_blockstore.profile import MAX_POSITIONS
from oscirc_blockstore.table import MAX_DISK_SIZE

FORMAT = "oscirc-trace-1"
END_LINE = "end\n"
MAX_READS = 5_000_000
MAX_LINE_CHARS = 200
MAX_READ_BYTES = 64 << 20  # a kernel asks for a MiB or so at once; a line that says more would touch a whole disk


@dataclass(frozen=True, slots=True)
class TraceHead:
    """Which disk was read: its size in bytes and its manifest."""

    disk_size: int
    manifest: Digest

    def __str__(self) -> str:
        return f"{FORMAT} {self.disk_size} {self.manifest.hex()}\n"


@dataclass(frozen=True, slots=True)
class TracedRead:
    """One read: where, how many bytes, and when (milliseconds since the start of the recording)."""

    offset: int
    length: int
    at_ms: int

    def __str__(self) -> str:
        return f"{self.offset} {self.length} {self.at_ms}\n"


def parse_head(line: str) -> TraceHead:
    """The first line, or `DocumentRefusedError`."""
    words = line.split()
    if len(words) != 3 or words[0] != FORMAT or not _is_number(words[1]) or int(words[1]) > MAX_DISK_SIZE:  # noqa: PLR2004
        raise DocumentRefusedError(f"not a read trace: it begins with {line[:60]!r}")
    return TraceHead(int(words[1]), parse_hex(words[2]))


def bounded_lines(file: TextIO) -> Iterator[str]:
    """The lines of a file of someone else's; `DocumentRefusedError` at one that is longer than a trace's can be."""
    while line := file.readline(MAX_LINE_CHARS + 1):
        if len(line) > MAX_LINE_CHARS:
            raise DocumentRefusedError(f"a trace has no lines of more than {MAX_LINE_CHARS} characters")
        yield line


def parse(lines: Iterable[str]) -> tuple[TraceHead, Iterator[TracedRead]]:
    """The head, and the reads as they are asked for; raises `DocumentRefusedError` at the line that is wrong."""
    remaining = iter(lines)
    head = parse_head(next(remaining, ""))
    return head, _reads(head, remaining)


def _reads(head: TraceHead, lines: Iterator[str]) -> Iterator[TracedRead]:
    for number, line in enumerate(lines):
        if not line.endswith("\n") or line == END_LINE:
            return
        words = line[:MAX_LINE_CHARS].split()
        if len(words) != 3 or not all(map(_is_number, words)) or number >= MAX_READS:  # noqa: PLR2004
            raise DocumentRefusedError(f"line {number + 2} of the trace is not a read: {line[:60]!r}")
        read = TracedRead(*map(int, words))
        if read.offset + read.length > head.disk_size or read.length > MAX_READ_BYTES:
            raise DocumentRefusedError(f"line {number + 2} of the trace reads beyond the disk's end, or too much")
        yield read


def ends(file: Path) -> bool:
    """Whether the recording in this file came to its end: not where its recorder died, or could not write any more."""
    raw_end = END_LINE.encode()
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - len(raw_end) - 1))
            return opened.read() == b"\n" + raw_end
    except OSError as error:
        raise LocalError(f"cannot read the trace {file}: {error.strerror}") from None


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 20  # noqa: PLR2004


def first_touch_order(reads: Iterable[TracedRead], block_size: int) -> list[int]:
    """The blocks that were touched, each once, in the order of the first touch.

    Raises `DocumentRefusedError` when they are more than a profile may hold.
    """
    touched: dict[int, None] = {}
    for read in reads:
        if read.length:
            for position in range(read.offset // block_size, (read.offset + read.length - 1) // block_size + 1):
                touched.setdefault(position, None)
        if len(touched) > MAX_POSITIONS:
            raise DocumentRefusedError(f"the trace touches more than {MAX_POSITIONS} blocks")
    return list(touched)
