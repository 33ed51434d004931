#!/usr/bin/env python3
"""Builds a stock Debian disk, and a second version of it after `apt upgrade`. Needs root.

    sudo python guests/debian.py [OUTDIR] [--suite bookworm] [--size-mib 2048] [--upgraded] [--same-kernel]

OUTDIR (default `$OSCIRC_TEST_DISKS`, else `/var/tmp/oscirc-test-disks`) gets

- `v1.raw`: the release as it was published, without any later fix, so that there is something to upgrade;
- `v2.raw` (with `--upgraded`): a copy of it upgraded in place from the updates and security suites, as a machine would;
- `packages.txt`: what the upgrade changed, one package a line: name, old version, new version (`-` for none);
- `v2-same-kernel.raw` and `packages-same-kernel.txt` (with `--same-kernel`): the same by `apt-get upgrade`, which
  leaves a kernel whose package has a new name alone. Most weeks bring none, and one outweighs everything else.

Rules:

- Packages come from where this machine's apt gets them, and are checked by the same keys. The guest's own
  `sources.list` says the same.
- A finished disk is used again; delete it to have it rebuilt. Disks are built under another name and renamed.
- Loop devices and mounts are gone however this ends.

In the guest: UEFI, GRUB, login on the first serial port, user `root`, password `oscirc`, host name `circuit`, DHCP
on every Ethernet interface, an SSH server that lets root in by password. For tests only, never for a network.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent))

from guestdisks import apt_sources, loaders, mounting, systems
from guestdisks.partitions import EFI_SYSTEM, GPT_TAIL_BYTES, LINUX, Partition, write_gpt
from guestdisks.programs import BuildError, require, run

SYSTEM_PACKAGES = (
    "debian-archive-keyring",
    "dosfstools",
    "e2fsprogs",
    "mmdebstrap",
    "mtools",
)

_PROGRAMS = ("blkid", "losetup", "mcopy", "mkfs.ext4", "mkfs.vfat", "mmd", "mmdebstrap", "unshare", "fstrim")
_INCLUDED = (
    "ca-certificates",
    "curl",
    "dbus",
    "grub-efi-amd64",
    "initramfs-tools",
    "linux-image-amd64",
    "locales",
    "man-db",
    "openssh-server",
    "perl",
    "python3",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "vim",
    "zstd",
)
_MIB = loaders.MIB
_DISK_UUID = UUID("6f736369-7263-4000-8000-000000000012")
_EFI_PARTITION_UUID = UUID("6f736369-7263-4000-8000-000000000013")
_ROOT_PARTITION_UUID = UUID("6f736369-7263-4000-8000-000000000014")

_FILES = {
    "etc/hostname": "circuit\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 circuit\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/fstab": (
        f"UUID={systems.ROOT_UUID} / ext4 errors=remount-ro 0 1\n"
        f"UUID={loaders.FAT_SERIAL[:4].upper()}-{loaders.FAT_SERIAL[4:].upper()} /boot/efi vfat umask=0077 0 1\n"
    ),
    "etc/default/grub": (
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_TERMINAL=console\n"
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 no_timer_check"\n'
        "GRUB_DISABLE_OS_PROBER=true\n"
    ),
    "etc/systemd/network/ethernet.network": "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n",
    "etc/ssh/sshd_config.d/root.conf": "PermitRootLogin yes\n",
}
# The loader reads this from the EFI system partition and goes on with what update-grub wrote.
_STUB = f"search.fs_uuid {systems.ROOT_UUID} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"

_SET_UP = """
echo root:oscirc | chpasswd
systemctl enable systemd-networkd systemd-resolved
mkdir -p /boot/efi /boot/grub
update-grub
"""
# apt-get, unlike apt, installs no kernel with a new name.
_UPGRADE = '{apt} "$@" upgrade\n'
# What each machine makes for itself, and what can be fetched again.
CLEAN_UP = """
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt/* /var/log/bootstrap.log /etc/apt/apt.conf.d/99mmdebstrap
find /var/log -type f -exec truncate -s 0 {} +
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /usr/sbin/policy-rc.d
"""


def default_directory() -> Path:
    """Return where the disks are kept when the command line names no other place."""
    return Path(os.environ.get("OSCIRC_TEST_DISKS") or "/var/tmp/oscirc-test-disks")  # noqa: S108  (large, kept, shared)


def build(directory: Path, suite: str = "bookworm", size_mib: int = 2048) -> Path:
    """Make `v1.raw` in `directory` unless it is there, and return its path."""
    disk = directory / "v1.raw"
    with systems.only_one_builder(directory):
        if not disk.exists():
            check()
            release, later = apt_sources.for_suite(apt_sources.machine_sources(), suite)
            with systems.finished_or_gone(disk) as unfinished:
                _install(unfinished, size_mib * _MIB, release, later)
    return disk


def upgrade(directory: Path, *, same_kernel: bool = False) -> Path:
    """Make the second version from `v1.raw` in `directory` unless it is there, and return its path."""
    suffix = "-same-kernel" if same_kernel else ""
    disk = directory / f"v2{suffix}.raw"
    with systems.only_one_builder(directory):
        if not disk.exists():
            check()
            with systems.finished_or_gone(disk) as unfinished:
                run("cp", "--sparse=always", "--reflink=auto", directory / "v1.raw", unfinished)
                changes = _upgrade(unfinished, "apt-get" if same_kernel else "apt")
                (directory / f"packages{suffix}.txt").write_text(changes, encoding="utf-8")
    return disk


def check() -> None:
    """Refuse to start what cannot end well."""
    if os.geteuid() != 0:
        raise BuildError("a Debian disk is installed through loop devices: run this as root")
    require(_PROGRAMS)


def _install(disk: Path, size_bytes: int, release: apt_sources.Source, later: list[apt_sources.Source]) -> None:
    """Partition `disk` and install the release on it."""
    with disk.open("wb") as stream:
        stream.truncate(size_bytes)
    efi = Partition(_MIB, systems.EFI_BYTES, EFI_SYSTEM, _EFI_PARTITION_UUID, "EFI")
    root_bytes = size_bytes - systems.ROOT_START - GPT_TAIL_BYTES
    write_gpt(disk, _DISK_UUID, [efi, Partition(systems.ROOT_START, root_bytes, LINUX, _ROOT_PARTITION_UUID, "root")])
    with systems.root_of(disk, make=True) as (device, root):
        with tempfile.TemporaryDirectory(prefix="oscirc-apt-") as scratch:
            # mmdebstrap reads the keys as apt's own user.
            Path(scratch).chmod(0o755)
            keyring = apt_sources.keyring_path(release, Path(scratch))
            options = [f"--aptopt={line}" for line in apt_sources.access_options()]
            mounting.run_alone(
                *("mmdebstrap", "--mode=root", "--variant=standard", "--architectures=amd64", "--quiet", *options),
                *(f"--include={','.join(_INCLUDED)}", release.suite, root, release.line(keyring)),
            )
        for name, text in _FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        sources = "".join(source.line() + "\n" for source in (release, *later))
        (root / "etc/apt/sources.list").write_text(sources, encoding="utf-8")
        (root / "etc/apt/sources.list.d").mkdir(exist_ok=True)
        mounting.run_inside(root, device, _SET_UP + CLEAN_UP)
        loader = root / "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"
        loaders.fill_efi_partition(
            disk,
            systems.EFI_BYTES,
            {"EFI/BOOT/BOOTX64.EFI": loader.read_bytes(), "EFI/debian/grub.cfg": _STUB.encode()},
        )
        mounting.discard_free_space(root)


def _upgrade(disk: Path, apt: str) -> str:
    """Upgrade the system on `disk` with the program `apt` and return the lines of its packages.txt."""
    with systems.changing(disk) as (device, root):
        before = systems.packages(root)
        mounting.run_inside(root, device, systems.APT + _UPGRADE.format(apt=apt) + CLEAN_UP)
        return systems.differences(before, systems.packages(root))


def stop(number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that mounts are undone."""
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Build the disks that the command line asks for."""
    parser = argparse.ArgumentParser(description="Build a stock Debian disk, and its upgraded version. Needs root.")
    parser.add_argument("directory", type=Path, nargs="?", default=default_directory(), metavar="OUTDIR")
    parser.add_argument("--suite", default="bookworm", help="the release (%(default)s)")
    parser.add_argument("--size-mib", type=int, default=2048, help="virtual size (%(default)s)")
    parser.add_argument("--upgraded", action="store_true", help="also make v2.raw by apt upgrade")
    parser.add_argument("--same-kernel", action="store_true", help="also make v2-same-kernel.raw by apt-get upgrade")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, stop)
    try:
        print(build(given.directory, given.suite, given.size_mib))
        if given.upgraded:
            print(upgrade(given.directory))
        if given.same_kernel:
            print(upgrade(given.directory, same_kernel=True))
    except BuildError as error:
        print(f"debian.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("debian.py: stopped; nothing is left mounted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
