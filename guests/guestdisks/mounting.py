"""Opens a partition inside a disk file and runs programs in it. Needs root.

- The partition is reached by a loop device of its own with offset and length: partition nodes such as loop0p1 do not
  appear on every machine.
- Both context managers undo what they did in reverse order however the block ends, Ctrl-C and SIGTERM included (the
  caller turns the latter into an exception).
- Programs in the guest run in mount and process namespaces of their own: when the command ends, what it left running
  is killed and everything mounted for it is unmounted with it. They see none of this machine's devices. Their root is
  `/dev/vda`, with its link by UUID: on a loop device update-grub refuses to work, and it names the root by UUID only
  where it finds the link.
- What they put into `/run`, `/tmp` and `/var/tmp` never reaches the disk.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from guestdisks.programs import BuildError, run

# $1: the folder; $2, $3: major and minor number of the root's device; $4: the script.
_ENTER = """\
set -e
devices=$(mktemp -d)
mount -t tmpfs -o mode=755 devices "$devices"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    mknod -m 666 "$devices/${node%% *}" c ${node#* }
done
mknod -m 600 "$devices/vda" b "$2" "$3"
ln -s /proc/self/fd "$devices/fd"
mkdir -p "$devices/pts" "$devices/shm" "$devices/disk/by-uuid"
ln -s ../../vda "$devices/disk/by-uuid/$(blkid -p -o value -s UUID "$devices/vda")"
mount --move "$devices" /dev
rmdir "$devices"
umount "$1"
mount /dev/vda "$1"
mount --bind /dev "$1/dev"
mount -t devpts -o ptmxmode=666,newinstance devpts "$1/dev/pts"
ln -s pts/ptmx /dev/ptmx
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sys "$1/sys"
for folder in run tmp var/tmp; do mount -t tmpfs scratch "$1/$folder"; done
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive sh -euc "$4"
"""


@contextlib.contextmanager
def loop_device(disk: Path, *, offset_bytes: int, size_bytes: int) -> Iterator[str]:
    """Give the path of a block device that shows the given bytes of `disk`."""
    arguments = ("--find", "--show", "--offset", str(offset_bytes), "--sizelimit", str(size_bytes), disk)
    device = run("losetup", *arguments).stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device: str) -> Iterator[Path]:
    """Mount `device` on a new folder and give that folder."""
    with tempfile.TemporaryDirectory(prefix="oscirc-guest-") as folder:
        run("mount", device, folder)
        try:
            yield Path(folder)
        finally:
            _unmount(folder)


def run_inside(root: Path, device: str, script: str) -> str:
    """Run a shell script inside the guest mounted at `root` from `device`; return what it printed."""
    number = Path(device).stat().st_rdev
    place = (str(root), str(os.major(number)), str(os.minor(number)))
    return run_alone("sh", "-c", _ENTER, "sh", *place, script)


def run_alone(*command: str | Path) -> str:
    """Run a program in mount and process namespaces of its own, so that nothing it starts or mounts outlives it."""
    return run("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command).stdout


def discard_free_space(root: Path) -> None:
    """Make the space that deleted files took read as zeros, so that it costs nothing in an image."""
    try:
        run("sync", "--file-system", root)  # what the journal still holds is not free yet
        run("fstrim", root)
    except BuildError as error:
        print(f"free space keeps old data, the image will be larger: {error}")


def _unmount(folder: str) -> None:
    """Unmount, trying again while a dying process or a scanner holds the folder."""
    for _ in range(50):
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    run("umount", "--lazy", folder)
    raise BuildError(f"{folder} was busy for 5 s and is being let go lazily: do not use the disk")
