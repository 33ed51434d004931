"""What a job's process makes: one file, out of what the database and the store of this server hold.

It reads both and writes to neither. The makers are those that publishers use, so that the same versions give the same
file; whoever lists it judges it as if a stranger had sent it.

A fleet's bundle is made under more conditions, since clients take it unasked: runs of enough networks; at least
`LEAST_SHARED` of the blocks of the profile that the publisher recorded under that name; and, where one is listed,
blocks that differ from its by more than `LEAST_CHANGE`.
"""

from __future__ import annotations

import shutil
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from oscirc_blockstore import bundle, bundle_making, delta, profile
from oscirc_blockstore.accelerators import BUNDLE, DELTA, FLEET_PREFIX, PROFILE, Accelerator, Listing
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, UsageError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import NODE_SIZE
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators, blocks
from oscirc_server.services.job_plans import LEAST_NETWORKS
from oscirc_server.services.jobs import BUNDLE_JOB, DELTA_JOB, Wanted
from oscirc_server.stored_blocks import StoredBlocks

LEAST_SHARED = 0.5
LEAST_CHANGE = 0.1
NO_NUMPY = "delta packs are made with numpy, which is not installed at this server"
NO_NUMPY_HINT = "install numpy there, or oscirc with its extra: oscirc[delta]"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, or, with an empty `kind`, why nothing was; `facts` are for whoever asked."""

    kind: str = ""
    name: str = ""
    facts: dict[str, object] = field(default_factory=dict)


def make(installation: Installation, wanted: Wanted, target: Path, *, threads: int) -> Made:
    """Make what is wanted and write it to `target`."""
    if wanted.kind == DELTA_JOB:
        return _make_delta(installation, wanted, target, threads)
    if wanted.kind == BUNDLE_JOB:
        return _make_bundle(installation, wanted, target, threads)
    raise UsageError(f"no process makes a {wanted.kind[:16]!r}")


def _make_delta(installation: Installation, wanted: Wanted, target: Path, threads: int) -> Made:
    try:
        from oscirc_blockstore import delta_making  # noqa: PLC0415  # numpy is an extra
    except ModuleNotFoundError:
        raise UsageError(NO_NUMPY, hint=NO_NUMPY_HINT) from None
    with installation.database.read() as session:
        old = delta_making.Version(*accelerators.manifest_of(session, wanted.publisher, wanted.image, wanted.argument))
        new = delta_making.Version(*accelerators.manifest_of(session, *wanted.names))
        listed = accelerators.listing(session, new.digest)
    name = delta.name_for(old.digest)
    if listed.find(DELTA, name) is not None:
        return Made(facts={"nothing": "there is one already"})
    load = StoredBlocks(installation.storage).load
    whole_length = delta_making.stated_whole_length(partial(_stored_length, installation))
    with delta_making.made_pack(old, new, load, whole_length, workers=threads) as pack:
        _copy(pack.file, target)
        facts = {"blocks": pack.blocks, "records": pack.records, "whole_bytes": pack.whole_bytes}
        return Made(DELTA, name, dict(facts))


def _stored_length(installation: Installation, digest: Digest) -> int | None:
    with installation.database.read() as session:
        stored = blocks.stored(session, [digest])
    return stored[digest].stored_length if digest in stored else None


def _make_bundle(installation: Installation, wanted: Wanted, target: Path, threads: int) -> Made:
    with installation.database.read() as session:
        digest, manifest = accelerators.manifest_of(session, *wanted.names)
        listed = accelerators.listing(session, digest)
        recorded = _recorded(installation, listed, wanted.argument)
    stored = StoredBlocks(installation.storage)
    if wanted.argument.startswith(FLEET_PREFIX):
        reason = _unwanted(installation, manifest, listed, recorded)
        if reason:
            return Made(facts={"nothing": reason})
    with bundle_making.built_bundle(
        recorded, manifest, lambda block, raw_size, _position: stored.load(block, raw_size), workers=threads
    ) as built:
        _copy(built.file, target)
        return Made(BUNDLE, recorded.name, {"blocks": built.blocks, "raw_bytes": built.raw_bytes})


def _recorded(installation: Installation, listed: Listing, name: str) -> Profile:
    found = listed.find(PROFILE, name)
    raw = None if found is None else installation.storage.get(found.path, profile.MAX_PROFILE_BYTES)
    if found is None or raw is None:
        raise NotFoundError(f"the version has no profile called {name}")
    verify(raw, found.sha256)
    return profile.parse(raw)


def _unwanted(installation: Installation, manifest: Manifest, listed: Listing, fleet: Profile) -> str:
    """Why the bundle of a fleet is not to be made; empty where it is."""
    if fleet.runs < LEAST_NETWORKS:
        return f"boots of {fleet.runs} networks are known; {LEAST_NETWORKS} are needed"
    wanted = set(fleet.positions)
    own = fleet.name.removeprefix(FLEET_PREFIX)
    if listed.find(PROFILE, own) is not None:
        recorded = set(_recorded(installation, listed, own).positions)
        if len(wanted & recorded) < LEAST_SHARED * len(recorded):
            return f"it has {len(wanted & recorded)} of the {len(recorded)} blocks of the publisher's {own}"
    before = listed.find(BUNDLE, fleet.name)
    if before is None:
        return ""
    stored = StoredBlocks(installation.storage)
    _, places = bundle_making.contents(fleet, manifest, lambda block, size, _position: stored.load(block, size))
    change = _change(_blocks_of(installation, before, manifest), places.keys())
    return "" if change > LEAST_CHANGE else f"{change:.0%} of its blocks are others than before"


def _blocks_of(installation: Installation, listed: Accelerator, manifest: Manifest) -> set[Digest]:
    most = bundle.bounds(manifest.geometry, manifest.data_blocks).entries
    raw = installation.storage.get_range(listed.path, 0, min(listed.index_length, bundle.MAX_INDEX_BYTES))
    try:
        index = bundle.parse_index(raw or b"", most)
    except DocumentRefusedError:  # it is to be replaced, whatever happened to it
        return set()
    return {entry.digest for segment in index.segments for entry in segment.entries if entry.raw_size != NODE_SIZE}


def _change(before: AbstractSet[Digest], after: AbstractSet[Digest]) -> float:
    return len(before ^ after) / max(1, len(before), len(after))


def _copy(file: IO[bytes], target: Path) -> None:
    file.seek(0)
    with target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
