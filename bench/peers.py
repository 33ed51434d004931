"""What a user would pick instead of this project to run a disk that stands on a web server.

Each gets the raw disk on the same nginx, and the options that its own manual offers and that served it best on a link
of 100 Mbit/s and 20 ms, tried on the trace that is replayed (`variants.py` tries them; docs/performance.md has them):

- QEMU's HTTP driver, below a local qcow2 overlay with copy-on-read as qemu's manual shows it, exported as a file by
  qemu-storage-daemon's own FUSE export, so that no second program stands in between.
- nbdkit's curl plugin with the cache filter (cache-on-read, blocks of 512 KiB), through nbdfuse with the kernel's
  cache on. Its readahead filter does nothing above the curl plugin, says nbdkit: so it is not there.
- rclone mount over its HTTP backend with the full cache, in small chunks and without a buffer read ahead.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from contenders import Contender, Download, Setting, detach, oscirc_contenders, wait_until
from support.commands import end
from unlearnt import unlearnt_contender


@dataclass
class Programs:
    """Processes that give a disk as a file, and where something is mounted; the base of the peers."""

    name: str
    label: str
    note: str
    as_guest: bool = field(default=False, init=False)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def prepare(self, setting: Setting) -> None:
        """Empty places to mount on."""
        (setting.work / "disk.raw").touch()
        (setting.work / "mount").mkdir()

    def _run(self, setting: Setting, *command: str) -> None:
        with (setting.work / "programs.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            )

    def _wait_for_disk(self, setting: Setting, disk: Path, cutoff: float) -> Path:
        size = setting.stage.disk.stat().st_size
        wait_until(lambda: disk.stat().st_size == size, cutoff, self.name, self._running)
        return disk

    def stop(self, setting: Setting) -> None:
        """Unmount, then end the programs, the last first."""
        detach(setting.work / "disk.raw")
        detach(setting.work / "mount")
        for process in reversed(self._running):
            end(process, 3)
        self._running.clear()


@dataclass
class QemuHttp(Programs):
    """QEMU's block driver for HTTP."""

    name: str = "qemu-http"
    label: str = "QEMU HTTP driver"
    note: str = "qcow2 overlay with copy-on-read over `driver=http`, readahead 256 KiB, FUSE export"
    readahead_kib: int = 256
    copy_on_read: bool = True

    def start(self, setting: Setting, cutoff: float) -> Path:
        """Make the overlay, export it."""
        overlay, disk = setting.work / "overlay.qcow2", setting.work / "disk.raw"
        size = str(setting.stage.disk.stat().st_size)
        backing = ("-u", "-F", "raw", "-b", "beyond-the-link")  # named on the daemon's command line
        create = ("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay), size)
        subprocess.run(create, check=True, timeout=60)
        http = f"file.driver=http,file.url={setting.file_url('disk.raw')},file.readahead={self.readahead_kib << 10}"
        top = "copying" if self.copy_on_read else "http"
        self._run(
            setting,
            "qemu-storage-daemon",
            *("--blockdev", f"driver=raw,node-name=http,read-only=on,{http},file.timeout=60"),
            *("--blockdev", f"driver=qcow2,node-name=overlay,backing=http,file.driver=file,file.filename={overlay}"),
            *("--blockdev", "driver=copy-on-read,node-name=copying,file=overlay"),
            *("--export", f"type=fuse,id=disk,node-name={top},mountpoint={disk},allow-other=off"),
        )
        return self._wait_for_disk(setting, disk, cutoff)


@dataclass
class Nbdkit(Programs):
    """nbdkit's curl plugin."""

    name: str = "nbdkit-curl"
    label: str = "nbdkit curl + cache"
    note: str = "`--filter=cache cache-on-read=true cache-min-block-size=512K curl`, nbdfuse with kernel_cache"
    block: str = "512K"

    def start(self, setting: Setting, cutoff: float) -> Path:
        """The server, then the file."""
        socket, disk = setting.work / "nbd", setting.work / "disk.raw"
        cache = ("cache-on-read=true", f"cache-min-block-size={self.block}")
        url = f"url={setting.file_url('disk.raw')}"
        self._run(setting, "nbdkit", "-f", "-r", "-U", str(socket), "--filter=cache", "curl", url, "timeout=60", *cache)
        wait_until(socket.exists, cutoff, self.name, self._running)
        self._run(setting, "nbdfuse", "-r", "-o", "kernel_cache", str(disk), f"nbd+unix:///?socket={socket}")
        return self._wait_for_disk(setting, disk, cutoff)


@dataclass
class Rclone(Programs):
    """rclone's mount."""

    name: str = "rclone"
    label: str = "rclone mount"
    note: str = "`--vfs-cache-mode full --vfs-read-chunk-size 256k --buffer-size 0` over its HTTP backend"
    chunk: tuple[str, ...] = ("--vfs-read-chunk-size", "256k", "--buffer-size", "0")

    def start(self, setting: Setting, cutoff: float) -> Path:
        """Mount the folder that the disk is in."""
        place = setting.work / "mount"
        cache = ("--vfs-cache-mode", "full", "--cache-dir", str(setting.work / "cache"), *self.chunk)
        where = ("--config", "/dev/null", "--http-url", f"http://127.0.0.1:{setting.port}/files/", ":http:", str(place))
        self._run(setting, "rclone", "mount", "--read-only", *cache, *where)
        return self._wait_for_disk(setting, place / "disk.raw", cutoff)


def all_contenders() -> dict[str, Contender]:
    """By name, in the order of the tables; new ones at each call, so that cells can run side by side."""
    ours = (*oscirc_contenders(), unlearnt_contender())
    return {each.name: each for each in (*ours, Download(), QemuHttp(), Nbdkit(), Rclone())}
