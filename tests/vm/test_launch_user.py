"""Nothing in this room needs root: a guest is started, watched and stopped by an ordinary user."""

import os
import subprocess

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.root]

PROGRAM = """
import asyncio
from pathlib import Path
from oscirc_vmlaunch import console, launching
from oscirc_vmlaunch.accelerators import boot_sector
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.records import InstanceRecord
from oscirc_vmlaunch.watching import watch

DIGEST = "ab" * 32
# mov dx, 0x3f8; mov al, '!'; out dx, al; stop: hlt; jmp stop
CODE = bytes.fromhex("baf803 b021 ee f4 ebfd")

launching._QUIT_DEADLINE_S = 30  # by itself, however busy this machine is

async def main():
    disk = Path.home() / "disk.raw"
    disk.write_bytes(boot_sector(CODE).ljust(2**20, bytes(1)))
    record = InstanceRecord(
        name="one", remote="", reference="", manifest_digest=DIGEST, version="", firmware="bios", architecture="x86_64",
        memory_mib=32, cpus=1, accelerator="auto", mount_point="", created="", ephemeral=True,
    )
    instance = Instances().create(record)
    machine = await launching.start(instance, disk, manifest_digest=DIGEST)
    print(machine.accelerator)
    supervisor = asyncio.ensure_future(watch(machine, print))
    try:
        await console.wait_for_text(instance.console_log, "!", deadline_s=60, alive=machine.alive)
    finally:
        print(await launching.stop(instance, timeout_s=0))
        await supervisor
    assert Instances().names() == []

asyncio.run(main())
"""


def test_an_ordinary_user_runs_a_guest(ordinary_user):
    home, prefix, interpreter, environment = ordinary_user
    own = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    outcome = subprocess.run(
        [*prefix, interpreter, "-c", PROGRAM],
        env=own | environment | {"HOME": str(home)},
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "StoppedBy.QUIT" in outcome.stdout
