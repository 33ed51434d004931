"""A fleet behind caches, simulated: who asks for what, when, and which cache has it. Values in, values out; seeded.

**What is asked for** comes from the real block lists of successive versions of a disk. Blocks that every request of a
kind asks for together are one *part*: they live and die in a cache together, so that a million workstations are as
many as a cache has to do with, and the result is that of single blocks. With accelerators a cold boot asks for the
bundle, an update for the delta pack; without, both ask for block files. After a cold boot a share of the other blocks
is read, the same ones by everybody.

**Who asks.** Workstations are spread over edges evenly and over images by Zipf's law. Each image has releases of its
own, a period apart; its workstations follow within days, most on the next morning. Cold boots (a new machine, another
image, a reset) come at a rate, during the day. No two images share a block: the worst case.

**Caches** forget what was used longest ago, by bytes: one at each edge, then one before the store (the origin).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DAY_S = 86_400
COLD, UPDATE = 0, 1
_MORNING_S = 8.5 * 3600
_SPREAD_S = 1.5 * 3600
_FOLLOWING = (0.6, 0.2, 0.1, 0.06, 0.04)  # share of the workstations that update on the first, second, … day


@dataclass(frozen=True, slots=True)
class Version:
    """The frames of a version's distinct blocks by digest (bytes), those that a boot reads, its bundle and pack."""

    frames: Mapping[bytes, int]
    boot: frozenset[bytes]
    bundle_bytes: int
    pack_bytes: int = 0  # from the version before it

    @property
    def frame_bytes(self) -> int:
        """Of the whole version."""
        return sum(self.frames.values())


@dataclass(frozen=True, slots=True)
class Parts:
    """What requests ask for, as numbers of parts: `cold[version]`, `update[version]` (from the one before it)."""

    sizes: tuple[int, ...]
    counts: tuple[int, ...]  # requests that a client makes for each part
    cold: tuple[tuple[int, ...], ...]
    update: tuple[tuple[int, ...], ...]


def parts(versions: Sequence[Version], *, accelerated: bool, used_share: float) -> Parts:
    """The parts of an image whose versions these are."""
    wanted: dict[tuple[str, int], set[bytes]] = {}
    for number, version in enumerate(versions):
        rest = {digest for digest in version.frames if digest not in version.boot and _is_used(digest, used_share)}
        wanted["cold", number] = rest if accelerated else rest | version.boot
        before = versions[number - 1].frames if number else version.frames
        changed = {digest for digest in version.frames if digest not in before}
        wanted["update", number] = set() if accelerated else changed
    signatures: dict[bytes, list[tuple[str, int]]] = {}
    for name, digests in wanted.items():
        for digest in digests:
            signatures.setdefault(digest, []).append(name)
    frames = {digest: size for version in versions for digest, size in version.frames.items()}
    numbers: dict[tuple[tuple[str, int], ...], int] = {}
    sizes: list[int] = []
    counts: list[int] = []
    for digest in sorted(signatures):
        number = numbers.setdefault(tuple(signatures[digest]), len(numbers))
        if number == len(sizes):
            sizes.append(0)
            counts.append(0)
        sizes[number] += frames[digest]
        counts[number] += 1
    asked = {name: [number for names, number in numbers.items() if name in names] for name in wanted}
    if accelerated:
        for number, version in enumerate(versions):
            for kind, size in (("cold", version.bundle_bytes), ("update", version.pack_bytes)):
                if size:
                    asked[kind, number].insert(0, len(sizes))
                    sizes.append(size)
                    counts.append(1)
    many = range(len(versions))
    return Parts(
        tuple(sizes),
        tuple(counts),
        tuple(tuple(asked["cold", number]) for number in many),
        tuple(tuple(asked["update", number]) for number in many),
    )


