"""An update's bytes and seconds: this project, with delta packs and without, against what a user would pick instead.

    python bench/update.py [--part PART]… [--pair NAME]… [--only CONTENDER]… [--quick] [--fresh]

A client that holds all of version 1 comes to version 2, once with each contender (`update_ours.py`, `update_peers.py`),
over the same emulated link (`link.py`), from the same nginx. *Moved* is everything that came over the link: records and
block files, lists, nodes, manifest, index, metadata, HTTP headers. What the publisher makes and keeps for it, and the
memory of the largest process, stand beside. Version 2 is compared with the disk afterwards, byte for byte.

Must show, for Debian 12 before and after an upgrade: with packs at most 0.5 of what casync adds (moonshot 0.45) and no
more than `zstd -9 --patch-from` over the used content; without packs no more than casync adds; a pack made in 30 s,
and for any pair in at most 1 GB of memory.
After version 1 was only booted: updating to and booting version 2 moves at most 1.1 of the least per touched block
(`update_booted.py`). A version without a change costs under 20 kB (`update_nights.py`).

Bytes are exact, seconds are the machine's. A run goes on where the last one with the same code, disks and machine was;
`--fresh` does not. Exit code 1: a bound missed.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import update_booted
import update_must_show
import update_nights
import update_pairs
from harness import DISKS, RESULTS, Finished, machine
from link import Counters, Link
from revisions import revision
from update_must_show import BLOCKS, PACKS, PROFILED, STRONG
from update_ours import PACKED, PLAIN, Client, Publication, Stored, frame_lengths, publication
from update_pairs import DiskPair
from update_peers import Peer, Place, peers
from update_results import Growth, Night, Pair, Results, Update, key_of, load

LINK = (100, 20)
PARTS = ("updates", "booted", "nights")
FRESH = "oscirc-fresh"
STRONG_LEVEL = 15
OURS = {
    PACKS: (
        "oscirc, packs",
        "`delta make` beside a released version, `pull` where version 1 was pulled before",
        PACKED,
    ),
    BLOCKS: ("oscirc, block files", "the same without packs", PLAIN),
    STRONG: (
        f"oscirc, block files of level {STRONG_LEVEL}",
        f"version 2 published with `--level {STRONG_LEVEL}`",
        PLAIN,
    ),
    FRESH: ("oscirc, all anew", "`pull` on a client that has nothing: the sum of all block files", PLAIN),
}
BOOTED = {PROFILED: "profiled", PACKS: PACKED, BLOCKS: PLAIN}
"""Images that version 2 is booted of where version 1 was only booted."""


class Comparison:
    """All contenders on one pair."""

    def __init__(self, results: Results, pair: DiskPair, key: str, work: Path) -> None:
        self.results = results
        self.pair = pair
        self.key = key
        self.work = work

    def missing(self, names: list[str], *, fresh: bool) -> list[str]:
        """Contenders that were not measured with this key."""
        known = self.results.pairs.get(self.pair.name)
        done = {} if known is None or fresh else known.updates
        return [name for name in names if name not in done or done[name].key != self.key]

    def run(self, names: list[str], booted: list[str], traces: Path) -> Iterator[str]:
        """Measure them; tells after each what it found, when that is in the results."""
        with publication(self.work) as published:
            plain, packed, growth = self._publish(published)
            found = self._facts(published, growth)
            made = {PACKS: packed, BLOCKS: plain, FRESH: plain}
            for name in names:
                if name == STRONG:
                    update = self._strong()
                elif name in OURS:
                    update = self._ours(name, made[name], published)
                else:
                    with self._place(name, published) as (place, link):
                        update = self._peer(next(peer for peer in peers() if peer.name == name), place, link)
                found.updates[name] = update
                yield f"{self.pair.name}  {name:<14} {update.moved_bytes / 1e6:9.2f} MB  {update.update_s:7.2f} s"
            recorded = self._record(published, traces) if booted else None
            for name in booted:
                assert recorded is not None  # there is a boot to measure
                with self._place(f"booted-{name}", published) as (place, link):
                    image, home = BOOTED[name], place.work / "client"
                    boot = update_booted.measure(self.key, image, self.pair, published, link, recorded, home)
                found.booted[name] = boot
                yield (
                    f"{self.pair.name}  booted only, {name:<14} {boot.moved_bytes / 1e6:9.2f} MB"
                    f"  {boot.moved_bytes / boot.least_bytes:.2f} of the least"
                )

    def _publish(self, published: Publication) -> tuple[tuple[Finished, int], tuple[Finished, int], Growth]:
        """Both versions of both images; what publishing version 2 and making its pack took, and bytes kept for it; what
        the store grew by.
        """
        for image in (PLAIN, PACKED):
            published.publish(self.pair.old, image, "1")
        before = Stored.of(published.tree)
        done, facts = published.publish(self.pair.new, PLAIN, "2")
        plain = Stored.of(published.tree, before)
        published.publish(self.pair.new, PACKED, "2")
        pack = published.make_pack(PACKED, "2", "1")
        file = published.pack(published.manifest(PACKED, "2"))
        length = file[0].stat().st_size if file else 0
        growth = growth_of(self.key, before, plain, Stored.of(published.tree, plain), length)
        return (done, int(str(facts["uploaded_bytes"]))), (pack, length), growth

    def _record(self, published: Publication, kept: Path) -> tuple[Path, Path]:
        """The boots of both versions; and an image that has profiles of others."""
        kept.mkdir(parents=True, exist_ok=True)
        image, found = BOOTED[PROFILED], []
        for version, disk in (("1", self.pair.old), ("2", self.pair.new)):
            found.append(update_booted.trace_of(disk, published, f"bench/{PLAIN}@{version}", kept))
            published.publish(disk, image, version)
            update_booted.add_profile(disk, published, f"bench/{image}@{version}", kept)
        published.make_pack(image, "2", "1")
        return found[0], found[1]

    def _facts(self, published: Publication, growth: Growth) -> Pair:
        old, new = (frame_lengths(published.tree, disk) for disk in (self.pair.old, self.pair.new))
        before = dict(old.values())
        after = dict(new.values())
        known = self.results.pairs.get(self.pair.name)
        found = Pair(
            self.pair.title, self.key, update_pairs.BLOCK * len(new), sum(after.values()),
            sum(length for digest, length in after.items() if digest not in before), self.pair.package_lines(),
            known.updates if known else {}, known.booted if known else {}, revision("update"), growth,
        )  # fmt: skip
        self.results.pairs[self.pair.name] = found
        return found

    @contextmanager
    def _place(self, name: str, published: Publication) -> Iterator[tuple[Place, Link]]:
        rate, round_trip_ms = LINK
        work = self.work / name
        work.mkdir()
        try:
            with Link(published.port, rate_bits=rate * 1e6, round_trip_s=round_trip_ms / 1000) as link:
                yield Place(published.files, f"http://127.0.0.1:{link.port}/files", work), link
        finally:
            shutil.rmtree(work)

    def _ours(self, name: str, made: tuple[Finished, int], published: Publication) -> Update:
        image = OURS[name][2]
        with self._place(name, published) as (place, link):
            client = Client.new(place.work / "client", published, link)
            if name != FRESH:
                client.hold(image, "1")
            done, passed = client.pull(image)
            client.check(image, self.pair.new)
        return self._update(made[0].seconds, made[0].peak_mb, made[1], done, passed)

    def _strong(self) -> Update:
        """In a repository of its own: what is stored first stays, whatever its level."""
        with publication(self.work / "of-its-own") as published:
            published.publish(self.pair.old, PLAIN, "1")
            done, facts = published.publish(self.pair.new, PLAIN, "2", level=STRONG_LEVEL)
            return self._ours(STRONG, (done, int(str(facts["uploaded_bytes"]))), published)

    def _peer(self, peer: Peer, place: Place, link: Link) -> Update:
        made = peer.make(self.pair, place)
        peer.prepare(self.pair, place)
        link.tell("reset")
        done = peer.update(self.pair, place)
        passed = link.tell()
        assert peer.is_right(self.pair, place), f"{peer.name} did not come to version 2"
        for file in place.files.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        return self._update(made.seconds, made.peak_mb, made.kept_bytes, done, passed)

    def _update(self, make_s: float, make_mb: float, kept: int, done: Finished, passed: Counters) -> Update:
        return Update(
            self.key, round(make_s, 2), round(make_mb, 1), kept, passed.bytes_down, passed.bytes_up, passed.requests,
            round(done.seconds, 2), round(done.peak_mb, 1),
        )  # fmt: skip


def growth_of(key: str, before: Stored, plain: Stored, after: Stored, pack_bytes: int) -> Growth:
    """What a version with a pack takes. `before` it, after the image without packs had it (`plain`), and `after` the
    other image had it and its pack. That image brings no block files, but the metadata of its own: only that counts.
    """
    grown = plain.since(before)
    accelerators = after.pack_bytes - before.pack_bytes - pack_bytes
    other = after.other_bytes - plain.other_bytes + accelerators
    return Growth(key, grown.block_bytes, grown.table_bytes, pack_bytes, other)


def main() -> int:
    """Measure, keep, judge."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and mounts end all the same
    disks: Path = arguments.disks
    path = arguments.results or RESULTS / ("update_quick.json" if arguments.quick else "update.json")
    names = arguments.pair or (["upgrade"] if arguments.quick else list(update_pairs.pairs(disks)))
    parts = arguments.part or (["updates"] if arguments.quick or arguments.only else list(PARTS))
    if parts == ["nights"]:
        names = []
    update_pairs.build(disks, names, nights="nights" in parts)
    results = load(path)
    results.measured = datetime.now(UTC).strftime("%Y-%m-%d")
    results.machine, results.link = asdict(machine()), LINK
    results.contenders = {name: {"label": label, "note": note} for name, (label, note, _) in OURS.items()}
    results.contenders[PROFILED] = {
        "label": "oscirc, packs and profile",
        "note": "a boot of each version recorded on another machine",
    }
    results.contenders |= {peer.name: {"label": peer.label, "note": peer.note} for peer in peers()}
    for name in names:
        _compare(results, update_pairs.pairs(disks)[name], path, arguments, parts)
    if "nights" in parts:
        _nights(results, update_pairs.night_disks(disks), path, arguments)
    results.save(path)
    return judge(results)


