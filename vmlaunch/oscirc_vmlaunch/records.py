"""What an instance writes about itself, as values: its record (`instance.json`) and its last run (`run.json`). Pure.

Both are JSON objects with exactly the fields of the class; anything else is refused with the file's name, so that a
damaged or a newer record is never half understood. `instance.json` names its format; one that names none is of the
first, which knew no layers and no data disk, and is written anew in the second when it changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError, UsageError
from oscirc_vmlaunch.accelerators import Request
from oscirc_vmlaunch.machine import Accelerator, FirmwareKind, PortForward
from oscirc_vmlaunch.processes import ProcessIdentity

_T = TypeVar("_T")

RECORD_LIMIT_BYTES = 64 * 1024
NAME_LIMIT = 63
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
FORMAT = "oscirc-instance-2"
KEPT_LIMIT = 16
_LARGEST_LAYER = 10**9


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A system layer that was set aside: which files hold it, on which version it stands, and why and when it went.

    `was_written`: its overlay holds writes, so that without the file it must not be gone back to. `by_update` tells
    what an update left from what a rollback left; `set_aside` is an ISO 8601 time.
    """

    number: int
    manifest_digest: str
    version: str
    firmware: FirmwareKind
    architecture: str
    was_written: bool
    by_update: bool
    set_aside: str

    def __post_init__(self) -> None:
        _check_digest(self.manifest_digest)
        _check_layer(self.number)


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What an instance is.

    `reference` is what it was booted from, and so what it follows: a channel, or nothing where it names a version or a
    digest. `remote` and `version` are for people; `manifest_digest` (hex) is what binds the overlay to its image.
    `mount_point` is the folder whose `disk.raw` was last used; `created` is an ISO 8601 time. `layer` is the number of
    its system layer (overlay and UEFI variables), `kept` those that were set aside, the last one last.
    `data_disk_bytes` is the size of its second disk; 0 where it has none.
    """

    name: str
    remote: str
    reference: str
    manifest_digest: str
    version: str
    firmware: FirmwareKind
    architecture: str
    memory_mib: int
    cpus: int
    accelerator: Request
    mount_point: str
    created: str
    port_forwards: tuple[PortForward, ...] = ()
    ephemeral: bool = False
    layer: int = 0
    kept: tuple[KeptLayer, ...] = ()
    data_disk_bytes: int = 0

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_digest(self.manifest_digest)
        _check_layer(self.layer)
        numbers = {self.layer, *(each.number for each in self.kept)}
        if len(self.kept) > KEPT_LIMIT or len(numbers) != len(self.kept) + 1 or self.data_disk_bytes < 0:
            raise UsageError("its layers have one number twice, are too many, or its data disk has an impossible size")
        if self.firmware not in get_args(FirmwareKind) or self.accelerator not in get_args(Request):
            raise UsageError(f"firmware {self.firmware!r} or accelerator {self.accelerator!r} is unknown")
        if self.memory_mib < 1 or self.cpus < 1:
            raise UsageError("an instance needs at least 1 MiB of memory and one CPU")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The instance's last start: which process, on which accelerator and why, on which disk, when (ISO 8601)."""

    process: ProcessIdentity
    accelerator: Accelerator
    accelerator_reason: str
    disk: str
    started: str


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest!r} is not a hexadecimal SHA-256")


def _check_layer(number: int) -> None:
    if not 0 <= number <= _LARGEST_LAYER:
        raise UsageError(f"{number} cannot be the number of a layer")


def check_name(name: str) -> str:
    """The name itself, if an instance may be called so."""
    if not _NAME.fullmatch(name):
        raise NameRefusedError(
            f"{name!r} cannot name an instance",
            hint="use up to 63 of a-z, 0-9, '.' and '-', the first a letter or a digit",
        )
    return name


def encode(record: InstanceRecord | RunRecord) -> bytes:
    """A record as the bytes of its file."""
    fields = asdict(record)
    if isinstance(record, InstanceRecord):
        fields["format"] = FORMAT
    return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()


