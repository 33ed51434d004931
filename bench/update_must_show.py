"""What the comparison of updates must show, as checks of its results: the issue's bounds, and no others.

What a check compares was measured in the same run: with the same code, on the same disks and machine. Where that is
not so, or something was not measured, it is open: it neither passes nor fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from must_show import Check
from update_nights import NO_CHANGE
from update_results import Pair, Results, Update

PACKS, BLOCKS, STRONG = "oscirc-packs", "oscirc-blocks", "oscirc-strong"
PROFILED = "oscirc-packs-profile"
"""After a boot only: packs, and a profile of boots on another machine."""
BOUND_PAIRS = ("upgrade", "upgrade-kernel")
"""Debian 12 before and after an upgrade; of the major pair only a pack's memory and the reads' bytes are bounded."""
CASYNC_SHARE, MOONSHOT, PATCH_SHARE, PLAIN_SHARE = 0.5, 0.45, 1.0, 1.0
MAKE_S, MAKE_MB = 30.0, 1024.0
BOOTED_SHARE, NO_CHANGE_BYTES = 1.1, 20_000


def checks(results: Results) -> list[Check]:
    """All of them, for each pair that there is."""
    found = [check for name, pair in results.pairs.items() for check in _of_pair(name, pair)]
    return found + list(_of_nights(results))


def moonshots(results: Results) -> list[Check]:
    """What was hoped for beyond the bounds."""
    return [
        Check("with packs / casync, moonshot", name, _share(pair, PACKS, "casync"), MOONSHOT)
        for name, pair in results.pairs.items()
        if name in BOUND_PAIRS
    ]


def _of_pair(name: str, pair: Pair) -> Iterator[Check]:
    made = pair.updates.get(PACKS)
    if made is not None and made.key != pair.key:
        made = None
    if name in BOUND_PAIRS:
        yield Check("with packs, bytes moved / what casync adds", name, _share(pair, PACKS, "casync"), CASYNC_SHARE)
        share = _share(pair, PACKS, "zstd-patch")
        yield Check("with packs, bytes moved / zstd -9 --patch-from", name, share, PATCH_SHARE)
        for ours, how in ((BLOCKS, "without packs"), (STRONG, "without packs, at a high level")):
            yield Check(f"{how}: bytes moved / what casync adds", name, _share(pair, ours, "casync"), PLAIN_SHARE)
        yield Check("making the pack, seconds", name, made.make_s if made else None, MAKE_S)
    yield Check("making the pack, MB of memory", name, made.make_peak_mb if made else None, MAKE_MB)
    for ours, how in ((PROFILED, "with profile"), (PACKS, "no profile")):
        booted = pair.booted.get(ours)
        current = booted if booted is not None and booted.key == pair.key else None
        if name in BOUND_PAIRS:
            share = current.moved_bytes / current.least_bytes if current else None
            yield Check(f"after a boot only, {how}: moved / least", name, share, BOOTED_SHARE)
        if name in BOUND_PAIRS or current:  # no pair may read what is not on the disk
            wrong = float(current.wrong_reads) if current else None
            yield Check(f"after a boot only, {how}: reads that differ", name, wrong, 0)


def _of_nights(results: Results) -> Iterator[Check]:
    last = next((night for night in results.nights if night.name == NO_CHANGE), None)
    moved = None if last is None else float(max(last.moved_with_packs, last.moved_without))
    yield Check("a version without a change, bytes moved", "nights", moved, NO_CHANGE_BYTES)
    kept = None if last is None else float(last.kept_bytes)
    yield Check("a version without a change, bytes that the store grows by", "nights", kept, NO_CHANGE_BYTES)


def _share(pair: Pair, ours: str, peer: str) -> float | None:
    one, other = pair.updates.get(ours), pair.updates.get(peer)
    if one is None or other is None or {one.key, other.key} != {pair.key}:
        return None
    return one.moved_bytes / _peer_bytes(other)


def _peer_bytes(peer: Update) -> int:
    """What the peer adds: its chunks or patch, without the index and headers that it moves besides."""
    return peer.made_bytes
