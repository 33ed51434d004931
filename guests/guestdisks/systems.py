"""Opens the system on a Debian disk to be installed on or changed, and what its builders share. Needs root.

- One builder at a time works in a folder; a disk is built under another name and renamed when it is whole.
- `changing` gives a system the network, this machine's way to the package mirror and no services, and takes all of that
  away again; what apt fetches goes where nothing reaches the disk. Free space reads as zeros afterwards.
- What changed is told by packages: name, old version, new version, `-` for none.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from guestdisks import apt_sources, loaders, mounting
from guestdisks.partitions import GPT_TAIL_BYTES
from guestdisks.programs import run

EFI_BYTES = 32 * loaders.MIB
ROOT_START = loaders.MIB + EFI_BYTES
ROOT_UUID = UUID("6f736369-7263-4000-8000-000000000015")

# apt's lists and archives go where nothing reaches the disk; what is asked of it stands behind `"$@"`.
APT = """
mkdir -p /var/tmp/archives/partial /var/tmp/lists/partial
set -- -q -y -o Dir::Cache::archives=/var/tmp/archives -o Dir::State::lists=/var/tmp/lists \\
    -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef
apt-get "$@" update
"""
_NO_SERVICES = "#!/bin/sh\nexit 101\n"  # what invoke-rc.d asks: start nothing in here
_ACCESS, _BLOCKER = "etc/apt/apt.conf.d/99access", "usr/sbin/policy-rc.d"


@contextmanager
def only_one_builder(directory: Path) -> Iterator[None]:
    """Wait for any other builder of the same folder."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def finished_or_gone(disk: Path) -> Iterator[Path]:
    """Give a name to build under, which becomes `disk` when the block succeeds."""
    unfinished = disk.with_name(f".{disk.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(disk)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def root_of(disk: Path, *, make: bool = False) -> Iterator[tuple[str, Path]]:
    """Mount the root partition of `disk`, with a new file system on it if `make`; give its device and the folder."""
    size_bytes = disk.stat().st_size - ROOT_START - GPT_TAIL_BYTES
    with mounting.loop_device(disk, offset_bytes=ROOT_START, size_bytes=size_bytes) as device:
        if make:
            extended = "lazy_itable_init=0,lazy_journal_init=0"
            run("mkfs.ext4", "-q", "-L", "root", "-U", str(ROOT_UUID), "-E", extended, device)
        with mounting.mounted(device) as root:
            yield device, root


@contextmanager
def changing(disk: Path) -> Iterator[tuple[str, Path]]:
    """Mount the root partition of `disk` for programs that install; give its device and the folder."""
    with root_of(disk) as (device, root):
        resolver = root / "etc/resolv.conf"
        kept = resolver.readlink() if resolver.is_symlink() else None
        resolver.unlink(missing_ok=True)
        resolver.write_bytes(Path("/etc/resolv.conf").read_bytes())
        (root / _ACCESS).write_text("\n".join(apt_sources.access_options()) + "\n", encoding="utf-8")
        (root / _BLOCKER).write_text(_NO_SERVICES, encoding="ascii")
        (root / _BLOCKER).chmod(0o755)
        yield device, root
        (root / _ACCESS).unlink()
        (root / _BLOCKER).unlink(missing_ok=True)
        resolver.unlink()
        if kept is not None:
            resolver.symlink_to(kept)
        mounting.discard_free_space(root)


def packages(root: Path) -> dict[str, str]:
    """Return the versions of the packages installed at `root`, by name."""
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    listing = run("dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "-W", "-f", form).stdout
    rows = [line.split() for line in listing.splitlines()]
    return {row[1]: row[2] for row in rows if row[0] == "installed"}


def differences(before: dict[str, str], after: dict[str, str]) -> str:
    """Return one line for each package that changed: its name, old and new version."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return "".join(f"{name} {before.get(name, '-')} {after.get(name, '-')}\n" for name in changed)
