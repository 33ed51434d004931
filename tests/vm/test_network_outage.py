"""A guest whose network goes away in mid-read, as a user sees it: `boot`, `ps`, `status`, `console`, and no error in it."""

import json
import os
import random
import re
import signal
import subprocess
import time

import pytest
from support.commands import Workstation, add_publisher, end, initialise, serving
from support.fault_server import FaultServer, slow

from oscirc_vmlaunch.accelerators import boot_sector

from .test_launch_outage import READER

pytestmark = [pytest.mark.guest, pytest.mark.fuse]

BLOCK = 65536
DISK_BYTES = 40 * 1024 * 1024


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The plain files of a repository with a guest that reads through its disk, for ever, and their pin."""
    base = tmp_path_factory.mktemp("reader")
    publisher = Workstation(base / "publisher")
    disk = base / "disk.raw"
    disk.write_bytes(boot_sector(READER) + random.Random(1).randbytes(DISK_BYTES - 512))
    repository = initialise(publisher, base / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        publisher.run("publish", disk, "test:alice/reader@1", "--key", "alice", "--block-size", BLOCK)
    return repository.tree, repository.url.partition("#")[2]


@pytest.fixture
def station(tmp_path):
    station = Workstation(tmp_path / "user")
    yield station
    station.attempt("rm", "--force", "one")
    for mount in station.json("status")["mounts"]:
        station.attempt("umount", mount["mountpoint"])


def until(condition, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def reported(log):
    """What the supervisor of a guest has written beside its console's log."""
    supervisor = log.with_name("supervisor.log")
    return supervisor.read_text() if supervisor.exists() else ""


def shown_of(station):
    """The guest's row in `oscirc ps`."""
    return next(line for line in station.run("ps").splitlines() if line.startswith("one"))


def test_a_guest_waits_for_the_network_and_everybody_is_told(tree, station, tmp_path):
    files, pin = tree
    with FaultServer(files) as mirror:
        mirror.inject("blocks/*", slow(0.05))
        station.run("remote", "add", "m", f"{mirror.url}#{pin}")
        options = ("--accel", "tcg", "--memory", "32", "--cpus", "1", "--deadline", "1", "--wait-for", r"\.{10}")
        station.run("boot", "m:alice/reader", "--name", "one", *options)
        log = station.home / "data" / "oscirc" / "instances" / "one" / "console.log"

        mirror.close()
        until(lambda: "paused (network)" in shown_of(station), "ps shows the pause and its cause")
        facts = station.json("status", "one")
        assert (facts["state"], facts["paused_by"]) == ("paused", "network")
        assert facts["network_gone_s"] > 0
        words = station.run("status", "one").splitlines()[0]
        assert re.search(r"paused \(network\): the network is gone since \d\d:\d\d:\d\d \(\d+ s\): .*refused", words)
        assert "by themselves when it is back, and so does the guest" in words

        said = tmp_path / "said"
        with said.open("w") as file:
            console = station.start("console", "one", stderr=file, stdout=subprocess.DEVNULL)

        def told(pattern):
            return re.search(pattern, said.read_text())

        until(lambda: told(r"paused \(network\): the network is gone"), "the console says it at once")
        dots = log.stat().st_size
        mirror.start()
        until(lambda: told("the guest runs again after"), "the console says that it goes on")
        until(lambda: log.stat().st_size > dots, "the guest reads on")
        end(console)

        assert " running " in shown_of(station)
        assert station.json("status", "one")["network_problem"] == ""
        assert json.loads(station.run("ps", "--json"))["instances"][0]["paused_by"] == ""
        assert "E" not in log.read_text()
        supervisor = (log.parent / "supervisor.log").read_text()
        assert "paused: the network is gone since" in supervisor
        station.run("stop", "one", "--timeout", "0")


def test_the_terminal_of_boot_says_it_too(tree, station, tmp_path):
    files, pin = tree
    said, shown = tmp_path / "said", tmp_path / "shown"
    with FaultServer(files) as mirror:
        mirror.inject("blocks/*", slow(0.05))
        station.run("remote", "add", "m", f"{mirror.url}#{pin}")
        options = ("--accel", "tcg", "--memory", "32", "--cpus", "1", "--deadline", "1")
        with said.open("w") as errors, shown.open("w") as output:
            boot = station.start("boot", "m:alice/reader", "--name", "one", *options, stderr=errors, stdout=output)
        try:
            until(lambda: "." * 10 in shown.read_text(), "the guest reads")
            mirror.close()
            until(
                lambda: re.search(r"paused: the network is gone since .* so does the guest", said.read_text()), "told"
            )
            mirror.start()
            until(lambda: "the guest runs again after" in said.read_text(), "it goes on")
        finally:
            end(boot)
    assert "E" not in shown.read_text()


def test_a_guest_whose_driver_is_killed_gets_a_new_one_and_sees_no_error(tree, station):
    files, pin = tree
    with FaultServer(files) as mirror:
        mirror.inject("blocks/*", slow(0.05))
        station.run("remote", "add", "m", f"{mirror.url}#{pin}")
        options = ("--accel", "tcg", "--memory", "32", "--cpus", "1", "--deadline", "3", "--wait-for", r"\.{10}")
        station.run("boot", "m:alice/reader", "--name", "one", *options)
        log = station.home / "data" / "oscirc" / "instances" / "one" / "console.log"
        for time_ in (1, 2):
            (mount,) = station.json("status")["mounts"]
            os.kill(mount["pid"], signal.SIGKILL)
            until(lambda count=time_: reported(log).count("runs again") == count, f"it runs again, time {time_}")
            assert reported(log).count("paused: the driver of its disk died") == time_
            dots = log.stat().st_size
            until(lambda before=dots: log.stat().st_size > before, "the guest reads on")
        (again,) = station.json("status")["mounts"]
        assert (again["mountpoint"], again["stale"]) == (mount["mountpoint"], False)
        assert again["pid"] != mount["pid"]
        assert "E" not in log.read_text()
        station.run("stop", "one", "--timeout", "0")
        assert station.json("status")["mounts"] == []


def test_a_guest_whose_image_cannot_be_mounted_again_stays_paused_and_says_why(tree, station):
    files, pin = tree
    with FaultServer(files) as mirror:
        mirror.inject("blocks/*", slow(0.05))
        station.run("remote", "add", "m", f"{mirror.url}#{pin}")
        options = ("--accel", "tcg", "--memory", "32", "--cpus", "1", "--wait-for", r"\.{10}")
        station.run("boot", "m:alice/reader", "--name", "one", *options)
        log = station.home / "data" / "oscirc" / "instances" / "one" / "console.log"
        (mount,) = station.json("status")["mounts"]
        remotes = station.home / "data" / "oscirc" / "remotes"
        remotes.rename(remotes.with_name("away"))
        os.kill(mount["pid"], signal.SIGKILL)
        until(lambda: "still paused: cannot mount the image again" in reported(log), "why it stays paused")
        assert "paused (driver)" in shown_of(station)
        remotes.with_name("away").rename(remotes)
        until(lambda: "runs again" in reported(log), "it goes on once it can")
        assert "E" not in log.read_text()
        station.run("stop", "one", "--timeout", "0")
