"""Picks UEFI firmware by QEMU's own descriptor files and makes an instance's variable store.

The rules are those of QEMU's docs/interop/firmware.json ("Firmware descriptor files"):

- descriptors are `*.json` in `PREFIX/share/qemu/firmware`, `/etc/qemu/firmware` and `$XDG_CONFIG_HOME/qemu/firmware`;
- a file masks those of the same name in the folders before; an empty file only masks;
- what remains is tried in the order of the names.

Of the mappings only `flash` is taken, in its modes `split` (code, and a template of the variables that is copied for
each instance) and `stateless` (code alone); split first. Firmware that needs SMM or comes with keys enrolled is
passed over unless Secure Boot is asked for. A BIOS guest needs none of this: QEMU brings SeaBIOS.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from oscirc_blockstore.errors import MissingProgramError
from oscirc_vmlaunch.machine import MACHINE_TYPES, FirmwareKind, Flash

_DESCRIPTOR_LIMIT_BYTES = 64 * 1024
# Descriptors speak of versioned machine types, the command line of their aliases.
_VERSIONED_TYPES = {"pc": "pc-i440fx-9.9", "q35": "pc-q35-9.9"}
_INSTALL_HINT = "Debian and Ubuntu: apt install ovmf; Fedora: dnf install edk2-ovmf"


@dataclass(frozen=True, slots=True)
class Firmware:
    """One suitable descriptor: where it stands and the files it names."""

    descriptor: Path
    code: Path
    code_format: str
    template: Path | None
    template_format: str
    requires_smm: bool


def descriptor_folders(qemu: Path | None = None) -> list[Path]:
    """Where descriptors may stand, the least important first."""
    prefixes = [Path("/usr"), Path("/usr/local")]
    if qemu is not None and qemu.parent.parent not in prefixes:
        prefixes.append(qemu.parent.parent)
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return [
        *(prefix / "share/qemu/firmware" for prefix in prefixes),
        Path("/etc/qemu/firmware"),
        Path(configuration) / "qemu/firmware",
    ]


def find(
    kind: FirmwareKind,
    architecture: str,
    *,
    machine_type: str = "",
    secure_boot: bool = False,
    folders: Sequence[Path] | None = None,
) -> Firmware | None:
    """The firmware to use, or None where QEMU's built-in one is right (BIOS).

    MissingProgramError when no descriptor fits; it names the descriptors that were looked at.
    """
    if kind == "bios":
        return None
    machine = _VERSIONED_TYPES[machine_type or MACHINE_TYPES[kind]]
    places = descriptor_folders() if folders is None else folders
    seen = list(_unmasked(places))
    fitting = [
        firmware
        for path in seen
        if (firmware := _read(path, architecture=architecture, machine=machine, secure_boot=secure_boot))
    ]
    if not fitting:
        looked_at = ", ".join(path.name for path in seen) or "no descriptors"
        wanted = "UEFI firmware with Secure Boot" if secure_boot else "UEFI firmware"
        raise MissingProgramError(
            f"no {wanted} for {architecture} is installed (found {looked_at} in {', '.join(map(str, places))})",
            hint=_INSTALL_HINT,
        )
    return min(fitting, key=lambda firmware: firmware.template is None)  # stable: split before stateless


def prepare(firmware: Firmware | None, variables: Path) -> Flash | None:
    """Make the instance's own variable store from the template unless it has one already; what the machine needs.

    A store whose size differs from the template's belongs to firmware that was replaced since (the 2 MB and 4 MB builds
    cannot read each other's) and is set aside as `*.old`: the guest starts as after a battery change.
    """
    if firmware is None:
        return None
    if firmware.template is None:
        return Flash(firmware.code, firmware.code_format, None, "", firmware.requires_smm)
    stale = (
        variables.exists()
        and firmware.template_format == "raw"
        and variables.stat().st_size != firmware.template.stat().st_size
    )
    if stale:
        variables.rename(variables.with_name(f"{variables.name}.old"))
    if not variables.exists():
        _copy(firmware.template, variables)
    return Flash(firmware.code, firmware.code_format, variables, firmware.template_format, firmware.requires_smm)


def _unmasked(folders: Iterable[Path]) -> Iterator[Path]:
    chosen: dict[str, Path] = {}
    for folder in folders:
        chosen.update({path.name: path for path in folder.glob("*.json")})
    return (path for _, path in sorted(chosen.items()))


def _read(path: Path, *, architecture: str, machine: str, secure_boot: bool) -> Firmware | None:
    """The firmware that a descriptor describes, or None when it does not fit or cannot be understood."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_DESCRIPTOR_LIMIT_BYTES))
        features = set(_strings(document["features"]))
        mapping = cast("dict[str, object]", document["mapping"])
        fits = (
            "uefi" in document["interface-types"]
            and mapping["device"] == "flash"
            and mapping.get("mode", "split") in ("split", "stateless")
            and any(_targets(target, architecture, machine) for target in document["targets"])
            and (("secure-boot" in features) if secure_boot else not features & {"requires-smm", "enrolled-keys"})
        )
        if not fits:
            return None
        code, code_format = _file(mapping["executable"])
        template, template_format = (None, "")
        if mapping.get("mode", "split") == "split":
            template, template_format = _file(mapping["nvram-template"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Firmware(path, code, code_format, template, template_format, "requires-smm" in features)


def _targets(target: dict[str, object], architecture: str, machine: str) -> bool:
    globs = _strings(target["machines"])
    return target["architecture"] == architecture and any(fnmatch.fnmatchcase(machine, glob) for glob in globs)


def _file(value: object) -> tuple[Path, str]:
    """A FirmwareFlashFile: an existing file in a format that a flash node may have; ValueError otherwise."""
    described = cast("dict[str, str]", value)
    path, form = Path(described["filename"]), described["format"]
    if form not in ("raw", "qcow2") or not path.is_file():
        raise ValueError(value)
    return path, form


def _strings(value: object) -> list[str]:
    return [item for item in cast("list[object]", value) if isinstance(item, str)]


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that the target appears whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output, source.open("rb") as original:
            shutil.copyfileobj(original, output)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