def _is_used(digest: bytes, share: float) -> bool:
    return int.from_bytes(digest[:2], "big") < share * 65_536


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many there are, and how they behave; times in days."""

    edges: int
    workstations_per_edge: int
    images: int
    exponent: float
    days: int = 70
    warm_days: int = 14
    release_days: float = 7.0
    cold_per_day: float = 0.01

    @property
    def workstations(self) -> int:
        """All of them."""
        return self.edges * self.workstations_per_edge


@dataclass(frozen=True, slots=True)
class Events:
    """What workstations ask for, in the order of time (seconds): at which edge, of which image, what, which version."""

    at_s: np.ndarray
    edge: np.ndarray
    image: np.ndarray
    kind: np.ndarray
    version: np.ndarray


def popularity(images: int, exponent: float) -> np.ndarray:
    """The share of each image, the most popular first (Zipf)."""
    weights = np.arange(1, images + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def events(fleet: Fleet, versions: int, seed: int) -> Events:
    """All that happens. A release beyond the last version is none: the image rests."""
    chance = np.random.default_rng(seed)
    shares = popularity(fleet.images, fleet.exponent)
    first_release = chance.uniform(0, fleet.release_days, fleet.images).astype(np.int64)  # at midnight of a day
    home = np.repeat(np.arange(fleet.edges), fleet.workstations_per_edge)
    using = chance.choice(fleet.images, fleet.workstations, p=shares)
    found: list[tuple[np.ndarray, ...]] = []
    for release in range(1, versions):
        day = first_release[using] + int((release - 1) * fleet.release_days)
        late = chance.choice(len(_FOLLOWING), fleet.workstations, p=_FOLLOWING)
        at = (day + late) * DAY_S + _MORNING_S + chance.exponential(_SPREAD_S, fleet.workstations)
        inside = at < fleet.days * DAY_S
        found.append(
            (at[inside], home[inside], using[inside], np.full(inside.sum(), UPDATE), np.full(inside.sum(), release))
        )
    count = int(fleet.workstations * fleet.cold_per_day * fleet.days)
    who = chance.integers(0, fleet.edges, count)
    image = chance.choice(fleet.images, count, p=shares)
    day = chance.integers(0, fleet.days, count)
    at = day * DAY_S + _MORNING_S + chance.uniform(0, 9 * 3600, count)
    released = np.floor((day - first_release[image]) / fleet.release_days).astype(np.int64) + 1
    found.append((at, who, image, np.full(count, COLD), np.clip(released, 0, versions - 1)))
    at_s, *numbers = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(at_s, kind="stable")
    return Events(at_s[order], *(column.astype(np.int32)[order] for column in numbers))


class ByteLru:
    """A cache of so many bytes that forgets what was used longest ago; what is longer than all of it is not kept."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._held: dict[int, int] = {}
        self.used_bytes = 0

    def asked(self, key: int, size: int) -> bool:
        """Whether it was here; it is now."""
        held = self._held
        if key in held:
            held[key] = held.pop(key)
            return True
        if size <= self._capacity:
            held[key] = size
            self.used_bytes += size
            while self.used_bytes > self._capacity:
                oldest = next(iter(held))
                self.used_bytes -= held.pop(oldest)
        return False


@dataclass(slots=True)
class Tier:
    """What one tier was asked for, and what it had, after the warm-up."""

    asked_bytes: int = 0
    hit_bytes: int = 0
    asked: int = 0
    hits: int = 0

    @property
    def byte_hit_rate(self) -> float:
        """Of the bytes that were asked for."""
        return self.hit_bytes / self.asked_bytes if self.asked_bytes else 0.0

    @property
    def request_hit_rate(self) -> float:
        """Of the requests."""
        return self.hits / self.asked if self.asked else 0.0

    def count(self, size: int, requests: int, *, hit: bool) -> None:
        """One part was asked for."""
        self.asked_bytes += size
        self.asked += requests
        if hit:
            self.hit_bytes += size
            self.hits += requests


@dataclass(slots=True)
class Outcome:
    """Both tiers, and bytes for each bin of time that clients, the origin and the store sent."""

    bin_s: int
    edge: Tier = field(default_factory=Tier)
    origin: Tier = field(default_factory=Tier)
    clients_bins: dict[int, int] = field(default_factory=dict)
    origin_bins: dict[int, int] = field(default_factory=dict)
    store_bins: dict[int, int] = field(default_factory=dict)

    def peak_bits(self, bins: Mapping[int, int]) -> float:
        """The greatest rate of a bin, in bits per second."""
        return 8 * max(bins.values(), default=0) / self.bin_s


def simulate(
    fleet: Fleet, happening: Events, of_image: Parts, edge_bytes: int, origin_bytes: int, *, bin_s: int = 600
) -> Outcome:
    """Run all of it through the caches; counted is what happens after the warm-up."""
    outcome = Outcome(bin_s)
    edges = [ByteLru(edge_bytes) for _ in range(fleet.edges)]
    origin = ByteLru(origin_bytes)
    many, sizes, counts = len(of_image.sizes), of_image.sizes, of_image.counts
    wanted = (of_image.cold, of_image.update)
    counted_from = fleet.warm_days * DAY_S
    for at, edge, image, kind, version in _rows(happening):
        cache, base = edges[edge], image * many
        warm = at >= counted_from
        moment = int(at) // bin_s
        for part in wanted[kind][version]:
            size, requests = sizes[part], counts[part]
            hit = cache.asked(base + part, size)
            if warm:
                outcome.edge.count(size, requests, hit=hit)
                outcome.clients_bins[moment] = outcome.clients_bins.get(moment, 0) + size
            if hit:
                continue
            had = origin.asked(base + part, size)
            if warm:
                outcome.origin.count(size, requests, hit=had)
                outcome.origin_bins[moment] = outcome.origin_bins.get(moment, 0) + size
                if not had:
                    outcome.store_bins[moment] = outcome.store_bins.get(moment, 0) + size
    return outcome


def _rows(happening: Events) -> Iterable[tuple[float, int, int, int, int]]:
    """As Python's own numbers, which dictionaries like better than numpy's; in pieces, for memory's sake."""
    columns = (happening.at_s, happening.edge, happening.image, happening.kind, happening.version)
    for start in range(0, len(happening.at_s), 1 << 18):
        yield from zip(*(column[start : start + (1 << 18)].tolist() for column in columns), strict=True)
