"""What running mounts say of themselves, as flat facts with units in their names: what `status` and `metrics` show.

A driver may be older or newer than this command: what it does not tell counts as nothing, not as an error.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc_blockstore.errors import LocalError, OscircError

if TYPE_CHECKING:
    from oscirc_fusedriver.records import MountRecord
    from oscirc_fusedriver.status import MountStatus

_DYING_S = 0.5
Facts = dict[str, object]


def number(facts: Facts, name: str) -> float:
    """A fact that is a number; 0 where it is not there."""
    value = facts.get(name, 0)
    return value if isinstance(value, int | float) else 0


def whole(facts: Facts, name: str) -> int:
    """The same where it is a count."""
    return int(number(facts, name))


def mirrors_of(facts: Facts) -> list[Facts]:
    """The mirrors among a mount's facts."""
    mirrors = facts.get("mirrors")
    return [mirror for mirror in mirrors if isinstance(mirror, dict)] if isinstance(mirrors, list) else []


def percent(part: int, whole_: int) -> int:
    """Rounded down, so that 100 means all; of nothing all is there."""
    return 100 * part // whole_ if whole_ else 100


def running(record: MountRecord) -> Facts:
    """The facts of one mount; asks its driver, and raises `LocalError` when that died or does not answer."""
    from oscirc_fusedriver import control_client

    if not record.process.alive():
        raise LocalError(f"the driver of {record.mountpoint} died", hint=f"run: oscirc umount {record.mountpoint}")
    return described(record, control_client.status(record))


def described(record: MountRecord, status: MountStatus) -> Facts:
    """The facts in a driver's answer."""
    reader, driver = status.reader, status.driver
    cache = reader["cache"]
    needed, cached = reader["blocks_needed"], reader["blocks_cached"]
    ahead, used = cache["prefetched_blocks"], cache["prefetch_hits"]
    problem = _offline_problem(f"{record.remote}:{record.image}@sha256:{record.manifest_digest}")
    return {
        "mountpoint": record.mountpoint,
        "image": f"{record.image}@{record.version}" if record.version else record.image,
        "remote": record.remote,
        "manifest": record.manifest_digest,
        "pid": record.pid,
        "uptime_s": round(status.uptime_s, 1),
        "disk_bytes": reader["disk_size"],
        "block_size": reader["block_size"],
        "needed_bytes": reader["bytes_needed"],
        "cached_bytes": reader["bytes_cached"],
        "needed_blocks": needed,
        "cached_blocks": cached,
        "cached_percent": percent(cached, needed),
        "surveyed": reader["surveyed"],
        "safe_to_unplug": reader["surveyed"] and cached == needed,
        "ready_to_boot": reader.get("ready_to_boot"),
        "profile_blocks": reader.get("profile_blocks"),
        "profile_blocks_cached": reader.get("profile_blocks_cached"),
        "fetched_bytes": reader["received_bytes"],
        "requests": reader["requests"],
        "demand_stalls": reader["demand_stalls"],
        "stalled_ms": reader["stalled_ms"],
        "worst_stall_ms": reader["worst_stall_ms"],
        "waiting_reads": reader.get("waiting_reads", 0),
        "network_problem": reader.get("network_problem", ""),
        "network_gone_s": reader.get("network_gone_s", 0.0),
        "fetched_blocks": cache["fetched_blocks"],
        "fetched_nodes": cache["fetched_nodes"],
        "memory_hits": cache["memory_hits"],
        "file_hits": cache["file_hits"],
        "prefetched_blocks": ahead,
        "prefetched_bytes": cache["prefetched_bytes"],
        "prefetch_hits": used,
        "prefetch_waste": ahead - used,
        "prefetch_waste_percent": percent(ahead - used, ahead) if ahead else 0,
        "prefetch": reader["prefetch"],
        "packs": reader["packs"],
        "failed_reads": reader["failed_reads"],
        "damaged": cache["damaged"],
        "uncached_writes": cache["uncached_writes"],
        "last_write_problem": cache["last_write_problem"],
        "read_calls": driver.reads,
        "read_calls_inline": driver.inline,
        "read_errors": driver.errors,
        "last_error": driver.last_error,
        "read_ahead_kb": status.read_ahead_kb,
        "opens_offline": not problem,
        "offline_problem": problem,
        "mirrors": cache["mirrors"],
    }


