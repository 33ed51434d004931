"""System layers: what an instance wrote on one version of its image, set aside when it moves to another.

A layer is an overlay and the UEFI variables beside it. Its files never move: the record names the layer that is in
use and those that are kept, so that replacing the record is the whole of a move, and an interruption leaves the
instance as it was or as it is to be. Files of layers that no record names any more are removed afterwards.

- Only a stopped instance changes layers: every function here takes the instance's lock, and reads its record again.
- Nothing that was written goes without being asked for: a move sets it aside, and so does going back. At most
  `LAYERS_KEPT` are kept; for one more, those that hold nothing go first, then the oldest. `going` tells beforehand.
- The data disk belongs to no layer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from oscirc_blockstore.errors import BusyError, NotFoundError, UsageError
from oscirc_vmlaunch import overlays
from oscirc_vmlaunch.instances import Instance
from oscirc_vmlaunch.machine import FirmwareKind
from oscirc_vmlaunch.records import InstanceRecord, KeptLayer

LAYERS_KEPT = 2
_FILE = re.compile(r"(?:overlay(?:-([1-9]\d{0,9}))?\.qcow2|vars(?:-([1-9]\d{0,9}))?\.fd)")
_SECTOR_BYTES = 512  # of st_blocks


@dataclass(frozen=True, slots=True)
class Base:
    """A version that an instance may stand on: what its record needs to know of it."""

    manifest_digest: str
    version: str
    firmware: FirmwareKind
    architecture: str
    minimum_memory_mib: int


def occupied_bytes(instance: Instance, layer: int | None = None) -> int:
    """The room on disk that a layer takes, the one in use unless given."""
    number = instance.record.layer if layer is None else layer
    return sum(map(room, (instance.overlay_of(number), instance.variables_of(number))))


def room(path: Path) -> int:
    """The bytes on disk that a file takes; 0 where there is none."""
    try:
        return path.stat().st_blocks * _SECTOR_BYTES
    except FileNotFoundError:
        return 0


def going(record: InstanceRecord) -> tuple[KeptLayer, ...]:
    """The layers that would no longer be kept after one more is set aside."""
    return tuple(_split(record.kept, LAYERS_KEPT - 1)[1])


def move(
    instance: Instance, base: Base, *, reference: str, may_set_aside: bool, now: datetime | None = None
) -> Instance:
    """Put the instance on another version, on a new layer; the old one is set aside.

    BusyError while it runs, and where it holds writes although nobody said that they may be set aside.
    """
    with _changing(instance) as current:
        record = current.record
        if base.manifest_digest == record.manifest_digest:
            return current.become(dataclasses.replace(record, reference=reference, version=base.version))
        if overlays.is_written(current.overlay) and not may_set_aside:
            raise BusyError(f"{current.name} was started just now, and has written", hint="try again")
        old = _set_aside(current, by_update=True, now=now)
        kept, _ = _split(record.kept, LAYERS_KEPT - 1)
        changed = dataclasses.replace(
            record,
            reference=reference,
            manifest_digest=base.manifest_digest,
            version=base.version,
            firmware=base.firmware,
            architecture=base.architecture,
            memory_mib=max(record.memory_mib, base.minimum_memory_mib),
            layer=_next_number(record),
            kept=(*kept, old),
        )
        return _swept(current.become(changed))


def find(record: InstanceRecord, version: str | None = None) -> KeptLayer:
    """The layer to go back to: of that version (or digest), else the one that the last update set aside."""
    wanted = (version or "").removeprefix("sha256:")
    for layer in reversed(record.kept):
        if layer.by_update if version is None else wanted in (layer.version, layer.manifest_digest):
            return layer
    held = ", ".join(layer.version or f"sha256:{layer.manifest_digest[:12]}…" for layer in record.kept)
    what = "before its last update" if version is None else f"of version {version}"
    raise NotFoundError(
        f"{record.name} keeps no system {what}",
        hint=f"kept are: {held}; choose with --to VERSION" if held else "nothing was set aside by an update of it",
    )


def go_back(instance: Instance, layer: KeptLayer, *, now: datetime | None = None) -> Instance:
    """Use a layer again that was set aside; what is in use is set aside in its place, if it holds writes.

    What the instance follows stays as it is. BusyError while it runs, NotFoundError where the layer's overlay is gone.
    """
    with _changing(instance) as current:
        record = current.record
        if layer not in record.kept:
            raise BusyError(f"another command changed {current.name} just now", hint="try again")
        if layer.was_written and not current.overlay_of(layer.number).exists():
            raise NotFoundError(f"what was set aside of {current.name} is gone: {current.overlay_of(layer.number)}")
        kept = [each for each in record.kept if each != layer]
        if overlays.is_written(current.overlay):
            kept = [*_split(kept, LAYERS_KEPT - 1)[0], _set_aside(current, by_update=False, now=now)]
        changed = dataclasses.replace(
            record,
            manifest_digest=layer.manifest_digest,
            version=layer.version,
            firmware=layer.firmware,
            architecture=layer.architecture,
            layer=layer.number,
            kept=tuple(kept),
        )
        return _swept(current.become(changed))


def reset(instance: Instance) -> Instance:
    """Begin on the same version anew: what was written in the layer in use is gone, what is kept stays."""
    with _changing(instance) as current:
        return _swept(current.become(dataclasses.replace(current.record, layer=_next_number(current.record))))


def follow(instance: Instance, reference: str) -> Instance:
    """Let the instance follow another channel, or a version, from now on; its system stays as it is."""
    with _changing(instance) as current:
        return current.become(dataclasses.replace(current.record, reference=reference))


async def add_data_disk(instance: Instance, size_bytes: int) -> Instance:
    """Give the instance a data disk of this size; one that it has already must be of it."""
    if size_bytes % _SECTOR_BYTES:
        raise UsageError(f"a disk of {size_bytes} bytes is no whole number of {_SECTOR_BYTES}-byte sectors")
    with _changing(instance) as current:
        has = current.record.data_disk_bytes
        if has == size_bytes:
            return current
        if has:
            raise UsageError(f"{current.name} has a data disk of {has} bytes already", hint="leave --data-disk out")
        await overlays.create_data_disk(current.data_disk, size_bytes)
        return current.become(dataclasses.replace(current.record, data_disk_bytes=size_bytes))


@contextlib.contextmanager
def _changing(instance: Instance) -> Iterator[Instance]:
    with instance.lock():
        yield instance.reloaded()


def _set_aside(instance: Instance, *, by_update: bool, now: datetime | None) -> KeptLayer:
    record = instance.record
    return KeptLayer(
        number=record.layer,
        manifest_digest=record.manifest_digest,
        version=record.version,
        firmware=record.firmware,
        architecture=record.architecture,
        was_written=overlays.is_written(instance.overlay),
        by_update=by_update,
        set_aside=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
    )


def _next_number(record: InstanceRecord) -> int:
    return 1 + max(record.layer, *(layer.number for layer in record.kept), 0)


def _split(kept: tuple[KeptLayer, ...] | list[KeptLayer], room_for: int) -> tuple[list[KeptLayer], list[KeptLayer]]:
    """Those that stay and those that go, when there is room for so many."""
    surplus = max(0, len(kept) - room_for)
    gone = sorted(kept, key=lambda layer: layer.was_written)[:surplus]  # stable: of equals the oldest
    return [layer for layer in kept if layer not in gone], gone


def _swept(instance: Instance) -> Instance:
    """Remove the files of layers that the record does not name; also those that an interruption left."""
    record = instance.record
    named = {record.layer, *(layer.number for layer in record.kept)}
    for path in instance.directory.iterdir():
        found = _FILE.fullmatch(path.name)
        if found is not None and int(found[1] or found[2] or 0) not in named:
            path.unlink(missing_ok=True)
    return instance
