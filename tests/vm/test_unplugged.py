"""A fully cached image boots with the network cut: in a network namespace that has no interface."""

import subprocess

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.root]
UNPLUGGED = ("unshare", "--net", "--")
BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")


def test_a_pulled_image_boots_where_there_is_no_network(tmp_path, small_disk):
    station = Workstation(tmp_path / "user")
    repository = initialise(station, tmp_path / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        station.json("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
        station.json("pull", "test:alice/circuit")
        assert station.json("status", "test:alice/circuit")["safe_to_unplug"]

    cut = Workstation(station.home, prefix=UNPLUGGED)
    shown = subprocess.run([*UNPLUGGED, "ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert len(shown.splitlines()) == 1  # the loopback, which is down
    assert "UP" not in shown.split(">")[0]
    done = cut.attempt("boot", "test:alice/circuit", "--name", "one", *BOOT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr  # it could not be asked whether there is a newer version
    status = station.json("status", "one")
    assert (status["fetched_blocks"], status["fetched_bytes"], status["failed_reads"]) == (0, 0, 0)
    assert "circuit login:" in station.run("log", "one")
    station.run("stop", "one", timeout=120)
    for mount in station.json("status")["mounts"]:
        station.run("umount", mount["mountpoint"])
