"""How to run a version: commands that do what they say as they stand, pasted into a terminal that has nothing prepared.

- With oscirc the repository is added in the same line; adding what is there already changes nothing.
- Plain QEMU uses KVM where it can and emulates where it cannot, shows the serial console in the terminal as oscirc
  does, and keeps what the guest writes in the downloaded file. What is made for a desktop has its window besides.
- What oscirc cannot boot (another processor than x86_64) is not offered to be booted; it can be fetched and verified.
- Every word that comes from a publisher or an operator is quoted for a shell.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from oscirc_server.initialising import API_PATH
from oscirc_server.services.catalog import ImageFacts, VersionFacts

_BOOTABLE: Final = "x86_64"
_OVMF: Final = "/usr/share/ovmf/OVMF.fd"
_LEAST_MEMORY_MIB: Final = 1024
_DESKTOP: Final = "desktop"
_ADDS_AND_FETCHES: Final = "adds this repository, and fetches all of it to boot without network"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run an image: a tab with commands, each with what it does, and addresses to fetch by hand."""

    key: str
    label: str
    note: str
    steps: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...] = ()


def ways(image: ImageFacts, version: VersionFacts, remote: str, local_name: str) -> list[Way]:
    """All of them; `remote` is the repository's URL with its pin, `local_name` what a reader may call it."""
    base = remote.partition("#")[0].rstrip("/")
    disk = f"{base}/{API_PATH}/images/{image.publisher}/{image.image}/versions/{version.label}/disk"
    here = f"{local_name}:{image.reference}"
    add = f"oscirc remote add {local_name} {shlex.quote(remote)}"
    return [
        _with_oscirc(image, version, add, here),
        _with_qemu(image, version, disk),
        Way(
            "download",
            "download",
            "Every byte as the virtual machine sees it; zeros cost nothing in qcow2. Or, verified, for oscirc.",
            ((_ADDS_AND_FETCHES, f"{add} && oscirc pull {here}"),),
            (("qcow2", f"{disk}.qcow2"), ("raw", f"{disk}.raw")),
        ),
    ]


def _with_oscirc(image: ImageFacts, version: VersionFacts, add: str, here: str) -> Way:
    if version.system.architecture != _BOOTABLE:
        note = f"oscirc boots {_BOOTABLE} so far: this system it can fetch and verify, not run."
        return Way("oscirc", "oscirc", note, ((_ADDS_AND_FETCHES, f"{add} && oscirc pull {here}"),))
    return Way(
        "oscirc",
        "oscirc",
        "Boots before it is downloaded, fetches only what is read, verifies every block. The guest's serial console is"
        " your terminal; Ctrl-] leaves the guest running.",
        (
            ("adds this repository, and boots", f"{add} && oscirc boot {here}"),
            ("starts the same machine again, with what it wrote", f"oscirc boot {image.image}"),
        ),
    )


def _with_qemu(image: ImageFacts, version: VersionFacts, disk: str) -> Way:
    system, file = version.system, f"{image.publisher}-{image.image}-{version.label}.qcow2"
    note = "The whole disk first. Nothing of it is verified but by the connection."
    fetch = ("downloads the disk", f"curl -fo {shlex.quote(file)} {shlex.quote(disk + '.qcow2')}")
    if system.architecture != _BOOTABLE:
        note += f" How a machine with the processor {system.architecture} is started depends on its board."
        return Way("qemu", "plain QEMU", note, (fetch,))
    words = ["qemu-system-x86_64", "-accel", "kvm", "-accel", "tcg", "-cpu", "max,la57=off", "-smp", "2"]
    words += ["-m", str(max(system.minimum_memory_mib, _LEAST_MEMORY_MIB))]
    if system.firmware == "uefi":
        words += ["-machine", "q35", "-bios", _OVMF]
        note += " Its firmware is in Debian's and Ubuntu's package ovmf."
    words += ["-drive", f"file={file},if=virtio,format=qcow2", "-nic", "user,model=virtio", "-device", "virtio-rng-pci"]
    if image.about.kind == _DESKTOP:
        words += ["-serial", "mon:stdio"]
        note += " The guest has a window, and its serial console is your terminal; Ctrl-A X ends it."
    else:
        words += ["-nographic"]
        note += " The guest's serial console is your terminal; Ctrl-A X ends it. Without -nographic it has a window."
    return Way("qemu", "plain QEMU", note, (fetch, ("boots it", shlex.join(words))))
