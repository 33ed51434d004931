"""What is kept in all, and what keeping each block once saves: three sums, and how they grew.

- *Logical* is the data of all versions that are not deleted, *unique* what is left of it when each block counts once,
  *stored* the compressed frames. Blocks that wait for their deletion are on the disk and count as stored.
- The rows of blocks are many: they are summed at most once in `COUNT_EVERY_S`, whoever asks and however often.
- Growth is what the database still knows: of blocks and versions that are here today, when they came.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_server.installation import Installation
from oscirc_server.models import VERSION_DELETED, BlockRow, ImageRow, ImageUsage, ManifestRow, VersionRow
from oscirc_server.services.catalog import image_count

COUNT_EVERY_S = 60.0
MAX_MONTHS = 24
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Month:
    """A month (`2026-11`), and what of today's was here at its end, in bytes."""

    name: str
    logical_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums in bytes; `months` are the last `MAX_MONTHS` in which something came."""

    images: int
    blocks: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    months: tuple[Month, ...]

    @property
    def ratio(self) -> float | None:
        """How many times less keeping each block once takes, before compression; None where nothing is kept."""
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else None


def count(session: Session) -> Figures:
    """Ask the database."""
    blocks, unique, stored = session.execute(
        select(func.count(), func.sum(BlockRow.raw_size), func.sum(BlockRow.stored_length))
    ).one()
    listed = (ImageRow.publisher == ImageUsage.publisher) & (ImageRow.image == ImageUsage.image) & ImageRow.listed
    logical = session.scalar(select(func.sum(ImageUsage.logical_bytes)).join(ImageRow, listed))
    return Figures(
        image_count(session), blocks, int(logical or 0), int(unique or 0), int(stored or 0), tuple(_months(session))
    )


def _months(session: Session) -> list[Month]:
    came: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    day = BlockRow.created_s - BlockRow.created_s % _DAY_S
    for at_s, size in session.execute(select(day, func.sum(BlockRow.stored_length)).group_by(day)):
        stored[_month(at_s)] += int(size or 0)
    released = ManifestRow.created_s - ManifestRow.created_s % _DAY_S
    kept = (VersionRow.state != VERSION_DELETED) & (VersionRow.manifest == ManifestRow.digest)
    versions = select(released, func.sum(VersionRow.data_bytes)).join(VersionRow, kept).group_by(released)
    for at_s, data in session.execute(versions):
        came[_month(at_s)] += int(data or 0)
    months, logical, bytes_stored = [], 0, 0
    for name in sorted({*came, *stored}):
        logical += came[name]
        bytes_stored += stored[name]
        months.append(Month(name, logical, bytes_stored))
    return months[-MAX_MONTHS:]


def _month(at_s: int) -> str:
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m")


class CountedFigures:
    """The figures, counted anew when they are old; safe for threads. One for an application."""

    def __init__(self, installation: Installation, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._installation = installation
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._counted: tuple[float, Figures] | None = None

    def current(self) -> Figures:
        """At most `COUNT_EVERY_S` old; whoever asks while they are counted waits."""
        with self._lock:
            now_s = self._monotonic_s()
            if self._counted is None or now_s - self._counted[0] >= COUNT_EVERY_S:
                with self._installation.database.read() as session:
                    self._counted = (now_s, count(session))
            return self._counted[1]
