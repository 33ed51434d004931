"""How `oscirc boot` begins: the bundle is under way while trust is checked, and boots of one image share one mount."""

import pytest
from support.fault_server import FaultServer, stall

IMAGE = "m:alice/tiny"
SMALL = ("--accel", "tcg", "--memory", "32", "--cpus", "1", "--detach")

pytestmark = [pytest.mark.guest, pytest.mark.fuse]


@pytest.fixture
def mirror(recorded):
    with FaultServer(recorded.repository.tree) as server:
        yield server


@pytest.fixture
def station(recorded, mirror, reader):
    reader.run("remote", "add", "m", f"{mirror.url}#{recorded.pin}")
    mirror.requests.clear()
    yield reader
    mirror.heal()
    for instance in reader.json("ps")["instances"]:
        reader.attempt("rm", "--force", instance["name"])


def first_asked(mirror, word):
    return next(number for number, request in enumerate(mirror.requests) if word in request.path)


def test_the_bundle_is_asked_for_before_the_manifest_is_known(recorded, mirror, station):
    mirror.inject("manifests/*", stall())
    booting = station.start("boot", IMAGE, "--name", "one", *SMALL)
    mirror.wait_until_asked("manifests/*")
    mirror.wait_until_asked(recorded.bundle[0])
    assert not mirror.count("blocks/*")
    mirror.heal()
    assert booting.wait(60) == 0
    facts = station.json("status", "one")
    assert (facts["state"], facts["version"]) == ("running", "1")
    assert mirror.count(recorded.bundle[0]) == 1  # what came on the hint's word was used


def test_boots_at_the_same_moment_and_later_ones_share_one_mount(mirror, station):
    both = [station.start("boot", IMAGE, "--name", name, *SMALL) for name in ("one", "two")]
    assert [boot.wait(60) for boot in both] == [0, 0]
    station.run("boot", f"{IMAGE}@1", "--name", "three", *SMALL)
    (mount,) = station.json("status")["mounts"]
    assert {station.json("status", name)["mountpoint"] for name in ("one", "two", "three")} == {mount["mountpoint"]}
    for name in ("one", "two", "three"):
        assert len(station.json("status")["mounts"]) == 1
        station.run("stop", name, "--timeout", "0")
    assert station.json("status")["mounts"] == []
    mirror.close()
    station.run("boot", "one", *SMALL)  # from what is here; it need not ask anybody
    assert station.json("status", "one")["state"] == "running"


def test_a_boot_that_is_refused_leaves_nothing_mounted(mirror, station):
    assert "there are: boot" in station.refused("boot", IMAGE, "--profile", "desktop", *SMALL, code=3)
    station.refused("boot", "m:alice/other", *SMALL, code=3)
    assert station.json("status") == {"mounts": [], "instances": []}
