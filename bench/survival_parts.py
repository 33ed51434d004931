"""The parts of `survival.py`: what is done to a boot that is replayed, and what must hold then and afterwards.

Each part gives an outcome per case: its figures in words, and what it missed. A command that fails raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import right_bytes
from mirrors import EVERY, Damage, Mirror, bundle_of, lying_copy, mirror
from replaying import Replayed, Replayer, mounted, new_client, replay
from staging import Stage

RATE_BITS = 100e6
ROUND_TRIP_S = 0.02
WORST_READ_S = 2.0
MOUNTS = 8
WAYS = {"with the bundle": (), "block by block": ("--no-prefetch",)}
BLOWS: dict[str, Callable[[Mirror], None]] = {
    "nothing happens": lambda _mirror: None,
    "mirror killed": Mirror.kill,
    "mirror silent": Mirror.fall_silent,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: its name in the table, its figures, and every bound that it missed."""

    name: str
    figures: str
    missed: tuple[str, ...]


class Strike:
    """Hits the mirror in use once so many bytes came from all of them. Called until it has."""

    def __init__(self, mirrors: tuple[Mirror, ...], after_bytes: int, blow: Callable[[Mirror], None]) -> None:
        self._mirrors, self._after_bytes, self._blow = mirrors, after_bytes, blow
        self.hit: Mirror | None = None

    def __call__(self) -> bool:
        """Whether it has struck; the mirror in use is the one that brought most."""
        passed = [each.passed().bytes_down for each in self._mirrors]
        if self.hit is None and sum(passed) >= self._after_bytes:
            self.hit = self._mirrors[passed.index(max(passed))]
            self._blow(self.hit)
        return self.hit is not None


def kill(stage: Stage, work: Path) -> Iterator[Outcome]:
    """The mirror in use goes after a third of the bytes."""
    third = bundle_of(stage.tree).stat().st_size // 3
    for way, options in WAYS.items():
        for what, blow in BLOWS.items():
            place = work / f"{what} {way}".replace(" ", "-")
            place.mkdir()
            with _two(stage.tree, stage.tree, place) as mirrors:
                station = new_client(place / "client", stage.pin, [each.url for each in mirrors])
                strike = Strike(mirrors, third, blow)
                with mounted(station, place / "mnt", *options) as disk:
                    found = replay(stage, disk, strike)
                    facts = station.json("status", place / "mnt")
                lost, other = sorted(mirrors, key=lambda each: each is not strike.hit)
                yield Outcome(
                    _name(stage, what, way),
                    f"worst read {found.worst_s:.2f} s (at most {WORST_READ_S:g}), {found.seconds:.1f} s in all;"
                    f" {_mb(lost)} MB from the mirror in use, {_mb(other)} MB from the other; {_reads(found)}",
                    _missed(
                        a_read_took_too_long=found.worst_s <= WORST_READ_S,
                        a_read_was_wrong=found.wrong == 0,
                        a_read_failed=facts["failed_reads"] == 0,
                    ),
                )