def of(record: MountRecord) -> Facts:
    """The facts of a mount; with `stale` or `error` instead where its driver died or does not answer."""
    named: Facts = {"mountpoint": record.mountpoint, "remote": record.remote, "image": record.image}
    if not record.process.alive():
        return {**named, "stale": True}
    try:
        return {**running(record), "stale": False}
    except OscircError as error:
        if record.process.wait(_DYING_S):  # one that is killed stops answering before it counts as dead
            return {**named, "stale": True}
        return {**named, "stale": False, "error": str(error)}


def of_all() -> list[Facts]:
    """Those of every mount there is."""
    from oscirc_fusedriver import records

    return [of(record) for record in records.list_records()]


def of_reference(text: str) -> Facts | None:
    """Those of the mount of what a reference means here, else `unmounted`; None for what was never resolved here."""
    facts = unmounted(text)
    return facts if facts is None else _mounted(str(facts["manifest"])) or facts


def _mounted(manifest: str) -> Facts | None:
    """Those of the first mount of a manifest that runs and answers; raises `LocalError` where none that runs does."""
    from oscirc_fusedriver import records

    alive = [
        record for record in records.list_records() if record.manifest_digest == manifest and record.process.alive()
    ]
    for record in alive:
        with contextlib.suppress(OscircError):
            return running(record)
    return running(alive[0]) if alive else None


def unmounted(text: str) -> Facts | None:
    """What is here of an image that was resolved here before, whoever has it mounted; None for anything else."""
    from oscirc import hoarding
    from oscirc_blockstore.errors import NameRefusedError, NotFoundError
    from oscirc_remote import paths, readiness
    from oscirc_remote.pins import Pins
    from oscirc_remote.resolving import resolve

    try:
        resolved = resolve(text, offline=True, allow_revoked=True)
    except (NameRefusedError, NotFoundError):
        return None
    manifest, digest = resolved.manifest, resolved.manifest_digest
    here = readiness.look(paths.cache_directory(), digest, manifest, hoarding.profile())
    problem = _offline_problem(text)
    return {
        "mounted": False,
        "image": f"{resolved.publisher}/{resolved.image}@{resolved.version_label}",
        "remote": resolved.remote.name,
        "manifest": digest.hex(),
        "disk_bytes": manifest.geometry.disk_size,
        "block_size": manifest.geometry.block_size,
        "needed_blocks": here.blocks,
        "needed_bytes": here.blocks * manifest.geometry.block_size,
        "cached_blocks": here.blocks_here,
        "cached_bytes": here.blocks_here * manifest.geometry.block_size,
        "cached_percent": percent(here.blocks_here, here.blocks),
        "profile_blocks": here.profile.total,
        "profile_blocks_cached": here.profile.here,
        "opens_offline": not problem,
        "offline_problem": problem,
        "ready_to_boot": here.is_ready_to_boot and not problem,
        "safe_to_unplug": here.is_complete and not problem,
        "pinned": any(pin.digest == digest for pin in Pins().list()),
        "warnings": list(resolved.warnings),
    }


def _offline_problem(text: str) -> str:
    """Why what is verified here would not be opened without network; nothing where it would."""
    from oscirc_remote.resolving import resolve

    try:
        resolve(text, offline=True)
    except OscircError as error:
        return str(error)
    return ""


def is_complete(mountpoint: str) -> bool:
    """Whether all blocks of what is mounted there are on this machine; no where nobody can tell."""
    facts = at(mountpoint)
    return bool(facts.get("surveyed")) and facts.get("cached_blocks") == facts.get("needed_blocks")


def at(mountpoint: str) -> Facts:
    """Those of the mount there; a mount that is gone without a trace counts as one whose driver died."""
    from oscirc_fusedriver import records

    record = records.find(Path(mountpoint))
    return {"stale": True} if record is None else of(record)


def find_record(what: str) -> MountRecord | None:
    """The mount at a path, or else that of the instance of this name; None where there is neither."""
    from oscirc_blockstore.errors import NameRefusedError, NotFoundError
    from oscirc_fusedriver import records
    from oscirc_vmlaunch.instances import Instances

    record = records.find(Path(what))
    if record is not None or "/" in what:
        return record
    try:
        return records.find(Path(Instances().load(what).record.mount_point))
    except (NotFoundError, NameRefusedError):
        return None
