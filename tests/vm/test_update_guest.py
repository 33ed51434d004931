"""A real guest through an update and back: its system moves with the version, its data disk stays, nothing is lost.

Network on and off: the guest is rolled back, and pinned ones boot, in a network namespace that has no interface.
"""

import asyncio
import json

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_vmlaunch import console
from oscirc_vmlaunch.instances import Instances

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.root, pytest.mark.vm, pytest.mark.timeout(900)]

BOOT = ("--accel", "tcg", "--wait-for", "circuit login:", "--timeout", "150")
UNPLUGGED = ("unshare", "--net", "--")
IMAGE = "test:alice/circuit"
LOOK = "head -c 4 /dev/vdb; echo; cat /root/system /usr/share/www/index.html"


def in_guest(station, name, command):
    """Log in, run one command, and return all that the console showed; the command's own words are not among it."""
    instance = Instances(station.home / "data" / "oscirc" / "instances").load(name)
    log, socket = instance.console_log, instance.console_socket

    async def go():
        await console.type_text(socket, "root\n")
        await console.wait_for_text(log, "Password:", deadline_s=30, alive=lambda: True)
        await console.type_text(socket, "oscirc\n")
        await console.wait_for_text(log, r"root@circuit\S* ", deadline_s=30, alive=lambda: True)
        await console.type_text(socket, f"{command}; echo do''ne\n")
        await console.wait_for_text(log, "done", deadline_s=30, alive=lambda: True)

    asyncio.run(go())
    return "\n".join(line for line in log.read_text(errors="replace").splitlines() if command[:20] not in line)


@pytest.fixture
def world(tmp_path, small_disk):
    """A repository with versions 1 (stable) and 2 (testing) of the small guest; a workstation that has both."""
    publisher, station = Workstation(tmp_path / "publisher"), Workstation(tmp_path / "user")
    repository = initialise(publisher, tmp_path / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        for version, channel in ((1, "stable"), (2, "testing")):
            options = ("--key", "alice", "--memory", "256", "--channel", channel)
            publisher.json("publish", small_disk(version), f"{IMAGE}@{version}", *options)
        station.run("remote", "add", "test", repository.url)
        try:
            yield publisher, repository, station
        finally:
            for instance in station.json("ps")["instances"]:
                station.attempt("rm", "--force", instance["name"])


def set_channel(publisher, version, name="stable"):
    publisher.run("channel", "set", f"{IMAGE}@{version}", name, "--key", "alice")


def test_a_guest_is_updated_and_brought_back_and_keeps_its_data(world):
    publisher, _, station = world
    cut = Workstation(station.home, prefix=UNPLUGGED)
    station.run("boot", "alice/circuit", "--name", "web", "--data-disk", "16M", *BOOT, timeout=200)
    write = "echo wri''tten > /root/system; echo ke''pt | dd of=/dev/vdb bs=512 conv=sync 2>/dev/null; sync"
    assert "version 1" in in_guest(station, "web", f"{write}; {LOOK}")
    assert "running" in station.run("ps")
    set_channel(publisher, 2)
    assert "oscirc stop web" in station.refused("update", "web", "--policy", "drop-system", code=6)
    station.run("stop", "web", timeout=120)

    assert "--policy drop-system" in station.refused("update", "web", code=2)
    done = station.json("update", "web", "--policy", "drop-system")
    assert (done["version"], done["kept"]) == ("2", ["1"])
    station.run("boot", "web", "--accel", "tcg", *BOOT[2:], timeout=200)
    shown = in_guest(station, "web", LOOK)
    assert "version 2" in shown
    assert "kept" in shown
    assert "written" not in shown
    station.run("stop", "web", timeout=120)

    # rolled back where there is no network, and booted there
    station.json("pull", f"{IMAGE}@1")
    done = cut.json("rollback", "web")
    assert (done["version"], done["left"]) == ("1", "2")
    cut.run("boot", "web", *BOOT, timeout=200)
    shown = in_guest(station, "web", LOOK)
    assert "version 1" in shown
    assert "kept" in shown
    assert "written" in shown
    station.run("stop", "web", timeout=120)
    listed = station.json("rollback", "web", "--list")["kept"]
    assert [(each["version"], each["by"]) for each in listed] == [("2", "rollback")]
    done = station.attempt("rm", "web")
    assert "its data disk" in done.stderr


def test_a_boot_tells_of_news_refuses_what_is_insecure_and_a_pinned_guest_boots_unplugged(world):
    publisher, _, station = world
    cut = Workstation(station.home, prefix=UNPLUGGED)
    station.json("pull", f"{IMAGE}@1")
    station.run("boot", "alice/circuit", "--name", "web", *BOOT, timeout=200)
    station.run("stop", "web", "--timeout", "0")
    station.run("boot", "alice/circuit@1", "--name", "still", *BOOT, timeout=200)
    station.run("stop", "still", "--timeout", "0")
    set_channel(publisher, 2)

    done = station.attempt("boot", "web", "--detach", "--json")
    assert done.returncode == 0, done.stderr
    assert "means 2 now" in done.stderr
    assert json.loads(done.stdout)["newer_version"] == "2"
    station.run("stop", "web", "--timeout", "0")
    # the channel that it follows names the instance, on the version that it has
    done = station.attempt("boot", "alice/circuit", "--name", "web", "--detach")
    assert (done.returncode, "means 2 now" in done.stderr) == (0, True), done.stderr
    station.run("stop", "web", "--timeout", "0")

    done = cut.attempt("boot", "still", *BOOT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "means 2" not in done.stderr
    station.run("stop", "still", "--timeout", "0")

    publisher.run("yank", f"{IMAGE}@1", "--why", "it eats files", "--key", "alice")
    for one in (station, cut):
        done = one.attempt("boot", "still", "--detach")
        assert (done.returncode, done.stderr.count("it eats files")) == (0, 1), done.stderr
        station.run("stop", "still", "--timeout", "0")
    publisher.run("yank", f"{IMAGE}@1", "--why", "a hole", "--security", "--key", "alice")
    for one in (station, cut):
        assert "a hole" in one.refused("boot", "still", "--detach", code=4)
    done = cut.attempt("boot", "still", "--detach", "--allow-revoked")
    assert (done.returncode, "a hole" in done.stderr) == (0, True), done.stderr
    station.run("stop", "still", "--timeout", "0")
