"""The virtual machine as a value, and the QEMU command line it means. Pure: nothing is opened or run here.

The disk is a chain of four named nodes, each stated in full, so that the strings in any header are never followed:

    overlay (qcow2) -> overlay-file (the instance's own file)
       `-- backing: base (raw) -> base-file (the mounted disk.raw, read-only, through the host's page cache)

- `base-file` says `cache.direct=off`: O_DIRECT would lose the page cache that the FUSE driver fills.
- `rerror=stop` and `werror=stop` (a write to part of a cluster reads the backing file first): when the network is
  gone the guest pauses instead of seeing an I/O error.
- A data disk is a second virtio disk with a serial number of its own (`/dev/disk/by-id/virtio-oscirc-data` on Linux).
- JSON is used where QEMU takes it (`-blockdev`); commas in other paths are doubled, QEMU's own escape.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oscirc_blockstore.errors import UsageError

Accelerator = Literal["kvm", "tcg"]
FirmwareKind = Literal["bios", "uefi"]
Display = Literal["none", "gtk", "sdl"]
Node = dict[str, object]

DISK_DEVICE, DATA_DEVICE = "disk", "data"
DATA_SERIAL = "oscirc-data"
BASE_FILE_NODE, BASE_NODE, OVERLAY_FILE_NODE, OVERLAY_NODE = "base-file", "base", "overlay-file", "overlay"
BASE_DESCRIPTOR_SET = 1
DATA_NODE = "data-disk"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# i440fx is what old systems know; UEFI firmware is built for both, and new systems expect PCI Express.
MACHINE_TYPES: dict[FirmwareKind, str] = {"bios": "pc", "uefi": "q35"}
# Everything the emulator can do but 5-level page tables, which trip old boot loaders and gain a small guest nothing.
CPU_MODELS: dict[Accelerator, str] = {"kvm": "host", "tcg": "max,la57=off"}

_DEFAULT_MEMORY_MIB = 1024
_DEFAULT_CPUS = 2
_LARGEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortForward:
    """A port of 127.0.0.1 on the workstation that leads to a port of the guest."""

    host: int
    guest: int
    protocol: Literal["tcp", "udp"] = "tcp"

    def __post_init__(self) -> None:
        for port in (self.host, self.guest):
            if not 1 <= port <= _LARGEST_PORT:
                raise UsageError(f"port {port} is not between 1 and {_LARGEST_PORT}")

    @classmethod
    def parse(cls, text: str) -> PortForward:
        """Read `HOST:GUEST` or `HOST:GUEST/udp`."""
        match = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?", text)
        if match is None:
            raise UsageError(f"{text!r} is not a port forward", hint="write HOST:GUEST, such as 2222:22 or 5353:53/udp")
        return cls(int(match[1]), int(match[2]), "udp" if match[3] == "udp" else "tcp")

    def __str__(self) -> str:
        return f"{self.host}:{self.guest}" + ("/udp" if self.protocol == "udp" else "")


@dataclass(frozen=True, slots=True)
class Flash:
    """UEFI firmware: the code, and this instance's own variables (None when it keeps none)."""

    code: Path
    code_format: str
    variables: Path | None
    variables_format: str
    requires_smm: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a monitor or the console listens: a socket file, or a listening descriptor that QEMU inherits."""

    path: Path
    descriptor: int | None = None


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """All that decides how one virtual machine looks; sizes in MiB, paths absolute.

    `base_descriptor`: the base opened already, which QEMU inherits; it is opened by its path where that is None.
    `graphics`: there is an adapter even without a display, for pictures of what would be shown.
    """

    name: str
    qemu: Path
    machine_type: str
    accelerator: Accelerator
    cpus: int
    memory_mib: int
    base: Path
    overlay: Path
    flash: Flash | None
    monitors: tuple[Endpoint, ...]
    console: Endpoint
    console_log: Path
    pid_file: Path
    port_forwards: tuple[PortForward, ...] = ()
    display: Display = "none"
    paused: bool = False
    data_disk: Path | None = None
    base_descriptor: int | None = None
    graphics: bool = False


def default_memory_mib(minimum_mib: int = 0) -> int:
    """What an instance gets unless the user says otherwise: what its manifest asks for, at least 1024 MiB."""
    return max(minimum_mib, _DEFAULT_MEMORY_MIB)


def default_cpus() -> int:
    """Two, or what this process may use of the host when that is less."""
    return min(_DEFAULT_CPUS, len(os.sched_getaffinity(0)))


def base_nodes(base: Path, *, suffix: str = "") -> list[Node]:
    """The read-only side of the chain; `suffix` makes a second pair of nodes beside the first, for a fresh mount."""
    file: Node = {
        "driver": "file",
        "node-name": BASE_FILE_NODE + suffix,
        "filename": str(base),
        "read-only": True,
        "auto-read-only": False,
        "cache": {"direct": False, "no-flush": False},
    }
    raw: Node = {"driver": "raw", "node-name": BASE_NODE + suffix, "file": BASE_FILE_NODE + suffix, "read-only": True}
    return [file, raw]


def overlay_file_node(overlay: Path) -> Node:
    """The file that holds the instance's own writes; what the guest discards is given back to the host."""
    return {
        "driver": "file",
        "node-name": OVERLAY_FILE_NODE,
        "filename": str(overlay),
        "cache": {"direct": False, "no-flush": False},
        "discard": "unmap",
    }


