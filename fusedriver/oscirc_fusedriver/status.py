"""What `oscirc status` shows of one mount: the driver's counters, and the reader's own status beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from oscirc_blockstore.errors import LocalError


@dataclass(slots=True)
class DriverCounters:
    """Totals since the mount. All are counted in the trio thread, except the stores, which their own thread counts.

    `reads` arrived from the kernel (what it did not have); of these `inline` were served from this machine at once,
    `waited` in a thread. `errors` failed with what `last_error` says; `unexpected` of them are bugs, in the log with a
    traceback. `stores` are runs of pages pushed into the page cache, `stores_dropped` found the queue full,
    `stores_skipped` pages that a read waited for.
    """

    reads: int = 0
    read_bytes: int = 0
    inline: int = 0
    waited: int = 0
    errors: int = 0
    unexpected: int = 0
    stores: int = 0
    stored_bytes: int = 0
    stores_dropped: int = 0
    stores_skipped: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class MountStatus:
    """A mount's answer to `{"op": "status"}`. `reader` is the reader's status as JSON objects."""

    mountpoint: str
    pid: int
    uptime_s: float
    read_ahead_kb: int
    driver: DriverCounters
    reader: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, answer: dict[str, Any]) -> MountStatus:
        """From the wire; unknown members are left out, so that a newer driver can be asked."""
        try:
            known = {each.name: answer[each.name] for each in fields(cls)}
            counters = {each.name: known["driver"][each.name] for each in fields(DriverCounters)}
            return cls(**{**known, "driver": DriverCounters(**counters)})
        except (KeyError, TypeError):
            raise LocalError(
                "the driver answered in another form", hint="it runs another version of oscirc: unmount and mount again"
            ) from None


@dataclass(frozen=True, slots=True)
class MapPart:
    """A mount's answer to `{"op": "map"}`: runs of (letter, number of blocks) from the position `start` on.

    `next` is where the next part begins, None at the disk's end. The letters are `oscirc_remote.block_map`'s.
    """

    start: int
    runs: tuple[tuple[str, int], ...]
    next: int | None
    block_count: int
    block_size: int

    @classmethod
    def from_json(cls, answer: dict[str, Any]) -> MapPart:
        """From the wire; a part that does not go on, or not to a later position, is refused."""
        other_form = LocalError(
            "the driver answered in another form", hint="it runs another version of oscirc: unmount and mount again"
        )
        try:
            runs = tuple((str(state), int(count)) for state, count in answer["runs"])
            part = cls(answer["start"], runs, answer["next"], answer["block_count"], answer["block_size"])
            stop = part.block_count if part.next is None else part.next
            goes_on = 0 <= part.start < stop <= part.block_count and part.start + sum(n for _, n in runs) == stop
        except (KeyError, TypeError, ValueError):
            raise other_form from None
        if not goes_on:
            raise other_form
        return part
