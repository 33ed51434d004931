"""A guest whose disk fails, hangs or loses its driver. Run as a program this file is that disk's driver.

The guest is one boot sector that reads the disk for ever and prints a dot for each read, an E for each error.
"""

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pyfuse3 = pytest.importorskip("pyfuse3", reason="pyfuse3 is not installed")
import trio  # noqa: E402

from oscirc_blockstore.errors import DeadlineExceededError  # noqa: E402
from oscirc_vmlaunch import console, launching, watching  # noqa: E402
from oscirc_vmlaunch.accelerators import boot_sector  # noqa: E402
from oscirc_vmlaunch.instances import Instances  # noqa: E402
from oscirc_vmlaunch.launching import StoppedBy  # noqa: E402
from oscirc_vmlaunch.reattaching import reattach  # noqa: E402
from oscirc_vmlaunch.records import InstanceRecord  # noqa: E402
from oscirc_vmlaunch.watching import Happening, Patience, watch  # noqa: E402

pytestmark = [pytest.mark.guest, pytest.mark.fuse]

DIGEST = "ab" * 32
DISK_BYTES = 40 * 1024 * 1024
DISK_INODE = 2
READER = bytes.fromhex(
    "31c0 8ed8 8ec0 8ed0 bc007c 88d3"  # xor ax, ax; mov ds, es, ss, ax; mov sp, 0x7c00; mov bl, dl
    "be267c b442 88da cd13"  # next: mov si, 0x7c26; mov ah, 0x42; mov dl, bl; int 0x13
    "b02e 7302 b045 baf803 ee"  # mov al, '.'; jnc print; mov al, 'E'; print: mov dx, 0x3f8; out dx, al
    "ff062e7c ebe7"  # inc word ptr [0x7c2e]; jmp next
    "1000 0800 00000010 0000000000000000"  # 8 sectors to 0x1000:0, from sector 0 on
)


class FlakyDisk(pyfuse3.Operations):
    """Serves one file; before every read the control file says whether to answer (ok), to fail or to hang."""

    def __init__(self, source, control):
        super().__init__()
        self.source, self.control = os.open(source, os.O_RDONLY), Path(control)
        self.hanging = hanging_sign(self.control)

    def _attributes(self, inode):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        disk = inode == DISK_INODE
        entry.st_mode = stat.S_IFREG | 0o444 if disk else stat.S_IFDIR | 0o555
        entry.st_size = os.fstat(self.source).st_size if disk else 0
        return entry

    async def getattr(self, inode, ctx=None):
        return self._attributes(inode)

    async def lookup(self, parent_inode, name, ctx=None):
        if name != b"disk.raw":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(DISK_INODE)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh, off, size):
        while (order := self.control.read_text()) == "hang":
            self.hanging.touch()
            await trio.sleep(0.01)
        if order == "fail":
            raise pyfuse3.FUSEError(errno.EIO)
        return os.pread(self.source, size, off)


def hanging_sign(control):
    """The file that exists once a read hangs."""
    return control.with_name("hanging")


def serve(source, control, mount_point):
    options = set(pyfuse3.default_options) | {"fsname=flaky"}
    pyfuse3.init(FlakyDisk(source, control), mount_point, options)
    print("mounted", flush=True)
    trio.run(pyfuse3.main)


class Storage:
    """A mount of the flaky disk and its control."""

    def __init__(self, folder):
        self.control, self.source = folder / "control", folder / "source.raw"
        self.source.write_bytes(boot_sector(READER))
        os.truncate(self.source, DISK_BYTES)
        self._folder, self._mounts = folder, []
        self.order("ok")

    def order(self, word):
        temporary = self.control.with_name("control.new")
        temporary.write_text(word)
        temporary.rename(self.control)

    async def hang(self):
        """Answer no read any more, and return once the guest waits for one."""
        self.order("hang")
        while not hanging_sign(self.control).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def mount(self):
        mount_point = self._folder / f"mount{len(self._mounts)}"
        mount_point.mkdir()
        arguments = [sys.executable, __file__, self.source, self.control, mount_point]
        driver = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        self._mounts.append((driver, mount_point))
        assert driver.stdout.readline() == b"mounted\n"
        return mount_point / "disk.raw"

    def kill_driver(self):
        driver, _ = self._mounts[-1]
        driver.kill()
        driver.wait()

    def close(self):
        self.order("fail")
        for driver, mount_point in self._mounts:
            driver.kill()
            driver.wait()
            driver.stdout.close()
            subprocess.run(["fusermount3", "-u", "-z", mount_point], check=True)


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path)
    yield storage
    storage.close()


