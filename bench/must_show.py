"""What the boot benchmark must show, as checks of its results: the bounds that issue and design name, and no others.

Limit: the touched blocks as zstd level 6 frames over the link's rate. A check whose cells were not measured, or with
earlier code, is open: it neither passes nor fails. A peer that was stopped counts with the time it had by then, in its
favour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cells import Cell, Place, Results

PROFILE, PLAIN, UNLEARNT = "oscirc-profile", "oscirc-plain", "oscirc-unlearnt"
WITHOUT_PROFILE = {PLAIN: "no profile", UNLEARNT: "no profile, not learnt from"}
BLOCK_PEERS = ("qemu-http", "nbdkit-curl")
REPLAY_BOUNDS = {(100, 20): 1.05, (100, 100): 1.05, (1000, 1): 1.8}
WHOLE_BOUNDS = {(100, 20): 1.15, (100, 100): 1.3}
PLAIN_BOUNDS = {(100, 20): 2.0, (100, 100): 3.0}
PROFILE_BYTES, PROFILE_REQUESTS, PLAIN_BYTES, PEER_SHARE = 1.1, 24, 1.3, 0.3
REPEATED = {(PROFILE, link) for link in REPLAY_BOUNDS} | {
    (name, link) for link in PLAIN_BOUNDS for name in WITHOUT_PROFILE
}
"""Contenders and links that are measured three times, since a bound hangs on them."""


@dataclass(frozen=True, slots=True)
class Check:
    """One bound: `value` must be at most `bound`; no value, no verdict."""

    what: str
    disk: str
    value: float | None
    bound: float

    @property
    def passed(self) -> bool | None:
        """None while it is open."""
        return None if self.value is None else round(self.value, 3) <= self.bound

    def line(self) -> str:
        """As it is printed."""
        verdict = {True: "pass", False: "FAIL", None: "open"}[self.passed]
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        return f"{verdict}  {self.disk}: {self.what}: {value} (at most {self.bound:g})"


def checks(results: Results) -> list[Check]:
    """All of them, for each disk that there is."""
    return [check for disk in results.disks for check in _of_disk(results, disk)]


def beyond(results: Results) -> list[Check]:
    """The bounds without a profile, asked of a system that the list was not learnt from: told, not required."""
    return [check for disk in results.disks for check in _without_profile(results, disk, UNLEARNT)]


def _of_disk(results: Results, disk: str) -> Iterator[Check]:
    for link, bound in REPLAY_BOUNDS.items():
        value = _over_limit(results, _cell(results, disk, link, PROFILE), replay=True)
        yield Check(f"with profile, {_link(link)}: replay / limit", disk, value, bound)
    for link, bound in WHOLE_BOUNDS.items():
        found = _cell(results, disk, link, PROFILE)
        whole = _over_limit(results, found, replay=False)
        yield Check(f"with profile, {_link(link)}: whole way / limit", disk, whole, bound)
        touched = _over_touched(results, disk, found)
        yield Check(f"with profile, {_link(link)}: bytes / touched", disk, touched, PROFILE_BYTES)
        requests = None if found is None else found.requests
        yield Check(f"with profile, {_link(link)}: requests", disk, requests, PROFILE_REQUESTS)
    yield from _without_profile(results, disk, PLAIN)
    ours = [each for each in results.cells.values() if each.place.contender.startswith("oscirc")]
    ours = [each for each in ours if each.place.disk == disk and not results.is_old(each)]
    wrong = float(sum(each.wrong_reads for each in ours)) if ours else None
    yield Check("reads that differ from the disk, on all links", disk, wrong, 0)


def _without_profile(results: Results, disk: str, contender: str) -> Iterator[Check]:
    for link, bound in PLAIN_BOUNDS.items():
        found, what = _cell(results, disk, link, contender), f"{WITHOUT_PROFILE[contender]}, {_link(link)}"
        yield Check(f"{what}: replay / limit", disk, _over_limit(results, found, replay=True), bound)
        yield Check(f"{what}: bytes / touched", disk, _over_touched(results, disk, found), PLAIN_BYTES)
        peers = [peer for name in BLOCK_PEERS if (peer := _cell(results, disk, link, name)) is not None]
        share = None
        if found is not None and len(peers) == len(BLOCK_PEERS):
            share = found.replay_s / min(peer.replay_s for peer in peers)
        yield Check(f"{what}: replay / best of QEMU HTTP and nbdkit", disk, share, PEER_SHARE)


def _cell(results: Results, disk: str, link: tuple[int, int], contender: str) -> Cell | None:
    found = results.cells.get(Place(disk, *link, contender))
    return None if found is None or results.is_old(found) else found


def _over_limit(results: Results, found: Cell | None, *, replay: bool) -> float | None:
    return None if found is None else results.ratio(found, replay=replay)


def _over_touched(results: Results, disk: str, found: Cell | None) -> float | None:
    return None if found is None else found.bytes_down / results.disks[disk].frame_bytes


def _link(link: tuple[int, int]) -> str:
    return f"{link[0]} Mbit/s {link[1]} ms"
