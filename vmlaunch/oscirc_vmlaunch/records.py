"""What an instance writes about itself, as values: its record (`instance.json`) and its last run (`run.json`). Pure.

Both are JSON objects with exactly the fields of the class; anything else is refused with the file's name, so that a
damaged or a newer record is never half understood.
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


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What an instance is: fixed when it is made, but for where its image is mounted.

    `remote`, `reference` and `version` are for people; `manifest_digest` (hex) is what binds the overlay to its image.
    `mount_point` is the folder whose `disk.raw` was last used; `created` is an ISO 8601 time.
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

    def __post_init__(self) -> None:
        check_name(self.name)
        if not _DIGEST.fullmatch(self.manifest_digest):
            raise UsageError(f"{self.manifest_digest!r} is not a hexadecimal SHA-256")
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
    return (json.dumps(asdict(record), indent=1, sort_keys=True) + "\n").encode()


def decode_instance(data: bytes, *, source: Path) -> InstanceRecord:
    """Read `instance.json`; DocumentRefusedError names `source` when it is not one."""

    def build(fields: dict[str, object]) -> InstanceRecord:
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
        )

    return _decode(data, source, build)


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
