"""The root file system of the small guest: busybox, its settings, the kernel, and the payload.

Order is layout (see `ext4`): what the boot reads comes first and together, then the payload, which it never reads.

Version N differs from version N-1 in `etc/os-release`, `etc/oscirc-guest-version`, the page served on port 80 and three
payload files, and keeps every size and so every block's place. Versions are dated one day apart.
"""

from collections.abc import Iterator
from pathlib import Path

from guestdisks import payload
from guestdisks.distribution import Kernel
from guestdisks.initramfs import module_files
from guestdisks.programs import run
from guestdisks.tree import EPOCH_S, Node, character_device, directory, file, from_folder, link, with_parents

_TEMPLATES = Path(__file__).resolve().parent.parent / "small_root"
_DAY_S = 86400
# Loaded after the root is mounted, by a script of this name in /etc/drivers.
_DRIVERS = {
    "power-button": ("button", "evdev"),
    "network": ("virtio_net", "e1000", "e1000e", "xen-netfront"),
}
_CHANGED_PER_VERSION = 3


def nodes(*, kernel: Kernel, busybox: Path, initramfs: bytes, version: int, payload_bytes: int) -> list[Node]:
    """Return everything in the guest's root file system, in the order in which it is to be made."""
    changed_at_s = EPOCH_S + (version - 1) * _DAY_S
    return with_parents(
        [
            file("/boot/vmlinuz", kernel.image.read_bytes()),
            file("/boot/initrd.img", initramfs),
            file("/bin/busybox", busybox.read_bytes(), 0o755),
            *from_folder(_TEMPLATES, {"VERSION": str(version)}, changed_at_s=changed_at_s),
            *_drivers(kernel),
            link("/sbin/init", "/bin/busybox"),
            *(link(f"/bin/{applet}", "busybox") for applet in _applets(busybox)),
            character_device("/dev/console", 5, 1),
            *(directory(path) for path in ("/proc", "/sys", "/run", "/mnt", "/var/log")),
            directory("/root", 0o700),
            directory("/tmp", 0o1777),  # noqa: S108  (a guest's, which nothing here writes to)
            *_payload(version, payload_bytes),
        ]
    )


def _drivers(kernel: Kernel) -> Iterator[Node]:
    """Yield the modules in /lib/modules and the scripts that load them."""
    for purpose, names in _DRIVERS.items():
        files = module_files(kernel.modules, names)
        loading = "#!/bin/sh\n" + "".join(f"insmod /lib/modules/{name}\n" for name, _ in files)
        yield file(f"/etc/drivers/{purpose}", loading.encode(), 0o755)
        yield from (file(f"/lib/modules/{name}", content) for name, content in files)


def generation(number: int, count: int, version: int) -> int:
    """Return the last version up to `version` in which payload file `number` of `count` changed; 1 if in none."""
    changes = (
        n for n in range(version, 1, -1) if number in {(7 * n + 5 * k) % count for k in range(_CHANGED_PER_VERSION)}
    )
    return next(changes, 1)


def _payload(version: int, payload_bytes: int) -> Iterator[Node]:
    files = list(payload.files(payload_bytes))
    for entry in files:
        changed_in = generation(entry.number, len(files), version)
        yield file(
            f"/usr/share/payload/{entry.path}",
            payload.content(entry, changed_in),
            mtime_s=EPOCH_S + (changed_in - 1) * _DAY_S,
        )


def _applets(busybox: Path) -> list[str]:
    """Return the names under which busybox can be called, its own left out."""
    names = run(str(busybox), "--list").stdout.split()
    return sorted(set(names) - {"busybox", "linuxrc"})
