"""Amounts as people write them: `20G`, `1.5M/s`, `10%`. Shared by the command's options and the user's preferences.

`K M G T` and `KiB MiB GiB TiB` count in 1024s, `kB MB GB TB` in 1000s, as disks are sold; case matters not. An amount
is finite and at least one byte. What does not read as one is refused with `UsageError`, which shows the allowed forms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oscirc_blockstore.errors import UsageError

MAX_BYTES = 1 << 60
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]?)(i?b|)", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_WHOLE_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """At most so many bytes, or at most such a share (in percent) of a disk; exactly one of them is given."""

    size_bytes: int | None = None
    percent: float | None = None

    def of(self, disk_bytes: int) -> int:
        """The limit in bytes on a disk of this size."""
        return self.size_bytes if self.size_bytes is not None else int(disk_bytes * (self.percent or 0.0) / 100)

    def __str__(self) -> str:
        return f"{self.size_bytes}" if self.size_bytes is not None else f"{self.percent:g}%"


def parse_size(text: str) -> int:
    """Bytes: `20G` is 20 x 1024^3, `20GB` is 20 x 1000^3, `512` is 512."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text[:40]!r} is not a size", hint="write a number and K, M, G or T, such as 20G or 1.5T")
    number, prefix, unit = found.groups()
    base = 1000 if prefix and unit.lower() == "b" else 1024
    size_bytes = int(float(number) * base ** _POWERS[prefix.lower()])
    if not 0 < size_bytes <= MAX_BYTES:
        raise UsageError(f"{text[:40]!r} is too small or too large for a size", hint="at least 1 byte, at most 1 EiB")
    return size_bytes


def parse_rate(text: str) -> int:
    """Bytes per second: a size, with or without `/s` behind it."""
    return parse_size(text.strip().removesuffix("/s"))


def parse_limit(text: str) -> SizeLimit:
    """A size, or a share of the disk: `20G` or `10%`."""
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        return SizeLimit(size_bytes=parse_size(text))
    percent = float(found[1])
    if not 0 < percent <= _WHOLE_PERCENT:
        raise UsageError(f"{text[:40]!r} is not a share of a disk", hint="more than 0 % and at most 100 %")
    return SizeLimit(percent=percent)
