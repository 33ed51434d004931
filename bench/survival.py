"""What a boot survives: the mirror in use killed, a mirror that lies, eight mounts at once. On stock Debian 12 and 13.

Real `oscirc mount`s with an empty cache, over two emulated links of 100 Mbit/s and 20 ms (`link.py`), each with an
nginx of its own behind it (`mirrors.py`). The recorded boot is replayed through them as a guest would read
(`replay.py`), and every read compared with the disk. All with the boot's bundle and, by `--no-prefetch`, without.

Must show:

- *kill*: after a third of the bundle's bytes the mirror in use is killed (its port refuses, its connections are
  closed) or falls silent (nothing comes, nothing is closed). No read takes more than 2 s by the reader's clock; none
  fails; none is wrong.
- *flips*: the preferred mirror has one bit flipped in every tenth block file and in every tenth stretch of 256 KiB of
  the bundle. The replay completes from the other; then the whole disk is read, and every block of it is right; `status`
  names the liar and not the other; every block that the client keeps hashes to its name (zero unverified bytes). The
  same (with the bundle) where both lie, about different blocks.
- *eight*: eight mounts with one cache and eight replays at once, of one mirror. No block file and no byte of the bundle
  is sent twice, by nginx's own log; no read is wrong.

How real guests survive a minute without network, a killed mirror and a lying one: `tests/vm/test_debian_survives.py`.

    python bench/survival.py [--disk debian12|debian13]… [--only kill|flips|eight]…    a part is printed, not kept
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import survival_parts
from harness import DISKS, save
from staging import MEASURED, prepare, stage_disk

PARTS = {"kill": survival_parts.kill, "flips": survival_parts.flips, "eight": survival_parts.eight}


def measure(disks: list[str], parts: list[str]) -> Iterator[survival_parts.Outcome]:
    """Each part on each disk, in a directory of its own, which is gone afterwards."""
    for disk in disks:
        stage = prepare(disk, stage_disk(disk))
        for part in parts:
            work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
            try:
                for outcome in PARTS[part](stage, work):
                    verdict = f": MISSED: {'; '.join(outcome.missed)}" if outcome.missed else ""
                    print(f"{outcome.name}: {outcome.figures}{verdict}", flush=True)
                    yield outcome
            finally:
                shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Measure, keep, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--disk", action="append", choices=list(MEASURED))
    parser.add_argument("--only", action="append", choices=list(PARTS), metavar="PART")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted is unmounted all the same
    load_before = os.getloadavg()[0]
    outcomes = list(measure(given.disk or list(MEASURED), given.only or list(PARTS)))
    missed = [f"{outcome.name}: {what}" for outcome in outcomes for what in outcome.missed]
    if not (given.disk or given.only):
        figures: dict[str, object] = {outcome.name: outcome.figures for outcome in outcomes}
        figures["missed"] = "; ".join(missed) or "nothing"
        save("survival", {**figures, "load_of_the_machine_before": round(load_before, 1)})
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
