"""Real QEMU processes, under emulation, with a guest that is one boot sector: it greets, then echoes what is typed."""

import asyncio
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from oscirc_blockstore.errors import (
    BusyError,
    DeadlineExceededError,
    DocumentRefusedError,
    LocalError,
    NotFoundError,
    UsageError,
)
from oscirc_vmlaunch import console, launching
from oscirc_vmlaunch.accelerators import boot_sector
from oscirc_vmlaunch.instances import Instances, State
from oscirc_vmlaunch.launching import Condition, PausedBy, StoppedBy
from oscirc_vmlaunch.machine import PortForward
from oscirc_vmlaunch.records import RunRecord

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None or shutil.which("qemu-img") is None,
    reason="QEMU is not installed (qemu-system-x86, qemu-utils)",
)

GREETING = "hello from the boot sector"
ECHO = bytes.fromhex(
    "31c0 8ed8 be217c"  # xor ax, ax; mov ds, ax; mov si, 0x7c21
    "ac 84c0 7406 baf803 ee ebf5"  # next: lodsb; test al, al; jz echo; mov dx, 0x3f8; out dx, al; jmp next
    "bafd03 ec a801 74f8"  # echo: mov dx, 0x3fd; in al, dx; test al, 1; jz echo
    "baf803 ec ee ebf1"  # mov dx, 0x3f8; in al, dx; out dx, al; jmp echo
)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "mount, one" / "disk.raw"
    path.parent.mkdir()
    path.write_bytes(boot_sector(ECHO + GREETING.encode() + b"\r\n\0").ljust(1024 * 1024, b"\0"))
    return path


@pytest.fixture
def launch(instances, make_record, disk):
    """Runs a scenario with a fresh instance; no QEMU outlives the test."""

    def run(scenario, **changes):
        instance = instances.create(make_record(**changes))

        async def go():
            try:
                async with asyncio.timeout(60):
                    return await scenario(instance)
            finally:
                machine = launching.find(instance)
                if machine is not None:
                    machine.process.send(signal.SIGKILL)
                    await machine.wait(10)

        return asyncio.run(go())

    return run


async def greeted(machine):
    await console.wait_for_text(machine.instance.console_log, GREETING, deadline_s=30, alive=machine.alive)


def start(instance, disk, **options):
    return launching.start(instance, disk, manifest_digest=instance.record.manifest_digest, **options)


def test_a_machine_starts_is_found_by_other_commands_and_ends(launch, instances, disk, monkeypatch):
    monkeypatch.setattr(launching, "_QUIT_DEADLINE_S", 30)  # by itself, however busy this machine is

    async def scenario(instance):
        machine = await start(instance, disk)
        await greeted(machine)
        other = instances.load("one")
        assert await launching.state(other) is State.RUNNING
        assert other.record.mount_point == str(disk.parent)
        assert int(other.pid_file.read_text()) == launching.find(other).process.pid == machine.process.pid
        with pytest.raises(BusyError, match=f"process {machine.process.pid}"):
            await start(other, disk)
        with pytest.raises(BusyError):
            instances.remove("one")
        await console.type_text(other.console_socket, "typed")
        await console.wait_for_text(other.console_log, "typed", deadline_s=10)
        async with machine.monitor() as monitor:
            assert (await monitor.block_statistics("disk")).reads > 0
        assert await launching.stop(other, timeout_s=0) is StoppedBy.QUIT
        assert await launching.state(other) is State.STOPPED
        assert await launching.stop(other) is None

    launch(scenario)
    instances.remove("one")
    assert list(instances.root.iterdir()) == []


