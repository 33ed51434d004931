"""Gets the distribution's own kernel and static busybox, without root and without installing them.

`apt-get download` fetches a package from wherever this machine's apt is told to fetch from, and checks it as apt
does; `dpkg-deb -x` unpacks it into the cache: `$OSCIRC_GUESTS_CACHE`, else `$XDG_CACHE_HOME/oscirc-guests`, else
`~/.cache/oscirc-guests`. What is in the cache is used again and no network is asked: a disk built twice on one machine
holds the same kernel. Delete the folder to take a newer one. The environment is read once, when this module is loaded:
tests that point the cache folder elsewhere for the product's sake still share this one.

A package is unpacked beside its final name and renamed into place, so builders that run at the same time do not meet
half a package.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from guestdisks.programs import BuildError, run

# Meta packages whose kernel has the virtio drivers and little else: Debian's, then Ubuntu's two.
_KERNEL_META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-kvm")
# The versioned packages behind them; Ubuntu keeps the modules apart from the image.
_KERNEL_PART = re.compile(r"^linux-(?:image|modules)-(?:unsigned-)?(?P<release>\d[^:]*)$")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as its package ships it: its release, the bootable image and the folder of its modules."""

    release: str
    image: Path
    modules: Path


def _cache_directory() -> Path:
    """Return the folder of unpacked packages, which need not exist yet."""
    if own := os.environ.get("OSCIRC_GUESTS_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "oscirc-guests"


CACHE_DIRECTORY = _cache_directory()


def kernel() -> Kernel:
    """Return the newest cached kernel, or the distribution's current one after fetching it into the cache."""
    trees = _cached("kernel-")
    if not trees:
        packages = _kernel_packages()
        release = next(match["release"] for name in packages if (match := _KERNEL_PART.match(name)))
        trees = [_fetch(f"kernel-{release}", packages)]
    tree = trees[-1]
    release = tree.name.removeprefix("kernel-")
    modules = next(
        (path for path in (tree / "lib/modules" / release, tree / "usr/lib/modules" / release) if path.exists()), None
    )
    image = tree / "boot" / f"vmlinuz-{release}"
    if modules is None or not image.exists():
        raise BuildError(f"{tree} holds no complete kernel: delete it and run again")
    return Kernel(release, image, modules)


def busybox() -> Path:
    """Return a statically linked busybox, from the cache or fetched into it."""
    trees = _cached("busybox-static") or [_fetch("busybox-static", ["busybox-static"])]
    for path in (trees[-1] / "bin/busybox", trees[-1] / "usr/bin/busybox"):
        if path.exists():
            return path
    raise BuildError(f"{trees[-1]} holds no busybox: delete it and run again")


def _cached(prefix: str) -> list[Path]:
    """Return the cached trees whose name starts with `prefix`, oldest first."""
    return sorted(CACHE_DIRECTORY.glob(prefix + "*"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _kernel_packages() -> list[str]:
    """Return the versioned packages that the distribution's kernel meta package stands for now, image first."""
    for meta_package in _KERNEL_META_PACKAGES:
        names = _kernel_parts(meta_package)
        if names:
            inner = [part for name in names for part in _kernel_parts(name)]
            return list(dict.fromkeys([*names, *inner]))
    raise BuildError(
        "apt knows none of "
        + ", ".join(_KERNEL_META_PACKAGES)
        + ": run apt-get update as root, or use Debian or Ubuntu on amd64"
    )


def _kernel_parts(package: str) -> list[str]:
    """Return the versioned kernel packages that `package` depends on; none when apt does not know it."""
    try:
        answer = run("apt-cache", "depends", "--important", package).stdout
    except BuildError:
        return []
    depends = re.findall(r"^ *\|?(?:Pre)?Depends: (\S+)$", answer, re.MULTILINE)
    return sorted(name for name in depends if _KERNEL_PART.match(name))


def _fetch(name: str, packages: list[str]) -> Path:
    """Download and unpack `packages` into one cached tree called `name`."""
    tree = CACHE_DIRECTORY / name
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=tree.parent) as scratch:
        # apt drops to its own user for downloads, who may not enter the scratch folder of the one who runs this.
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages, directory=Path(scratch))
        unpacked = Path(scratch) / "tree"
        unpacked.mkdir()
        for archive in sorted(Path(scratch).glob("*.deb")):
            run("dpkg-deb", "-x", archive, unpacked)
        shutil.rmtree(unpacked / "usr/share/doc", ignore_errors=True)
        try:
            unpacked.rename(tree)
        except OSError:
            if not tree.exists():  # someone else was faster, which is as good
                raise
    return tree
