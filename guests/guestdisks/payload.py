"""Makes the files that fill a small guest: deterministic, sized and compressible as a real system's files are.

Bytes come from SHAKE-256 of the seed, the file's number and its generation, so that they are the same for every
Python and every machine. Of three kinds in about equal parts, @@@

A file's size depends on its number alone. A new generation of it therefore takes the place of the old one on a disk
that is built in the same order, as an upgrade in place would.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_KINDS = ("text", "table", "media")
# One round of sizes in KiB: many small files, few large ones.
_SIZES_KIB = (3, 300, 24, 900, 9, 120, 2100, 48, 14, 480, 5, 1300)
_WORDS = 1024


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file: its path under the payload folder, its number, how many bytes it has."""

    path: str
    number: int
    kind: str
    size_bytes: int


def files(total_bytes: int) -> Iterator[PayloadFile]:
    """Yield files whose sizes add up to `total_bytes`; the first ones are the same whatever the total is."""
    number = 0
    while total_bytes > 0:
        size_bytes = _SIZES_KIB[number % len(_SIZES_KIB)] * 1024 - (number * 389) % 1024
        kind = _KINDS[(number + number // len(_SIZES_KIB)) % len(_KINDS)]
        size_bytes = min(size_bytes, total_bytes)
        yield PayloadFile(f"{kind}/{number:04}.{kind}", number, kind, size_bytes)
        total_bytes -= size_bytes
        number += 1


def content(file: PayloadFile, generation: int, seed: str = "oscirc") -> bytes:
    """Return the bytes of one generation of a file."""
    name = f"{seed}/{file.number}/{generation}"
    if file.kind == "text":
        return _text(name, file.size_bytes)
    if file.kind == "table":
        return _table(name, file.size_bytes)
    return _random(name, file.size_bytes)


def _random(name: str, size_bytes: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size_bytes)


def _vocabulary() -> list[bytes]:
    """Return words of two to nine letters, the same ones for every file, every sixteenth at the end of a line."""
    raw = _random("vocabulary", _WORDS * 10)
    letters = bytes(ord("a") + byte % 26 for byte in range(256))
    words = (raw[start : start + 10] for start in range(0, len(raw), 10))
    return [
        word[1 : 3 + word[0] % 8].translate(letters) + (b".\n" if number % 16 == 9 else b" ")
        for number, word in enumerate(words)
    ]


def _text(name: str, size_bytes: int) -> bytes:
    """Return lines of words, the first words of the vocabulary far more often than the rest, as in a language."""
    words = _vocabulary()
    count = size_bytes // 3 + 1  # no word is shorter, its space included
    # The square of an even draw is small more often than not.
    numbers = struct.unpack(f"<{count}H", _random(name, 2 * count))
    return b"".join([words[number * number >> 22] for number in numbers])[:size_bytes]


def _table(name: str, size_bytes: int) -> bytes:
    """Return records of sixteen bytes, a quarter of it noise, the rest counters and flags, as indexes have them."""
    count = size_bytes // 16 + 1
    noise = _random(name, 4 * count)
    records = (struct.pack("<IQ", row % 7, row) + noise[4 * row : 4 * row + 4] for row in range(count))
    return b"".join(records)[:size_bytes]