def test_a_stopped_machine_starts_again_with_a_fresh_log_on_a_mount_elsewhere(launch, disk, tmp_path):
    async def scenario(instance):
        await greeted(await start(instance, disk))
        await launching.stop(instance, timeout_s=0)
        overlay = instance.overlay.stat().st_ino
        moved = tmp_path / "elsewhere"
        disk.parent.rename(moved)
        machine = await start(instance, moved / "disk.raw", paused=True)
        assert not instance.console_log.exists() or not instance.console_log.read_bytes()
        async with machine.monitor() as monitor:
            await monitor.resume()
        await greeted(machine)
        assert instance.overlay.stat().st_ino == overlay

    launch(scenario)


@pytest.mark.parametrize(
    ("status", "disks", "expected"),
    [
        ("running", [], Condition(State.RUNNING)),
        ("paused", [], Condition(State.PAUSED, PausedBy.USER)),
        ("io-error", [{"qdev": "/machine/peripheral/disk/virtio-backend", "io-status": "failed"}], PausedBy.DISK),
        ("io-error", [{"qdev": "other", "io-status": "nospace"}, {"qdev": "disk"}], PausedBy.DISK),
        ("io-error", [{"qdev": "disk", "io-status": "nospace"}], PausedBy.FULL_DISK),
        ("io-error", None, PausedBy.DISK),
    ],
)
def test_a_pause_has_a_cause(instances, make_record, spawn, fake_qemu, status, disks, expected):
    async def go():
        instance = instances.create(make_record())
        instance.write_run(RunRecord(spawn("sleep", "60"), "tcg", "test", "/base", "2026-01-01T00:00:00+00:00"))
        async with fake_qemu(instance.command_socket) as qemu:
            qemu.set_status(status)
            qemu.answers["query-block"] = disks
            return await launching.condition(instance)

    if isinstance(expected, PausedBy):
        expected = Condition(State.PAUSED, expected)
    assert asyncio.run(go()) == expected


def test_a_paused_start_waits_for_the_console(launch, disk, tmp_path):
    async def scenario(instance):
        machine = await start(instance, disk, paused=True)
        assert await launching.state(instance) is State.PAUSED

        async def resume():
            async with machine.monitor() as monitor:
                await monitor.resume()

        with (tmp_path / "out").open("wb") as out, (tmp_path / "in").open("w+") as nothing:
            attachment = asyncio.ensure_future(
                console.attach(
                    instance.console_socket,
                    input_descriptor=nothing.fileno(),
                    output_descriptor=out.fileno(),
                    attached=resume,
                )
            )
            await greeted(machine)
            await launching.stop(instance, timeout_s=0)
            assert await attachment is console.Ended.GUEST_ENDED
        assert (tmp_path / "out").read_bytes() == instance.console_log.read_bytes()

    launch(scenario)


def test_nothing_is_left_of_an_ephemeral_machine(launch, instances, disk):
    async def scenario(instance):
        await start(instance, disk)
        await launching.stop(instance, timeout_s=0)

    launch(scenario, ephemeral=True)
    assert list(instances.root.iterdir()) == []


def test_another_image_is_refused_before_anything_is_made(launch, disk):
    async def scenario(instance):
        with pytest.raises(UsageError, match="made on"):
            await launching.start(instance, disk, manifest_digest="cd" * 32)
        assert await launching.state(instance) is State.CREATED
        assert not instance.overlay.exists()

    launch(scenario)


def test_an_overlay_that_is_not_ours_is_refused(launch, disk):
    async def scenario(instance):
        instance.overlay.write_bytes(b"#!/bin/sh\n" * 100)
        with pytest.raises(DocumentRefusedError):
            await start(instance, disk)

    launch(scenario)


def test_a_taken_port_is_explained_and_leaves_no_process(launch, disk):
    async def scenario(instance):
        with pytest.raises(LocalError, match="host forwarding") as refusal:
            await start(instance, disk)
        assert "-p" in refusal.value.hint
        assert await launching.state(instance) is State.STOPPED
        with instance.lock():
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        launch(scenario, port_forwards=(PortForward(server.getsockname()[1], 22),))


