"""GRUB, written into a disk file without root.

GRUB's core image carries its configuration, so nothing but the kernel and the initramfs is read after it.

- For BIOS, `boot.img` goes to sector 0 around the partition table, and the core image to the sectors after it, before
  the first partition. GRUB's own default is that the core image starts in sector 1, so nothing has to be patched.
- For UEFI, the core image is the removable-media loader `EFI/BOOT/BOOTX64.EFI` in a FAT file system that mtools fill.

The root device is named by partition only, `(,msdos1)`: GRUB puts the disk it was started from before the comma, and
the guest starts whatever other disks it has.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from guestdisks.partitions import SECTOR_BYTES
from guestdisks.programs import BuildError, run
from guestdisks.tree import EPOCH_S

MIB = 1 << 20
GRUB_FILES = Path("/usr/lib/grub")

_BOOT_CODE_BYTES = 440  # of sector 0; the partition table follows
FAT_SERIAL = "05c12c01"
_MODULES = ("ext2", "linux", "boot")


def install_for_bios(disk: Path, configuration: str) -> None:
    """Write GRUB for BIOS into the sectors before the first partition of `disk`."""
    core = _core_image("i386-pc", "(,msdos1)/boot", configuration, ("biosdisk", "part_msdos", *_MODULES))
    if SECTOR_BYTES + len(core) > MIB:
        raise BuildError(f"GRUB's core image of {len(core)} bytes does not fit before the first partition")
    boot = (GRUB_FILES / "i386-pc/boot.img").read_bytes()
    with disk.open("r+b") as stream:
        stream.write(boot[:_BOOT_CODE_BYTES])
        stream.seek(SECTOR_BYTES)
        stream.write(core)


def install_for_uefi(disk: Path, configuration: str, efi_bytes: int) -> None:
    """Fill the EFI system partition of `disk` with GRUB as the removable-media loader."""
    core = _core_image("x86_64-efi", "(,gpt2)/boot", configuration, ("part_gpt", "efi_gop", *_MODULES))
    fill_efi_partition(disk, efi_bytes, {"EFI/BOOT/BOOTX64.EFI": core})


def fill_efi_partition(disk: Path, efi_bytes: int, files: Mapping[str, bytes]) -> None:
    """Make the EFI system partition of `disk`, at 1 MiB, a FAT file system that holds `files`, by path."""
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH_S), "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
    cluster_sectors = str(max(1, efi_bytes // (8 * MIB)))  # FAT16 counts from 4,085 to 65,524 clusters
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    with tempfile.TemporaryDirectory(prefix=".efi-", dir=disk.parent) as scratch:
        image, source = Path(scratch) / "efi.img", Path(scratch) / "file"
        with image.open("wb") as stream:
            stream.truncate(efi_bytes)
        run("mkfs.vfat", "-F", "16", "-s", cluster_sectors, "--invariant", "-i", FAT_SERIAL, "-n", "EFI", image)
        run("mmd", "-i", image, *(f"::{folder}" for folder in sorted(folders)), environment=environment)
        for path, content in files.items():
            source.write_bytes(content)
            run("mcopy", "-i", image, source, f"::{path}", environment=environment)
        with disk.open("r+b") as stream:
            stream.seek(MIB)
            stream.write(image.read_bytes())


def _core_image(target: str, prefix: str, configuration: str, modules: tuple[str, ...]) -> bytes:
    """Return GRUB's core image for `target` with `modules` and `configuration` inside."""
    with tempfile.TemporaryDirectory(prefix="grub-") as scratch:
        early, core = Path(scratch) / "early.cfg", Path(scratch) / "core.img"
        early.write_text(configuration, encoding="ascii")
        run("grub-mkimage", "-O", target, "-o", core, "-p", prefix, "-c", early, *modules)
        return core.read_bytes()
