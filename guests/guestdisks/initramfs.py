"""Builds the initramfs of the small guest: static busybox, a dozen modules and a script that mounts the root.

A cpio archive in the `newc` form (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel), written
here so that inode numbers and times are fixed. It is not compressed: under emulation reading four megabytes is quicker
than unpacking two.

The package's modules come without `modules.dep`, which is made on installation. Their dependencies are read from the
modules themselves: a `depends=` entry in their `.modinfo` section.
"""

import lzma
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from guestdisks.programs import BuildError, find, run
from guestdisks.tree import EPOCH_S, Node, character_device, directory, file, link, with_parents

# What the disk may hang on. A name that the kernel has built in, or does not know, is left out.
_FIRST_DRIVERS = ("virtio_pci", "virtio_blk")
_OTHER_DRIVERS = ("virtio_mmio", "xen-blkfront", "sd_mod", "virtio_scsi", "ata_piix", "ahci", "nvme", "ext4")
_APPLETS = ("sh", "mount", "insmod", "findfs", "sleep", "switch_root", "cat", "ls", "dmesg", "poweroff")

_INIT = """\
#!/bin/sh
# Finds the root file system, whichever kind of disk it is on, and hands over to it.
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
{first}
root=$(findfs UUID={uuid} 2>/dev/null) || {{
{others}
for pause in 0 0.1 0.2 0.5 1 2 4 8; do
    sleep $pause
    root=$(findfs UUID={uuid} 2>/dev/null) && break
done
}}
mount -t ext4 -o noatime "$root" /root || {{ echo "no root file system with UUID {uuid}"; exec sh; }}
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
exec switch_root /root /sbin/init
"""


def build(busybox: Path, modules: Path, root_uuid: str) -> bytes:
    """Return the archive whose `/init` mounts the ext4 file system `root_uuid` and starts `/sbin/init` in it."""
    first = module_files(modules, _FIRST_DRIVERS)
    others = [item for item in module_files(modules, _OTHER_DRIVERS) if item not in first]
    script = _INIT.format(uuid=root_uuid, first=_load(first), others=_load(others))
    nodes = [
        character_device("/dev/console", 5, 1),
        directory("/proc"),
        directory("/sys"),
        directory("/root"),
        file("/init", script.encode(), 0o755),
        file("/bin/busybox", busybox.read_bytes(), 0o755),
        *(link(f"/bin/{name}", "busybox") for name in _APPLETS),
        *(file(f"/modules/{name}", content) for name, content in [*first, *others]),
    ]
    return _archive(with_parents(nodes))


def module_files(modules: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return (file name, uncompressed content) of the modules `wanted` and all they need, in loading order.

    `modules` is the folder of one kernel release. Names that are not modules of this kernel are left out.
    """
    found = {_module_name(path): path for path in (modules / "kernel").rglob("*.ko*")}
    loaded: dict[str, bytes] = {}

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in loaded or name not in found:
            return
        content = _read_module(found[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in depends[1].decode().split(",") if depends else []:
            add(other)
        loaded[name] = content

    for name in wanted:
        add(name)
    return [(f"{name}.ko", content) for name, content in loaded.items()]


def _module_name(path: Path) -> str:
    """Return the name that the kernel gives the module in `path`."""
    return path.name.split(".", 1)[0].replace("-", "_")


def _read_module(path: Path) -> bytes:
    """Return a module's bytes, unpacked: Debian 12 ships them plain, later releases as xz, Ubuntu as zstd."""
    if path.suffix == ".ko":
        return path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        find("zstd")
        unpacked = path.with_suffix("")
        run("zstd", "-d", "-q", "-f", path, "-o", unpacked)
        return unpacked.read_bytes()
    raise BuildError(f"{path.name}: a module packed in a way not known here")


def _load(files: Sequence[tuple[str, bytes]]) -> str:
    """Return the shell lines that load `files`, one after the other."""
    return "\n".join(f"insmod /modules/{name}" for name, _ in files) or ":"


def _archive(nodes: Sequence[Node]) -> bytes:
    """Return `nodes` as a cpio archive in the newc form."""
    parts: list[bytes] = []
    for number, node in enumerate(nodes, start=1):
        content, kind, device = b"", stat.S_IFDIR, (0, 0)
        if node.content is not None:
            content, kind = node.content, stat.S_IFREG
        elif node.target is not None:
            content, kind = node.target.encode(), stat.S_IFLNK
        elif node.device is not None:
            device, kind = node.device, stat.S_IFCHR
        parts += _entry(number, node.path.lstrip("/"), kind | node.mode, content, device)
    parts += _entry(0, "TRAILER!!!", 0, b"", (0, 0))
    return b"".join(parts)


def _entry(number: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> list[bytes]:
    """Return the header, name and content of one entry, each padded to four bytes."""
    links = 2 if stat.S_ISDIR(mode) else 1
    stamp = EPOCH_S if mode else 0
    raw_name = name.encode() + b"\0"
    fields = [number, mode, 0, 0, links, stamp, len(content), 0, 0, *device, len(raw_name), 0]
    header = b"070701" + "".join(f"{field:08x}" for field in fields).encode()
    return [_padded(header + raw_name), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