@pytest.fixture
def supervised(storage):
    """Runs a scenario on a running machine with its supervisor; no QEMU outlives the test."""

    def run(scenario, **options):
        async def go():
            instance = Instances().create(
                InstanceRecord(
                    name="one",
                    remote="test",
                    reference="alice/reader",
                    manifest_digest=DIGEST,
                    version="1",
                    firmware="bios",
                    architecture="x86_64",
                    memory_mib=32,
                    cpus=1,
                    accelerator="tcg",
                    mount_point="",
                    created="2026-01-01T00:00:00+00:00",
                )
            )
            machine = await launching.start(instance, storage.mount(), manifest_digest=DIGEST)
            reports = asyncio.Queue()
            supervisor = asyncio.ensure_future(
                watch(machine, reports.put_nowait, patience=Patience(0.05, 0.2), **options)
            )
            try:
                async with asyncio.timeout(100):
                    await more_reads(machine)
                    await scenario(machine, reports)
            finally:
                storage.order("fail")
                await launching.stop(instance, timeout_s=0)
                await supervisor
            assert "E" not in instance.console_log.read_text()

        asyncio.run(go())

    return run


async def more_reads(machine):
    """Wait until the guest has read more than it has now."""
    log = machine.instance.console_log
    size = log.stat().st_size if log.exists() else 0
    await console.wait_for_text(log, rf"\.{{{size + 10}}}", deadline_s=60, alive=machine.alive)


async def happens(reports, happening):
    report = await reports.get()
    assert report.happening is happening, report
    return report


def test_a_guest_sleeps_through_an_outage_and_sees_no_error(supervised, storage):
    async def scenario(machine, reports):
        for _ in range(2):
            storage.order("fail")
            assert "network" in (await happens(reports, Happening.PAUSED)).message
            storage.order("ok")
            await happens(reports, Happening.RUNNING_AGAIN)
            await more_reads(machine)

    supervised(scenario)


def test_a_guest_stands_still_while_its_storage_is_not_ready(supervised, storage):
    asked = asyncio.Event()

    async def ready():
        asked.set()
        return storage.control.read_text() == "ok"

    async def scenario(machine, reports):
        storage.order("fail")
        await happens(reports, Happening.PAUSED)
        await asked.wait()
        async with machine.monitor() as monitor:
            assert await monitor.status() == "io-error"
        storage.order("ok")
        await happens(reports, Happening.RUNNING_AGAIN)

    supervised(scenario, storage_ready=ready)


def test_a_guest_goes_on_after_its_driver_was_killed_and_the_image_mounted_again(supervised, storage):
    async def scenario(machine, reports):
        for _ in range(2):
            storage.kill_driver()
            await happens(reports, Happening.PAUSED)
            await reattach(machine, storage.mount(), manifest_digest=DIGEST)
            await happens(reports, Happening.RUNNING_AGAIN)
            await more_reads(machine)
        async with machine.monitor() as monitor:
            nodes = await monitor.execute("query-named-block-nodes", {"flat": True})
        assert sorted(node["node-name"] for node in nodes) == ["base-1", "base-file-1", "overlay", "overlay-file"]

    supervised(scenario)


def test_a_machine_whose_reads_hang_ends_once_they_are_made_to_fail(supervised, storage):
    async def scenario(machine, reports):
        await storage.hang()
        how = await launching.stop(machine.instance, timeout_s=0.5, fail_reads=lambda: storage.order("fail"))
        assert how is StoppedBy.QUIT

    supervised(scenario)


def test_a_machine_whose_reads_hang_for_good_is_killed_and_the_user_told_what_holds_it(
    supervised, storage, monkeypatch
):
    monkeypatch.setattr(launching, "_QUIT_DEADLINE_S", 0.5)
    monkeypatch.setattr(launching, "_FREED_QUIT_DEADLINE_S", 0.5)
    monkeypatch.setattr(launching, "_SIGNALS", ((signal.SIGTERM, 0.5), (signal.SIGKILL, 0.5)))

    async def scenario(machine, reports):
        await storage.hang()
        with pytest.raises(DeadlineExceededError) as refusal:
            await launching.stop(machine.instance, timeout_s=0)
        assert "umount" in refusal.value.hint
        storage.order("fail")
        assert await machine.wait(20)

    supervised(scenario)


def test_the_supervisor_bounds_the_console_log(supervised, monkeypatch):
    monkeypatch.setattr(watching, "CONSOLE_LOG_LIMIT_BYTES", 1000)
    monkeypatch.setattr(watching, "_IDLE_S", 0.1)

    async def scenario(machine, reports):
        old = machine.instance.console_log.with_name("console.log.old")
        while not old.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    supervised(scenario)


if __name__ == "__main__":
    serve(*sys.argv[1:])
