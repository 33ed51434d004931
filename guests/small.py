#!/usr/bin/env python3
"""Builds a small but real bootable disk: the distribution's own kernel, busybox, ext4 and GRUB, in seconds.

    python guests/small.py OUT.raw [--firmware bios|uefi] [--size MIB] [--version N] [--payload MIB]

Rules:

- No root, no loop device, no mount: every byte is written by this program or by a tool that works on plain files.
- The same arguments and the same kernel package give the same disk, byte for byte: identifiers and times are fixed.
- Firmware, loader, kernel and files are all read through the disk, as they would be from a stock installation. The
  payload that fills the disk is not read by a boot.
- Version N differs from version 1 in a few files, which keep their places.
- OUT.raw appears complete or not at all.

In the guest: `circuit login:` on the first serial port (and on the screen, and on Xen's console), user `root`, password
`oscirc`; DHCP on eth0; the guest's version as a page on port 80. The power button and `poweroff` shut it down.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent))

from guestdisks import distribution, ext4, initramfs, loaders, userland
from guestdisks.partitions import EFI_SYSTEM, GPT_TAIL_BYTES, LINUX, Partition, write_gpt, write_mbr
from guestdisks.programs import BuildError, require

SYSTEM_PACKAGES = (
    "dosfstools",
    "e2fsprogs",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "mtools",
)

Firmware = Literal["bios", "uefi"]

_PROGRAMS = ("debugfs", "e2fsck", "grub-mkimage", "mke2fs")
_UEFI_PROGRAMS = ("mcopy", "mkfs.vfat", "mmd")
_MIB = loaders.MIB
_EFI_BYTES = 4 * _MIB
_SYSTEM_MIB = 40  # for everything but the payload
_DISK_SIGNATURE = 0x05C12C01
_DISK_UUID = UUID("6f736369-7263-4000-8000-000000000002")
_EFI_PARTITION_UUID = UUID("6f736369-7263-4000-8000-000000000003")
_ROOT_PARTITION_UUID = UUID("6f736369-7263-4000-8000-000000000004")
_ROOT_UUID = UUID("6f736369-7263-4000-8000-000000000005")
# On a busy host an emulated timer can fail the kernel's check of it, which then panics: the check is left out.
_LOADER_CONFIGURATION = """\
linux /boot/vmlinuz console=tty0 console=ttyS0,115200 quiet no_timer_check
initrd /boot/initrd.img
boot
"""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """What to build. `size_mib` is the virtual size; `payload_mib` of it is filled with files a boot never reads."""

    firmware: Firmware = "bios"
    size_mib: int = 256
    version: int = 1
    payload_mib: int = 96


def build(out: Path, disk: SmallDisk | None = None) -> None:
    """Write the disk to `out`, replacing what is there. Raises BuildError and leaves `out` as it was on failure."""
    disk = disk or SmallDisk()
    uefi = disk.firmware == "uefi"
    grub = (
        {loaders.GRUB_FILES / "x86_64-efi": "grub-efi-amd64-bin"}
        if uefi
        else {loaders.GRUB_FILES / "i386-pc": "grub-pc-bin"}
    )
    require([*_PROGRAMS, *(_UEFI_PROGRAMS if uefi else ())], grub)
    root_start = _MIB + (_EFI_BYTES if uefi else 0)
    root_bytes = disk.size_mib * _MIB - root_start - (GPT_TAIL_BYTES if uefi else 0)
    if disk.payload_mib + _SYSTEM_MIB > disk.size_mib:
        raise BuildError(f"a payload of {disk.payload_mib} MiB needs a disk of {disk.payload_mib + _SYSTEM_MIB} MiB")
    kernel, busybox = distribution.kernel(), distribution.busybox()
    nodes = userland.nodes(
        kernel=kernel,
        busybox=busybox,
        initramfs=initramfs.build(busybox, kernel.modules, str(_ROOT_UUID)),
        version=disk.version,
        payload_bytes=disk.payload_mib * _MIB,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            stream.truncate(disk.size_mib * _MIB)
        if uefi:
            efi = Partition(_MIB, _EFI_BYTES, EFI_SYSTEM, _EFI_PARTITION_UUID, "EFI")
            root = Partition(root_start, root_bytes, LINUX, _ROOT_PARTITION_UUID, "root")
            write_gpt(unfinished, _DISK_UUID, [efi, root])
            loaders.install_for_uefi(unfinished, _LOADER_CONFIGURATION, _EFI_BYTES)
        else:
            write_mbr(unfinished, signature=_DISK_SIGNATURE, start_bytes=root_start)
            loaders.install_for_bios(unfinished, _LOADER_CONFIGURATION)
        ext4.make(
            unfinished,
            offset_bytes=root_start,
            size_bytes=root_bytes,
            uuid=str(_ROOT_UUID),
            label="root",
            nodes=nodes,
        )
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Build the disk that the command line asks for."""
    parser = argparse.ArgumentParser(description="Build a small bootable disk, without root.")
    defaults = SmallDisk()
    parser.add_argument("out", type=Path, metavar="OUT.raw", help="the file to write")
    parser.add_argument("--firmware", choices=get_args(Firmware), default=defaults.firmware)
    parser.add_argument("--size", type=int, metavar="MIB", default=defaults.size_mib, help="virtual size (%(default)s)")
    parser.add_argument("--version", type=int, metavar="N", default=defaults.version, help="1 or more (%(default)s)")
    parser.add_argument(
        "--payload", type=int, metavar="MIB", default=defaults.payload_mib, help="filling (%(default)s)"
    )
    given = parser.parse_args(arguments)
    if given.size < 64 or given.version < 1 or given.payload < 0:
        parser.error("a disk has at least 64 MiB, a version of 1 or more and no negative payload")
    try:
        build(given.out, SmallDisk(given.firmware, given.size, given.version, given.payload))
    except BuildError as error:
        print(f"small.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