def decode_instance(data: bytes, *, source: Path) -> InstanceRecord:
    """Read `instance.json`; DocumentRefusedError names `source` when it is not one."""

    def build(fields: dict[str, object]) -> InstanceRecord:
        layer, kept, data_disk_bytes = _second_format(fields)
        forwards = cast("list[dict[str, object]]", fields.pop("port_forwards"))
        return InstanceRecord(
            name=_text(fields.pop("name")),
            remote=_text(fields.pop("remote")),
            reference=_text(fields.pop("reference")),
            manifest_digest=_text(fields.pop("manifest_digest")),
            version=_text(fields.pop("version")),
            firmware=cast("FirmwareKind", _text(fields.pop("firmware"))),
            architecture=_text(fields.pop("architecture")),
            memory_mib=_number(fields.pop("memory_mib")),
            cpus=_number(fields.pop("cpus")),
            accelerator=cast("Request", _text(fields.pop("accelerator"))),
            mount_point=_text(fields.pop("mount_point")),
            created=_text(fields.pop("created")),
            port_forwards=tuple(
                PortForward(
                    _number(one["host"]), _number(one["guest"]), cast("Literal['tcp', 'udp']", _text(one["protocol"]))
                )
                for one in forwards
            ),
            ephemeral=fields.pop("ephemeral") is True,
            layer=layer,
            kept=kept,
            data_disk_bytes=data_disk_bytes,
        )

    return _decode(data, source, build)


def _second_format(fields: dict[str, object]) -> tuple[int, tuple[KeptLayer, ...], int]:
    """What the first format did not have: the layer, those set aside, and the size of the data disk."""
    form = fields.pop("format", None)
    if form is None:
        return 0, (), 0
    if form != FORMAT:
        raise ValueError(f"its format is {str(form)[:40]!r}")
    kept = cast("list[dict[str, object]]", fields.pop("kept"))
    return (
        _number(fields.pop("layer")),
        tuple(_kept_layer(dict(each)) for each in kept),
        _number(fields.pop("data_disk_bytes")),
    )


def _kept_layer(fields: dict[str, object]) -> KeptLayer:
    layer = KeptLayer(
        number=_number(fields.pop("number")),
        manifest_digest=_text(fields.pop("manifest_digest")),
        version=_text(fields.pop("version")),
        firmware=cast("FirmwareKind", _text(fields.pop("firmware"))),
        architecture=_text(fields.pop("architecture")),
        was_written=fields.pop("was_written") is True,
        by_update=fields.pop("by_update") is True,
        set_aside=_text(fields.pop("set_aside")),
    )
    if fields:
        raise ValueError(f"fields of a layer that are not known: {', '.join(sorted(fields))}")
    if layer.firmware not in get_args(FirmwareKind):
        raise ValueError(f"firmware {layer.firmware!r} is unknown")
    return layer


def decode_run(data: bytes, *, source: Path) -> RunRecord:
    """Read `run.json`; DocumentRefusedError names `source` when it is not one."""

    def build(fields: dict[str, object]) -> RunRecord:
        process = cast("dict[str, object]", fields.pop("process"))
        return RunRecord(
            process=ProcessIdentity(
                _number(process["pid"]), _number(process["start_ticks"]), _text(process["boot_id"])
            ),
            accelerator=cast("Accelerator", _text(fields.pop("accelerator"))),
            accelerator_reason=_text(fields.pop("accelerator_reason")),
            disk=_text(fields.pop("disk")),
            started=_text(fields.pop("started")),
        )

    return _decode(data, source, build)


def _decode(data: bytes, source: Path, build: Callable[[dict[str, object]], _T]) -> _T:
    reason: object = "it is too long"
    if len(data) <= RECORD_LIMIT_BYTES:
        try:
            fields = cast("dict[str, object]", json.loads(data))
            record = build(fields)
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            reason = repr(error)
        else:
            if not fields:
                return record
            reason = f"fields that are not known: {', '.join(sorted(fields))}"
    raise DocumentRefusedError(
        f"{source} is damaged or was written by a newer oscirc ({reason})",
        hint=f"oscirc rm {source.parent.name} removes the instance",
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value
