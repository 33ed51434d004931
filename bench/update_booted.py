"""Updating and booting version 2 where version 1 was only booted: what moves, against the least that must.

A client replays the reads of a boot of version 1 from a mount, and has in its cache what that fetched; then it mounts
version 2 over the link and replays a boot of that. Both were recorded on machines of the same size, once per disk;
they are kept beside the disks. The least: of each block that version 2's boot touches and the client lacks, the
smaller of its block file and its record in the delta pack, where the client has all old blocks that this needs.

Measured with an image of which boots were recorded on a machine of another size, as publishers do, and without.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from harness import ROOT, finish
from link import Link
from replay import AS_GUEST, reads_of
from staging import PROFILE_RUNS, TRACE_MACHINE
from update_ours import Client, Publication, frame_lengths
from update_pairs import BLOCK, DiskPair
from update_results import Booted

_BOOT_S = 900


def trace_of(disk: Path, published: Publication, reference: str, kept: Path) -> Path:
    """The reads of a disk's boot, recorded from what is published unless they are kept from an earlier run."""
    trace = _kept(disk, kept, "trace")
    if not trace.exists():
        traces = kept / "recording"
        shutil.rmtree(traces, ignore_errors=True)
        _record(published, reference, kept / "unused.json", TRACE_MACHINE, "--keep-traces", traces)
        next(traces.glob("*.trace")).replace(trace)
        shutil.rmtree(traces)
    return trace


def add_profile(disk: Path, published: Publication, reference: str, kept: Path) -> None:
    """Give a released version a boot profile, recorded on another machine than the trace unless it is kept."""
    profile = _kept(disk, kept, "profile.json")
    if not profile.exists():
        recorded = kept / "recorded.json"
        _record(published, reference, recorded, PROFILE_RUNS[0])
        recorded.replace(profile)
    published.station.run("profile", "add", f"test:{reference}", profile, timeout=300)


def _kept(disk: Path, kept: Path, kind: str) -> Path:
    """Where something is kept of a disk as it is now; what is kept of an earlier one goes."""
    stat = disk.stat()
    path = kept / f"{disk.stem}-{stat.st_size}-{stat.st_mtime_ns}.{kind}"
    if not path.exists():
        for old in kept.glob(f"{disk.stem}-[0-9]*-[0-9]*.{kind}"):
            old.unlink()
    return path


def _record(published: Publication, reference: str, output: Path, size: tuple[int, int], *options: object) -> None:
    print(f"recording a boot of {reference} with {size[0]} MiB and {size[1]} processors: a minute", flush=True)
    machine = ("--accel", "tcg", "--memory", size[0], "--cpus", size[1], "--runs", 1, "--timeout", _BOOT_S)
    command = ("record", f"test:{reference}", "-o", output, "--force", *machine, *options)
    published.station.run(*command, timeout=_BOOT_S + 60)


def measure(
    key: str, image: str, pair: DiskPair, published: Publication, link: Link, traces: tuple[Path, Path], home: Path
) -> Booted:
    """One client's boot of version 1, then of version 2."""
    client = Client.new(home, published, link)
    with client.mounted(f"near:bench/{image}@1") as file:
        _replay(traces[0], file, pair.old)
    with client.mounted(f"r:bench/{image}@1") as file:
        _replay(traces[0], file, pair.old)
    before = client.cached()
    link.tell("reset")
    with client.mounted(f"r:bench/{image}") as file:
        facts = _replay(traces[1], file, pair.new)
    passed = link.tell()
    frames = frame_lengths(published.tree, pair.new)
    touched = dict(frames[position] for position in _positions(traces[1]) if position in frames)
    missing = {digest: length for digest, length in touched.items() if digest not in before}
    lengths = dict(frames.values())
    untouched = client.cached() & lengths.keys() - before - touched.keys()
    records, index_bytes = _usable_records(published, image, before)
    least = {digest: min(length, records.get(digest, length)) for digest, length in missing.items()}
    return Booted(
        key,
        touched_blocks=len(touched),
        missing_blocks=len(missing),
        frame_bytes=sum(missing.values()),
        least_bytes=sum(least.values()),
        usable_records=sum(least[digest] < missing[digest] for digest in missing),
        index_bytes=index_bytes,
        untouched_blocks=len(untouched),
        untouched_bytes=sum(lengths[digest] for digest in untouched),
        moved_bytes=passed.bytes_down,
        requests=passed.requests,
        seconds=facts["seconds"],
        wrong_reads=facts["wrong"],
    )


def _replay(trace: Path, file: Path, original: Path) -> dict:
    command = [sys.executable, str(ROOT / "bench" / "replay.py"), AS_GUEST, str(trace), str(file), str(original)]
    return json.loads(finish(command, timeout_s=300).output)


def _positions(trace: Path) -> set[int]:
    return {
        position
        for offset, length in reads_of(str(trace))
        for position in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
    }


def _usable_records(published: Publication, image: str, have: set[str]) -> tuple[dict[str, int], int]:
    """Lengths of the records of the version's pack whose old blocks are all there, by digest; its index's length."""
    pack = published.pack(published.manifest(image, "2"))
    if pack is None:
        return {}, 0
    from oscirc_blockstore import delta  # noqa: PLC0415  # here alone

    file, index_length = pack
    with file.open("rb") as stream:
        index = delta.parse_index(stream.read(index_length))
    usable = {
        digest.hex(): record.length
        for digest, record in index.records.items()
        if record.is_rebuildable and all(source.hex() in have for source in record.sources)
    }
    return usable, index_length
