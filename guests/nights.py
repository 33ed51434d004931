#!/usr/bin/env python3
"""Builds what becomes of the stock Debian disk: the next release in place, and ten nights. Needs root.

    sudo python guests/nights.py [OUTDIR] [--next-release trixie] [--nights 10]

OUTDIR (default as in `debian.py`, whose disks are built there first) gets

- `to-trixie.raw` (with `--next-release`): `v2-same-kernel.raw`, Debian 12 with its fixes, upgraded in place as the
  release notes say: the next suite in `sources.list`, `upgrade --without-new-pkgs`, then `full-upgrade`. The old kernel
  stays, as on a machine before its next start; `packages-to-trixie.txt` has what changed.
- `nights/01.raw` … (with `--nights`): `v1.raw` night after night. `nights/plan.json` has what each brings.

What a night is, and what it is not:

- The fixes that Debian made for the disk's packages since its release, kernel included, are applied in the order of
  their dates, spread evenly over the nights: what a machine that follows the suites got, in fewer days than it took.
- Three nights install a package that was not there. Each night a service's log grows by some 400 kB of made-up lines,
  seeded by the night's number, and every fifth it is rotated. dpkg's and apt's own logs and caches grow as they do.
- No night boots: what a running system writes besides (journal, DHCP leases, random seed) is not in it.
- The plan is made once, from what the mirror has then; the same plan and packages give the same files, not the same
  bytes of the file system: times and the allocation of blocks differ.

A finished disk is used again; an interrupted run goes on where it was. Where a package of the plan has left the mirror,
this says so: delete `nights/` to have all of it rebuilt.
"""

import argparse
import gzip
import json
import random
import re
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import debian
from guestdisks import apt_sources, mounting, systems
from guestdisks.programs import BuildError, run

NIGHTS = 10
NEW_PACKAGES = {3: ("rsync",), 6: ("tmux",), 9: ("git",)}
ROTATED_EVERY = 5
LINES_A_NIGHT = 4000
_LOG = "var/log/circuit/requests.log"

# The time in an archive's first header is that of the changelog's newest entry.
_DATED = """
apt-get "$@" --download-only --with-new-pkgs upgrade
for archive in /var/tmp/archives/*.deb; do
    printf 'fix %s %s\\n' "$(head -c 36 "$archive" | tail -c 12)" \\
        "$(dpkg-deb -W --showformat='${Package} ${Version} ${source:Package}' "$archive")"
done
"""
_FULL_UPGRADE = 'apt-get "$@" upgrade --without-new-pkgs\napt-get "$@" full-upgrade\n'
_NO_LISTS = "apt-get clean\nrm -rf /var/lib/apt/lists/*\n"


def next_release(directory: Path, suite: str = "trixie") -> Path:
    """Make the disk of the next release from that of Debian 12 with its fixes, unless it is there; return its path."""
    before = debian.upgrade(directory, same_kernel=True)
    disk = directory / f"to-{suite}.raw"
    with systems.only_one_builder(directory):
        if not disk.exists():
            debian.check()
            release, later = apt_sources.for_suite(apt_sources.machine_sources(), suite)
            with systems.finished_or_gone(disk) as unfinished:
                _copy(before, unfinished)
                with systems.changing(unfinished) as (device, root):
                    old = systems.packages(root)
                    sources = "".join(source.line() + "\n" for source in (release, *later))
                    (root / "etc/apt/sources.list").write_text(sources, encoding="utf-8")
                    mounting.run_inside(root, device, systems.APT + _FULL_UPGRADE + debian.CLEAN_UP)
                    changes = systems.differences(old, systems.packages(root))
                (directory / f"packages-to-{suite}.txt").write_text(changes, encoding="utf-8")
    return disk


def nights(directory: Path, count: int = NIGHTS) -> list[Path]:
    """Make the disks of the first `count` nights unless they are there; return their paths, the first night's first."""
    first = debian.build(directory)
    own = directory / "nights"
    disks = [own / f"{number:02}.raw" for number in range(1, count + 1)]
    with systems.only_one_builder(own):
        if all(disk.exists() for disk in disks):
            return disks
        debian.check()
        plan = _plan(first, own)
        for number, (before, disk) in enumerate(zip([first, *disks], disks, strict=False), 1):
            if not disk.exists():
                print(f"night {number}: {' '.join(plan[number - 1]) or 'logs only'}", flush=True)
                with systems.finished_or_gone(disk) as unfinished:
                    _copy(before, unfinished)
                    _pass_night(unfinished, number, plan[number - 1])
    return disks


