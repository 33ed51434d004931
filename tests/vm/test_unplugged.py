"""An image that was pulled boots with the network cut: in a network namespace that has no interface.

All of it; and, of another workstation, no more than what its recorded boot read, on another machine than it was
recorded on: so `ready to boot` and `safe to unplug` mean what they say.
"""

import subprocess

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.root, pytest.mark.timeout(800)]
UNPLUGGED = ("unshare", "--net", "--")
BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")
RECORD = ("--record-until", "circuit login:", "--record-accel", "tcg", "--record-settle", "0.5")


def boot_unplugged(station):
    """Boot it where there is no network; nothing was fetched, and nothing failed."""
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


@pytest.mark.vm
def test_a_pulled_image_boots_where_there_is_no_network(tmp_path, small_disk):
    station = Workstation(tmp_path / "user")
    repository = initialise(station, tmp_path / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        station.json("publish", small_disk(), "test:alice/circuit@1", "--key", "alice", "--memory", "256")
        station.json("pull", "test:alice/circuit")
        facts = station.json("status", "test:alice/circuit")
        assert (facts["safe_to_unplug"], facts["ready_to_boot"], facts["opens_offline"]) == (True, True, True)
    boot_unplugged(station)
    # what an instance stands on stays whatever the limit, with and without a mount; what nobody needs goes
    needed = station.json("cache", "info")["needed_bytes"]
    assert needed >= facts["cached_bytes"]
    assert station.json("cache", "gc", "--limit", "1K")["left_bytes"] == needed
    station.run("rm", "one")
    assert station.json("cache", "gc", "--limit", "1K")["left_bytes"] == 0


@pytest.mark.vm
def test_what_is_ready_to_boot_boots_where_there_is_no_network(tmp_path, small_disk):
    publisher, station = Workstation(tmp_path / "publisher"), Workstation(tmp_path / "user")
    repository = initialise(publisher, tmp_path / "repository")
    options = ("--key", "alice", "--memory", "256", "--profile", "auto", *RECORD)
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        publisher.json("publish", small_disk(), "test:alice/circuit@1", *options, timeout=300)
        station.run("remote", "add", "test", repository.url)
        station.json("pull", "test:alice/circuit", "--profile-only")
        facts = station.json("status", "test:alice/circuit")
    assert (facts["ready_to_boot"], facts["safe_to_unplug"]) == (True, False)
    assert facts["cached_percent"] < 90
    boot_unplugged(station)
