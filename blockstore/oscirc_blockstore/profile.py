"""Boot profiles: which blocks a boot touches, in first-touch order.

A profile is advice: it decides what is fetched early, never what a read returns. It names the manifest that it was
recorded on and lists positions; whoever uses it looks the digests up in the signed table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError
from oscirc_blockstore.fields import Fields, refuse_bad_names
from oscirc_blockstore.names import check_channel
from oscirc_blockstore.table import MAX_DISK_SIZE

FORMAT = "oscirc-profile-1"
MAX_PROFILE_BYTES = 8 << 20
MAX_POSITIONS = 500_000
MAX_RUNS = 1_000_000
DEFAULT_NAME = "boot"


@dataclass(frozen=True, slots=True)
class Profile:
    """Positions on the disk of `manifest` in first-touch order, merged from `runs` recordings."""

    manifest: Digest
    name: str
    runs: int
    positions: tuple[int, ...]

    def serialise(self) -> bytes:
        """The canonical bytes, checked by `parse`."""
        raw = canonical.serialise(
            {
                "format": FORMAT,
                "manifest": self.manifest.hex(),
                "name": self.name,
                "runs": self.runs,
                "positions": list(self.positions),
            }
        )
        parse(raw)
        return raw


def parse(raw: bytes) -> Profile:
    """The profile in `raw`, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_PROFILE_BYTES, "the profile"), "the profile")
    fields.constant("format", FORMAT)
    try:
        name = check_channel(fields.text("name", 63))
    except NameRefusedError as error:
        raise refuse_bad_names(error, "the profile") from None
    manifest, runs = fields.digest("manifest"), fields.integer("runs", 1, MAX_RUNS)
    positions: list[int] = []
    for value in fields.sequence("positions", MAX_POSITIONS):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_DISK_SIZE:
            raise DocumentRefusedError(f"the profile states the position {str(value)[:40]!r}")
        positions.append(value)
    if len(set(positions)) != len(positions):
        raise DocumentRefusedError("the profile states a position twice")
    fields.finish()
    return Profile(manifest, name, runs, tuple(positions))


def merge(profiles: Sequence[Profile]) -> Profile:
    """One profile of several recordings of one disk: positions of the majority first, by mean relative rank.

    A position that fewer than half of the runs touched comes after all others: fetching it early would more often
    delay a boot than help it. Ties are broken by position, so that the result depends on nothing else.
    """
    if not profiles:
        raise DocumentRefusedError("no profiles to merge")
    first = profiles[0]
    if any((p.manifest, p.name) != (first.manifest, first.name) for p in profiles):
        raise DocumentRefusedError("profiles of different disks or names cannot be merged")
    runs = sum(profile.runs for profile in profiles)
    weight: dict[int, int] = {}
    ranks: dict[int, float] = {}
    for profile in profiles:
        length = max(1, len(profile.positions))
        for rank, position in enumerate(profile.positions):
            weight[position] = weight.get(position, 0) + profile.runs
            ranks[position] = ranks.get(position, 0.0) + profile.runs * rank / length
    order = sorted(weight, key=lambda p: (2 * weight[p] < runs, ranks[p] / weight[p], p))
    return Profile(first.manifest, first.name, min(runs, MAX_RUNS), tuple(order[:MAX_POSITIONS]))