def overlay_node(*, base_node: str = BASE_NODE) -> Node:
    """The qcow2 node on top, whose backing file is the node named here, whatever its header says."""
    return {
        "driver": "qcow2",
        "node-name": OVERLAY_NODE,
        "file": OVERLAY_FILE_NODE,
        "backing": base_node,
        "discard": "unmap",
    }


def build_arguments(spec: MachineSpec) -> list[str]:
    """The whole command line, the program first."""
    return [
        str(spec.qemu),
        *("-name", f"guest={_escaped(spec.name)}"),
        *("-no-user-config", "-nodefaults"),
        *("-sandbox", SANDBOX),
        *("-msg", "timestamp=on"),
        *("-pidfile", str(spec.pid_file)),
        *_board(spec),
        *_disk(spec),
        *_network(spec.port_forwards),
        *("-device", "virtio-rng-pci"),
        *_character_devices(spec),
        *_display(spec.display, graphics=spec.graphics),
        *(("-S",) if spec.paused else ()),
    ]


def _board(spec: MachineSpec) -> list[str]:
    machine = spec.machine_type
    arguments: list[str] = []
    if spec.flash is not None:
        nodes, properties = _flash(spec.flash)
        machine += properties
        for node in nodes:
            arguments += ["-blockdev", json.dumps(node)]
        if spec.flash.requires_smm:
            arguments += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
            arguments += ["-global", "ICH9-LPC.disable_s3=1"]
    accelerator = "tcg,thread=multi" if spec.accelerator == "tcg" else spec.accelerator
    return [
        *("-machine", machine),
        *("-accel", accelerator),
        *("-cpu", CPU_MODELS[spec.accelerator]),
        *("-smp", str(spec.cpus)),
        *("-m", f"{spec.memory_mib}M"),
        *arguments,
    ]


def _flash(flash: Flash) -> tuple[list[Node], str]:
    parts: list[tuple[str, Path, str, bool]] = [("firmware-code", flash.code, flash.code_format, True)]
    if flash.variables is not None:
        parts.append(("firmware-variables", flash.variables, flash.variables_format, False))
    nodes: list[Node] = []
    properties = ",smm=on" if flash.requires_smm else ""
    for unit, (name, path, form, read_only) in enumerate(parts):
        nodes.append(
            {
                "driver": "file",
                "node-name": f"{name}-file",
                "filename": str(path),
                "read-only": read_only,
                "auto-read-only": False,
            }
        )
        nodes.append({"driver": form, "node-name": name, "file": f"{name}-file", "read-only": read_only})
        properties += f",pflash{unit}={name}"
    return nodes, properties


def _disk(spec: MachineSpec) -> list[str]:
    base, passed = spec.base, []
    if spec.base_descriptor is not None:
        base = Path(f"/dev/fdset/{BASE_DESCRIPTOR_SET}")
        passed = ["-add-fd", f"fd={spec.base_descriptor},set={BASE_DESCRIPTOR_SET}"]
    nodes = [*base_nodes(base), overlay_file_node(spec.overlay), overlay_node()]
    devices = [f"virtio-blk-pci,id={DISK_DEVICE},drive={OVERLAY_NODE},bootindex=0,rerror=stop,werror=stop"]
    if spec.data_disk is not None:
        nodes += _data_nodes(spec.data_disk)
        serial = f"serial={DATA_SERIAL},rerror=stop,werror=stop"
        devices.append(f"virtio-blk-pci,id={DATA_DEVICE},drive={DATA_NODE},{serial}")
    return [
        *passed,
        *(word for node in nodes for word in ("-blockdev", json.dumps(node))),
        *(word for device in devices for word in ("-device", device)),
    ]


def _data_nodes(path: Path) -> list[Node]:
    file: Node = {
        "driver": "file",
        "node-name": f"{DATA_NODE}-file",
        "filename": str(path),
        "cache": {"direct": False, "no-flush": False},
        "discard": "unmap",
    }
    disk: Node = {
        "driver": "qcow2",
        "node-name": DATA_NODE,
        "file": f"{DATA_NODE}-file",
        "backing": None,
        "discard": "unmap",
    }
    return [file, disk]


def _network(port_forwards: tuple[PortForward, ...]) -> list[str]:
    forwards = "".join(f",hostfwd={one.protocol}:127.0.0.1:{one.host}-:{one.guest}" for one in port_forwards)
    # Without a boot ROM no guest is delayed by, or started from, the network.
    return ["-netdev", f"user,id=network{forwards}", "-device", "virtio-net-pci,netdev=network,romfile="]


def _character_devices(spec: MachineSpec) -> list[str]:
    arguments = [
        *("-chardev", f"{_listener('console', spec.console)},logfile={_escaped(str(spec.console_log))},logappend=on"),
        *("-serial", "chardev:console"),
    ]
    for number, endpoint in enumerate(spec.monitors):
        arguments += ["-chardev", _listener(f"monitor{number}", endpoint)]
        arguments += ["-mon", f"chardev=monitor{number},mode=control"]
    return arguments


def _listener(name: str, endpoint: Endpoint) -> str:
    if endpoint.descriptor is not None:
        return f"socket,id={name},fd={endpoint.descriptor},server=on,wait=off"
    return f"socket,id={name},path={_escaped(str(endpoint.path))},server=on,wait=off"


def _display(display: Display, *, graphics: bool) -> list[str]:
    if display == "none":
        return ["-display", "none", *(("-device", "VGA") if graphics else ())]
    return ["-display", display, "-device", "VGA", "-device", "qemu-xhci", "-device", "usb-tablet"]


def _escaped(text: str) -> str:
    return text.replace(",", ",,")