def flips(stage: Stage, work: Path) -> Iterator[Outcome]:
    """The preferred mirror lies in every tenth place; then both do, in different ones."""
    one_lies, both_lie = "a bit flipped in every tenth block", "both mirrors lie, each elsewhere"
    lies, others = work / "lies", work / "others"
    damage = lying_copy(stage.tree, lies)
    lying_copy(stage.tree, others, EVERY // 2)
    cases = [(one_lies, stage.tree, way) for way in WAYS] + [(both_lie, others, next(iter(WAYS)))]
    for what, second, way in cases:
        place = work / f"{what} {way}".replace(" ", "-")
        place.mkdir()
        with _two(lies, second, place) as mirrors:
            name = _name(stage, what, way)
            yield _lied_to(stage, mirrors, place, name, WAYS[way], damage, both=what == both_lie)


def _lied_to(
    stage: Stage,
    mirrors: tuple[Mirror, Mirror],
    place: Path,
    name: str,
    options: tuple[str, ...],
    damage: Damage,
    *,
    both: bool,
) -> Outcome:
    """Replay, read all, look at what is kept and at what `status` says."""
    station = new_client(place / "client", stage.pin, [each.url for each in mirrors])
    with mounted(station, place / "mnt", *options) as disk:
        found = replay(stage, disk)
        compared = right_bytes.compare(disk, stage.disk)
        facts = station.json("status", place / "mnt")
        words = station.run("status", place / "mnt")
    kept = right_bytes.check_cache(station.home / "cache")
    standing = {each["name"]: each for each in facts["mirrors"]}
    first, second = (standing[each.url] for each in mirrors)
    return Outcome(
        name,
        f"{damage.block_files} of {damage.of_block_files} block files and {damage.bundle_bits} places of the bundle"
        f" damaged; {_reads(found)}, worst {found.worst_s:.2f} s, {found.seconds:.1f} s in all; then the whole disk:"
        f" {compared.wrong} wrong of {compared.data_blocks} blocks with data; {_mb(mirrors[0])} MB from the first"
        f" mirror, wrong {first['bad_blocks']} times, {_mb(mirrors[1])} MB from the second, wrong"
        f" {second['bad_blocks']} times; {kept.wrong} unverified of {kept.files} blocks and nodes kept",
        _missed(
            a_read_was_wrong=found.wrong == 0,
            a_read_failed=facts["failed_reads"] == 0,
            a_block_was_wrong=compared.wrong == 0,
            the_cache_lacks_what_was_read=kept.files >= damage.of_block_files,
            the_cache_keeps_what_is_not_right=kept.wrong == 0,
            the_liar_was_not_named=first["lied"] and f"WRONG BYTES were served by {mirrors[0].url}" in words,
            the_other_was_accused=both or not second["lied"],
        ),
    )


def eight(stage: Stage, work: Path) -> Iterator[Outcome]:
    """Eight mounts and eight replays at once, one cache."""
    bundle = bundle_of(stage.tree)
    for way, options in WAYS.items():
        place = work / way.replace(" ", "-")
        place.mkdir()
        link = {"rate_bits": RATE_BITS, "round_trip_s": ROUND_TRIP_S}
        with mirror(stage.tree, place / "mirror", **link) as one, contextlib.ExitStack() as stack:
            station = new_client(place / "client", stage.pin, [one.url])

            def begin(number: int) -> Path:
                return stack.enter_context(mounted(station, place / f"mnt{number}", *options))  # noqa: B023

            replayers = [stack.enter_context(Replayer(stage)) for _ in range(MOUNTS)]
            with ThreadPoolExecutor(MOUNTS) as pool:
                disks = list(pool.map(begin, range(MOUNTS)))
            for replayer, disk in zip(replayers, disks, strict=True):
                replayer.begin(disk)
            found = [replayer.replayed() for replayer in replayers]
            mounts = station.json("status")["mounts"]
            stack.close()
            sent = right_bytes.sent(one.served.asked(), f"/accel/{bundle.name}")
            yield Outcome(
                _name(stage, f"{MOUNTS} mounts at once", way),
                f"{sent.block_files} block files sent, {sent.block_files_again} of them more than once;"
                f" {sent.bundle_bytes / 1e6:.1f} of {bundle.stat().st_size / 1e6:.1f} MB of the bundle sent,"
                f" {sent.bundle_bytes_again} bytes more than once; {_mb(one)} MB over the link,"
                f" {max(each.seconds for each in found):.1f} s until the last was done;"
                f" {sum(each.wrong for each in found)} wrong of {sum(each.reads for each in found)} reads",
                _missed(
                    a_block_file_was_sent_twice=sent.block_files_again == 0,
                    bytes_of_the_bundle_were_sent_twice=sent.bundle_bytes_again == 0,
                    a_read_was_wrong=not any(each.wrong for each in found),
                    a_read_failed=not any(each["failed_reads"] for each in mounts),
                    a_mount_was_missing=len(mounts) == MOUNTS,
                ),
            )


@contextlib.contextmanager
def _two(first: Path, second: Path, work: Path) -> Iterator[tuple[Mirror, Mirror]]:
    """Two mirrors, each of its own tree."""
    link = {"rate_bits": RATE_BITS, "round_trip_s": ROUND_TRIP_S}
    with mirror(first, work / "first", **link) as one, mirror(second, work / "second", **link) as other:
        yield one, other


def _name(stage: Stage, what: str, way: str) -> str:
    return f"Debian {stage.name.removeprefix('debian')}: {what}, {way}"


def _mb(one: Mirror) -> str:
    return f"{one.passed().bytes_down / 1e6:.1f}"


def _reads(found: Replayed) -> str:
    return f"{found.wrong} wrong of {found.reads} reads"


def _missed(**holds: bool) -> tuple[str, ...]:
    """In words, what does not hold."""
    return tuple(name.replace("_", " ") for name, held in holds.items() if not held)
