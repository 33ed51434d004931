"""Merging boots that strangers sent: what many of them have in common, so that no few of them decide anything.

`profile.merge` believes every recording, since one person made them all. Here each run may be a lie:

- a position counts only when at least `least` of the runs touched it, whatever a single run says;
- the result is no longer than the median run: a run that names the whole disk adds nothing by its length;
- the order is by the median of the relative ranks, which fewer than half of the runs cannot move beyond the others'.

As long as fewer than `least` runs lie, nothing is in the result that no honest run touched. `docs/adr/0012` has the
rest: who counts as one sender, and what a lie can cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.profile import MAX_RUNS, Profile


def quorum(runs: int) -> int:
    """How many of so many runs must have touched a position: more than half of them."""
    return runs // 2 + 1


def agreed(runs: Sequence[Profile], least: int) -> Profile:
    """What at least `least` of these runs touched; each run counts once. The result may be empty."""
    if not runs or least < 1:
        raise DocumentRefusedError("no profiles to merge")
    first = runs[0]
    if any((run.manifest, run.name) != (first.manifest, first.name) for run in runs):
        raise DocumentRefusedError("profiles of different disks or names cannot be merged")
    ranks: dict[int, list[float]] = {}
    for run in runs:
        length = max(1, len(run.positions))
        for rank, position in enumerate(run.positions):
            ranks.setdefault(position, []).append(rank / length)
    places = {position: median_low(found) for position, found in ranks.items() if len(found) >= least}
    longest = median_low(len(run.positions) for run in runs)
    chosen = sorted(places, key=lambda position: (-len(ranks[position]), places[position], position))[:longest]
    chosen.sort(key=lambda position: (places[position], position))
    return Profile(first.manifest, first.name, min(len(runs), MAX_RUNS), tuple(chosen))