def spread(dated: list[tuple[int, str, str]], count: int = NIGHTS) -> list[list[str]]:
    """Give each night its part of (time, package=version, source), oldest first; what is of one source stays together,
    at the time of its newest package.
    """
    times: dict[str, int] = {}
    for time, _, source in dated:
        times[source] = max(time, times.get(source, 0))
    order = sorted(times, key=lambda source: (times[source], source))
    plan: list[list[str]] = [[] for _ in range(count)]
    for place, source in enumerate(order):
        plan[place * count // len(order)] += sorted(package for _, package, its in dated if its == source)
    return plan


def log_lines(number: int) -> str:
    """Return what a made-up service logs in a night: the same each time."""
    chance = random.Random(f"night {number}")  # noqa: S311  # filler, not a secret
    lines = []
    for line in range(LINES_A_NIGHT):
        second = 86400 * line // LINES_A_NIGHT
        when = f"2026-03-{number:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
        who = f"10.{chance.randrange(4)}.{chance.randrange(256)}.{chance.randrange(256)}"
        what = f"/item/{chance.randrange(5000):04}?session={chance.randrange(1 << 64):016x}"
        lines.append(f"{when} {who} GET {what} {chance.choice((200, 200, 200, 304, 404))} {chance.randrange(90000)}\n")
    return "".join(lines)


def _plan(first: Path, own: Path) -> list[list[str]]:
    """Return what each of the ten nights brings, asking the mirror the first time."""
    kept = own / "plan.json"
    if not kept.exists():
        scratch = own / ".asking.raw"
        try:
            _copy(first, scratch)
            with systems.changing(scratch) as (device, root):
                answer = mounting.run_inside(root, device, systems.APT + _DATED)
        finally:
            scratch.unlink(missing_ok=True)
        found = re.findall(r"^fix +(\d+) +(\S+) (\S+) (\S+)$", answer, re.MULTILINE)
        if not found:
            raise BuildError("the mirror has no fix for the disk: there is nothing that ten nights could bring")
        plan = spread([(int(time), f"{name}={version}", source) for time, name, version, source in found])
        kept.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    plan = json.loads(kept.read_text(encoding="utf-8"))
    return [[*fixes, *NEW_PACKAGES.get(number, ())] for number, fixes in enumerate(plan, 1)]


def _pass_night(disk: Path, number: int, packages: list[str]) -> None:
    """Let one night pass over `disk`."""
    with systems.changing(disk) as (device, root):
        if packages:
            install = f'apt-get "$@" --no-install-recommends install {" ".join(packages)}\n'
            try:
                mounting.run_inside(root, device, systems.APT + install + _NO_LISTS)
            except BuildError as error:
                raise BuildError(
                    f"night {number}: {error}\nDelete the folder of the nights to plan them anew."
                ) from error
        log = root / _LOG
        log.parent.mkdir(exist_ok=True)
        if number % ROTATED_EVERY == 0 and log.exists():
            rotated = log.with_name(f"{log.name}.{number // ROTATED_EVERY}.gz")
            rotated.write_bytes(gzip.compress(log.read_bytes(), mtime=0))
            log.unlink()
        with log.open("a", encoding="ascii") as stream:
            stream.write(log_lines(number))


def _copy(disk: Path, to: Path) -> None:
    run("cp", "--sparse=always", "--reflink=auto", disk, to)


def main(arguments: list[str] | None = None) -> int:
    """Build the disks that the command line asks for."""
    parser = argparse.ArgumentParser(description="Build the next release of the stock Debian disk, and ten nights.")
    parser.add_argument("directory", type=Path, nargs="?", default=debian.default_directory(), metavar="OUTDIR")
    parser.add_argument("--next-release", metavar="SUITE", help="make to-SUITE.raw")
    parser.add_argument("--nights", type=int, default=0, metavar="N", help=f"make the first N nights (up to {NIGHTS})")
    given = parser.parse_args(arguments)
    if not 0 <= given.nights <= NIGHTS:
        parser.error(f"there are {NIGHTS} nights")
    signal.signal(signal.SIGTERM, debian.stop)
    try:
        if given.next_release:
            print(next_release(given.directory, given.next_release))
        if given.nights:
            print("\n".join(map(str, nights(given.directory, given.nights))))
    except BuildError as error:
        print(f"nights.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nights.py: stopped; nothing is left mounted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
