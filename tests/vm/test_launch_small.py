"""The small guest as an instance: it boots by either firmware, keeps what it wrote, and shuts down when asked to."""

import asyncio
import re
import signal
import socket
import urllib.request

import pytest

from oscirc_vmlaunch import console, launching
from oscirc_vmlaunch.instances import Instances, State
from oscirc_vmlaunch.launching import StoppedBy
from oscirc_vmlaunch.machine import PortForward
from oscirc_vmlaunch.records import InstanceRecord

# Longer than the sum of the deadlines inside, so that these say what was slow.
pytestmark = [pytest.mark.guest, pytest.mark.timeout(800)]

BOOT_DEADLINE_S = 150
PROMPT = r"root@circuit\S* "


@pytest.fixture
def make_instance():
    """Makes instances of the small guest; no QEMU outlives the test."""
    instances = Instances()

    def make(name="one", **changes):
        facts = {
            "remote": "test",
            "reference": "alice/circuit",
            "manifest_digest": "ab" * 32,
            "version": "1",
            "firmware": "bios",
            "architecture": "x86_64",
            "memory_mib": 256,
            "cpus": 1,
            "accelerator": "tcg",
            "mount_point": "",
            "created": "2026-01-01T00:00:00+00:00",
        }
        return instances.create(InstanceRecord(name=name, **(facts | changes)))

    yield make
    for instance in instances.load_all():
        machine = launching.find(instance)
        if machine is not None:
            machine.process.send(signal.SIGKILL)
            assert asyncio.run(machine.wait(20))


def start(instance, disk):
    return launching.start(instance, disk, manifest_digest=instance.record.manifest_digest)


def printed(machine, pattern, deadline_s=30):
    log = machine.instance.console_log
    return console.wait_for_text(log, pattern, deadline_s=deadline_s, alive=machine.alive)


async def log_in(machine):
    socket_ = machine.instance.console_socket
    await printed(machine, "circuit login:", BOOT_DEADLINE_S)
    await console.type_text(socket_, "root\n")
    await printed(machine, "Password:")
    await console.type_text(socket_, "oscirc\n")
    await printed(machine, PROMPT)


@pytest.mark.parametrize("firmware", ["bios", pytest.param("uefi", marks=pytest.mark.vm)])  # the whole path is UEFI's
def test_the_guest_boots_keeps_what_it_wrote_and_shuts_down(small_disk, make_instance, firmware):
    disk = small_disk(1, firmware)
    before = (disk.stat().st_size, disk.stat().st_mtime_ns)

    async def go():
        instance = make_instance(firmware=firmware)
        machine = await start(instance, disk)
        await log_in(machine)
        assert await launching.state(instance) is State.RUNNING
        await console.type_text(instance.console_socket, "echo written > /root/kept && sync && echo do''ne\n")
        await printed(machine, "done")
        assert await launching.stop(instance, timeout_s=60) is StoppedBy.POWER_BUTTON
        assert (instance.variables.exists()) == (firmware == "uefi")

        machine = await start(instance, disk)
        await log_in(machine)
        await console.type_text(instance.console_socket, "echo it says $(cat /root/kept)\n")
        await printed(machine, "it says written")
        assert await launching.stop(instance, timeout_s=60) is StoppedBy.POWER_BUTTON
        assert await launching.state(instance) is State.STOPPED

    asyncio.run(go())
    assert (disk.stat().st_size, disk.stat().st_mtime_ns) == before


@pytest.mark.vm
def test_a_forwarded_port_reaches_the_guest_and_an_ephemeral_guest_leaves_nothing(small_disk, make_instance):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def page():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return answer.read().decode()

    async def go():
        instance = make_instance(port_forwards=(PortForward(port, 80),), ephemeral=True)
        machine = await start(instance, small_disk())
        await printed(machine, "circuit login:", BOOT_DEADLINE_S)
        async with asyncio.timeout(60):
            while True:
                try:
                    text = await asyncio.to_thread(page)
                    break
                except OSError:  # the guest's network comes up beside its login prompt
                    await asyncio.sleep(0.2)
        assert re.search(r"\b1\b", text)
        async with machine.monitor() as monitor:
            await monitor.pause()
        assert await launching.state(instance) is State.PAUSED
        assert await launching.stop(instance, timeout_s=60) is StoppedBy.POWER_BUTTON
        assert not instance.directory.exists()

    asyncio.run(go())