def test_a_failed_ephemeral_start_leaves_nothing(launch, instances, disk, monkeypatch):
    monkeypatch.setattr(launching.programs, "find_qemu", lambda architecture: Path(shutil.which("false")))

    async def scenario(instance):
        with pytest.raises(LocalError, match="did not start"):
            await start(instance, disk)

    launch(scenario, ephemeral=True)
    assert list(instances.root.iterdir()) == []


@pytest.fixture
def silent_qemu(tmp_path, monkeypatch):
    """A QEMU that starts and never answers."""
    program = tmp_path / "qemu-silent"
    program.write_text("#!/bin/sh\necho starting up\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(launching.programs, "find_qemu", lambda architecture: program)


@pytest.mark.usefixtures("silent_qemu")
def test_a_qemu_that_does_not_answer_is_ended_at_the_deadline(launch, disk):
    async def scenario(instance):
        with pytest.raises(DeadlineExceededError, match="starting up"):
            await start(instance, disk, deadline_s=4)
        assert not instance.last_run().process.alive()

    launch(scenario)


@pytest.mark.usefixtures("silent_qemu")
def test_a_cancelled_start_leaves_no_process(launch, disk):
    async def scenario(instance):
        starting = asyncio.ensure_future(start(instance, disk))
        while instance.last_run() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not instance.last_run().process.alive()
        with instance.lock():
            pass

    launch(scenario)


def test_other_readers_are_left_alone_when_qemu_quits_by_itself(launch, disk, monkeypatch):
    monkeypatch.setattr(launching, "_QUIT_DEADLINE_S", 30)  # by itself, however busy this machine is

    async def scenario(instance):
        await start(instance, disk)
        failed = []
        how = await launching.stop(instance, timeout_s=0.1, fail_reads=lambda: failed.append(1))
        assert how is StoppedBy.QUIT
        assert failed == []

    launch(scenario)


def test_reads_are_made_to_fail_before_qemu_is_killed(launch, disk, monkeypatch):
    monkeypatch.setattr(launching, "_QUIT_DEADLINE_S", 0.2)
    monkeypatch.setattr(launching, "_FREED_QUIT_DEADLINE_S", 30)

    async def scenario(instance):
        machine = await start(instance, disk)
        machine.process.send(signal.SIGSTOP)
        how = await launching.stop(instance, timeout_s=0, fail_reads=lambda: machine.process.send(signal.SIGCONT))
        assert how is StoppedBy.QUIT

    launch(scenario)


def test_a_qemu_that_hangs_is_killed_and_the_instance_starts_again(launch, disk, monkeypatch):
    monkeypatch.setattr(launching, "_QUIT_DEADLINE_S", 0.2)
    monkeypatch.setattr(launching, "_SIGNALS", ((signal.SIGTERM, 0.2), (signal.SIGKILL, 15)))

    async def scenario(instance):
        machine = await start(instance, disk)
        machine.process.send(signal.SIGSTOP)
        assert await launching.stop(instance, timeout_s=0) is StoppedBy.SIGNAL
        await greeted(await start(instance, disk))

    launch(scenario)


def test_a_folder_with_a_long_path_is_as_good_as_another(launch, disk, tmp_path, make_record):
    instances = Instances(tmp_path.joinpath(*["long folder name"] * 10))
    instance = instances.create(make_record())
    assert len(os.fsencode(instance.command_socket)) > 107

    async def scenario(_):
        machine = await start(instance, disk)
        try:
            await greeted(machine)
            await console.type_text(instance.console_socket, "typed")
        finally:
            await launching.stop(instance, timeout_s=0)

    launch(scenario)
    assert instance.qemu_log.read_text() == ""


def test_a_machine_without_its_disk_is_not_started(launch, tmp_path):
    async def scenario(instance):
        with pytest.raises(NotFoundError, match="no disk"):
            await start(instance, tmp_path / "disk.raw")

    launch(scenario)
