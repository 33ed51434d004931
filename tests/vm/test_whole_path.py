"""The main job as a user does it: publish a real disk, mount it, boot it over HTTP; as root and as an ordinary user."""

import hashlib
import os
import subprocess

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

# By UEFI an ordinary user's guest boots every day, by BIOS the launcher's own (`test_launch_small.py`); where the tests
# are not root's, there is no other user to be, and both boot as who runs them.
BESIDE_THE_ORDINARY_USER = [pytest.mark.vm] if os.geteuid() == 0 else []
pytestmark = pytest.mark.timeout(800)  # longer than the sum of the deadlines inside, so that these say what was slow
BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")


def sha256(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def whole_path(station, tmp_path, disk, firmware):
    """Publish, mount, compare, boot, count, stop, remove; as `station`'s user."""
    repository = initialise(station, tmp_path / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        options = ("--key", "alice", "--firmware", firmware, "--memory", "256")
        published = station.json("publish", disk, "test:alice/circuit@1", *options)
        assert published["uploaded_bytes"] > 0

        booted = station.json("boot", "test:alice/circuit", "--name", "one", *BOOT, timeout=200)
        assert booted["firmware"] == firmware
        status = station.json("status", "one")
        assert 0 < status["fetched_bytes"] < 0.7 * published["stored_bytes"]
        assert [(i["name"], i["state"]) for i in station.json("ps")["instances"]] == [("one", "running")]
        assert "circuit login:" in station.run("log", "one")
        station.run("stop", "one", timeout=120)
        assert station.json("ps")["instances"][0]["state"] == "stopped"
        station.run("rm", "one")
        assert station.json("ps")["instances"] == []
        for mount in station.json("status")["mounts"]:
            station.run("umount", mount["mountpoint"])

        mountpoint = station.home / "mnt"
        mountpoint.mkdir(exist_ok=True)
        if station.prefix:
            subprocess.run(["chown", "--reference", station.home, mountpoint], check=True)
        station.run("mount", "test:alice/circuit", mountpoint)
        if not station.prefix:
            assert sha256(mountpoint / "disk.raw") == sha256(disk)
        else:  # root cannot read another user's mount: that user compares
            command = [*station.prefix, "sha256sum", str(mountpoint / "disk.raw")]
            assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0] == sha256(disk)
        station.run("umount", mountpoint)


@pytest.mark.guest
@pytest.mark.fuse
@pytest.mark.parametrize("firmware", [pytest.param(each, marks=BESIDE_THE_ORDINARY_USER) for each in ("bios", "uefi")])
def test_publish_mount_and_boot(tmp_path, small_disk, firmware):
    whole_path(Workstation(tmp_path / "user"), tmp_path, small_disk(1, firmware), firmware)


@pytest.mark.guest
@pytest.mark.fuse
@pytest.mark.root
def test_publish_mount_and_boot_as_an_ordinary_user(ordinary_user, small_disk):
    home, prefix, python, environment = ordinary_user
    disk = home / "disk.raw"
    subprocess.run(["cp", "--sparse=always", str(small_disk(1, "uefi")), str(disk)], check=True)
    station = Workstation(home, prefix=prefix, python=python, extra=environment)
    subprocess.run(["chown", "-R", "--reference", home, disk, *station.directories], check=True)
    assert os.geteuid() == 0
    whole_path(station, home, disk, "uefi")