def _compare(results: Results, pair: DiskPair, path: Path, arguments: argparse.Namespace, parts: list[str]) -> None:
    key = key_of((pair.old, pair.new), results.machine)
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=arguments.disks))
    try:
        comparison = Comparison(results, pair, key, work)
        names = arguments.only or [name for name in results.contenders if name != PROFILED]
        names = comparison.missing(names, fresh=arguments.fresh) if "updates" in parts else []
        known = results.pairs.get(pair.name)
        booted = list(BOOTED) if "booted" in parts else []
        if known is not None and not arguments.fresh:
            booted = [name for name in booted if name not in known.booted or known.booted[name].key != key]
        if not names and not booted:
            print(f"{pair.name}: measured before", flush=True)
            return
        for line in comparison.run(names, booted, arguments.disks / "stages" / "updates"):
            results.save(path)
            print(line, flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _nights(results: Results, disks: list[Path], path: Path, arguments: argparse.Namespace) -> None:
    key, code = key_of(disks, results.machine), revision("update")
    if len(results.nights) == len(disks) and {night.key for night in results.nights} == {key} and not arguments.fresh:
        print("nights: measured before", flush=True)
        return
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=arguments.disks))
    found: list[Night] = []
    try:
        with publication(work) as published:
            for night in update_nights.measure(key, disks, published, work):
                found.append(night)
                print(
                    f"night {night.name}: {night.moved_with_packs / 1e6:.3f} MB moved with packs,"
                    f" {night.moved_without / 1e6:.3f} without; casync adds {night.casync_bytes / 1e6:.3f}", flush=True,
                )  # fmt: skip
        results.nights, results.nights_code = found, code
        results.save(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def judge(results: Results) -> int:
    """Print every check; 1 if one failed."""
    found = update_must_show.checks(results)
    print("\n" + "\n".join(check.line() for check in found if check.passed is not None))
    if open_ones := sum(check.passed is None for check in found):
        print(f"{open_ones} checks are open: what they compare was not measured")
    return int(any(check.passed is False for check in found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pair", action="append", choices=list(update_pairs.pairs(DISKS)))
    parser.add_argument("--only", action="append", choices=[*OURS, *(peer.name for peer in peers())])
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="one pair's updates, into results of their own")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured with this code")
    parser.add_argument("--results", type=Path, help="keep figures in this file (default: bench/results/update.json)")
    parser.add_argument("--disks", type=Path, default=DISKS, help="where disks are kept and built (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"update.py: {error}")
