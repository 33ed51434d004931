"""A machine's changes become a version: the small guest writes, is shut down, published cleaned, and boots elsewhere."""

import asyncio

import pytest
from support import changed_images
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_vmlaunch import console
from oscirc_vmlaunch.instances import Instances

pytestmark = [pytest.mark.vm, pytest.mark.fuse, pytest.mark.timeout(900)]

BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")
MIB = 1 << 20
WRITES = (
    "echo to be published > /root/note",
    "mkdir -p /root/.ssh /etc/app",
    "(echo '-----BEGIN PRIVATE KEY-----'; head -c 300 /dev/urandom | base64; echo '-----END') > /etc/app/own.pem",
    "echo ssh-ed25519 SECRET-KEY > /root/.ssh/authorized_keys",
    "echo 0123456789abcdef0123456789abcdef > /etc/machine-id",
    "yes SECRET-DELETED | head -n 20000 > /root/gone; sync; rm /root/gone; sync",
)


def typed(station, name, *commands):
    """Log in on the console of an instance and type commands there; what the console shows after that."""
    instance = Instances(station.home / "data" / "oscirc" / "instances").load(name)
    socket, log = instance.console_socket, instance.console_log

    async def printed(pattern):
        await console.wait_for_text(log, pattern, deadline_s=60, alive=lambda: True)

    async def go():
        await console.type_text(socket, "root\n")
        await printed("Password:")
        await console.type_text(socket, "oscirc\n")
        await printed(r"root@circuit\S* ")
        for number, command in enumerate(commands):
            await console.type_text(socket, f"{command}; echo end of ''{number}\n")
            await printed(f"end of {number}")

    asyncio.run(go())
    return log.read_text(errors="replace")


def test_what_the_guest_wrote_is_in_the_new_version_and_what_is_private_is_not(small_disk, tmp_path):
    operator, alice, bob = (Workstation(tmp_path / name) for name in ("operator", "alice", "bob"))
    repository = initialise(operator, tmp_path / "repository")
    with serving(operator, repository):
        add_publisher(alice, repository, "alice")
        alice.json("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
        alice.run("boot", "test:alice/circuit@1", "--name", "mine", *BOOT, timeout=200)
        publish = ("publish", "instance:mine", "test:alice/circuit@2", "--key", "alice")
        assert "oscirc stop mine" in alice.refused(*publish, "--dry-run", code=6)
        typed(alice, "mine", *WRITES)
        alice.run("stop", "mine", timeout=120)

        found = {find["where"] for find in alice.json(*publish, "--dry-run")["private"]}
        assert {"/root/.ssh/authorized_keys", "/etc/machine-id", "/etc/app/own.pem"} <= found
        assert "--clean" in alice.refused(*publish, code=2)
        facts = alice.json(*publish, "--clean")
        assert facts["cleaned"]
        assert facts["overlay_bytes_read"] < 8 * facts["changed_bytes"]
        assert facts["new_blocks"] <= facts["changed_blocks"] < 0.2 * facts["data_blocks"]

        bob.run("remote", "add", "test", repository.url)
        bob.run("boot", "test:alice/circuit", "--name", "new", *BOOT, timeout=200)
        shown = typed(bob, "new", "cat /root/note", "wc -c /etc/machine-id /etc/app/own.pem")
        assert "to be published" in shown
        assert "0 /etc/machine-id" in shown
        assert "0 /etc/app/own.pem" in shown
        bob.run("rm", "--force", "new")
        mountpoint = tmp_path / "mnt"
        mountpoint.mkdir()
        bob.run("mount", "test:alice/circuit@2", mountpoint)
        disk = (mountpoint / "disk.raw").read_bytes()
        bob.run("umount", mountpoint)
        assert b"SECRET-KEY" not in disk
        assert b"SECRET-DELETED" not in disk
        assert b"BEGIN PRIVATE KEY" not in disk
        changed_images.check(disk, tmp_path, start=MIB)

        alice.run("boot", "mine", *BOOT, timeout=200)
        assert "ssh-ed25519 SECRET-KEY" in typed(alice, "mine", "cat /root/.ssh/authorized_keys")  # it is as it was
        alice.run("rm", "--force", "mine")
        for station in (alice, bob):
            for mount in station.json("status")["mounts"]:
                station.run("umount", mount["mountpoint"])


def test_a_guest_that_was_killed_is_not_cleaned(small_disk, tmp_path):
    alice = Workstation(tmp_path / "alice")
    repository = initialise(alice, tmp_path / "repository")
    with serving(alice, repository):
        add_publisher(alice, repository, "alice")
        alice.json("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
        alice.run("boot", "test:alice/circuit@1", "--name", "mine", *BOOT, timeout=200)
        typed(alice, "mine", "echo more > /root/more; sync")
        alice.run("stop", "mine", "--timeout", "0", timeout=120)
        publish = ("publish", "instance:mine", "test:alice/circuit@2", "--key", "alice")
        said = alice.refused(*publish, "--clean", code=2)
        assert "not unmounted" in said
        assert "oscirc boot" in said
        alice.run("rm", "--force", "mine")
        for mount in alice.json("status")["mounts"]:
            alice.run("umount", mount["mountpoint"])
