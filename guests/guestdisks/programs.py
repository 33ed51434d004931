"""Runs the system's programs for the builders, and says which package to install when one is missing.

Rules of this module:

- A program is looked up on PATH and then in the `sbin` folders, which an ordinary user's PATH leaves out although
  `mke2fs` and `mkfs.vfat` live there.
- Every program runs with `LC_ALL=C` and `TZ=UTC0`: its messages are read here, and some write local times to disks.
- What goes wrong leaves as `BuildError`, whose message names the program and quotes its own words.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

# The fewest directories that hold every program of a Debian or Ubuntu system.
_SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
)

# Which package holds a program, for those that the builders call.
PACKAGE_OF = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "apt-config": "apt",
    "blkid": "util-linux",
    "chroot": "coreutils",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "e2fsck": "e2fsprogs",
    "dpkg-query": "dpkg",
    "grub-mkimage": "grub-common",
    "losetup": "mount",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "fstrim": "util-linux",
    "umount": "mount",
    "unshare": "util-linux",
    "zstd": "zstd",
}


class BuildError(Exception):
    """A disk could not be built; the message says why and, where it can, what to do."""


def find(program: str) -> str:
    """Return the path of `program`, or raise BuildError naming the package that holds it."""
    path = shutil.which(program, path=_SEARCH_PATH)
    if path is None:
        package = PACKAGE_OF.get(program, program)
        raise BuildError(f"{program} is not installed: apt-get install {package}")
    return path


def require(programs: Iterable[str], files: Mapping[Path, str] | None = None) -> None:
    """Raise one BuildError that names every package missing for `programs` and for `files` (file to its package)."""
    missing = {PACKAGE_OF.get(name, name) for name in programs if shutil.which(name, path=_SEARCH_PATH) is None}
    missing |= {package for path, package in (files or {}).items() if not path.exists()}
    if missing:
        raise BuildError("missing system packages: apt-get install " + " ".join(sorted(missing)))


def run(
    program: str,
    *arguments: str | Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `program` to its end and return what it printed; a nonzero exit raises BuildError with its own words."""
    done = subprocess.run(
        [find(program), *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=directory,
        env={**os.environ, "PATH": _SEARCH_PATH, "LC_ALL": "C", "TZ": "UTC0", **(environment or {})},
    )
    if done.returncode != 0:
        words = f"{done.stdout.strip()[-1500:]}\n{done.stderr.strip()[-1500:]}".strip()
        raise BuildError(f"{program} failed with exit code {done.returncode}: {words}")
    return done
