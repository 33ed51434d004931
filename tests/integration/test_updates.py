"""`update`, `rollback`, `reset`: what they say, fetch and change, with a repository at hand and without.

The commands run in this process against a server of the repository's files. No guest is booted here: instances are
made as `boot` makes them, and "written" is a write to the overlay. What is newer than what an instance has is what
another channel than the one it came by means.
"""

import hashlib
import json
import subprocess

import pytest
from support.commands import Workstation, add_publisher, initialise, serving
from support.fault_server import FaultServer

from oscirc.__main__ import main
from oscirc_blockstore import canonical
from oscirc_remote import paths
from oscirc_vmlaunch import layers
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.records import InstanceRecord

BLOCK = 65536
BLOCKS = 32
IMAGE = "test:alice/tiny"
CHANNELS = {"1": "stable", "2": "testing", "3": "edge"}


def content(salt, changed):
    """A disk of incompressible blocks; of another salt the first `changed` blocks are others."""
    blocks = []
    for number in range(BLOCKS):
        seed = f"{salt if number < changed else 'same'}:{number}".encode()
        blocks.append(b"".join(hashlib.sha256(seed + bytes([i >> 8, i & 255])).digest() for i in range(BLOCK // 32)))
    return b"".join(blocks)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A publisher, and its repository with alice/tiny@1, @2 and @3: five blocks different each, a channel each."""
    base = tmp_path_factory.mktemp("updates")
    publisher = Workstation(base / "publisher")
    repository = initialise(publisher, base / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        for version, channel in CHANNELS.items():
            (base / "disk.raw").write_bytes(content(version, 5))
            options = (
                "--channel",
                channel,
                "--block-size",
                BLOCK,
                "--key",
                "alice",
                "--changelog",
                f"new in {version}",
            )
            publisher.run("publish", base / "disk.raw", f"{IMAGE}@{version}", *options)
    return publisher, repository


@pytest.fixture
def server(world):
    with FaultServer(world[1].tree) as server:
        yield server


class Here:
    """The command in this process, with the directories that the test has for itself."""

    def __init__(self, capsys):
        self._capsys = capsys

    def attempt(self, *arguments):
        """(exit code, standard output, standard error)."""
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err

    def run(self, *arguments, code=0):
        """Standard output, of a command that ends with this exit code."""
        ended, out, err = self.attempt(*arguments)
        assert ended == code, f"oscirc {arguments}: exit {ended}\n{out}\n{err}"
        return out

    def said(self, *arguments, code=0):
        """Standard error, likewise."""
        ended, out, err = self.attempt(*arguments)
        assert ended == code, f"oscirc {arguments}: exit {ended}\n{out}\n{err}"
        return err

    def json(self, *arguments, code=0):
        return json.loads(self.run(*arguments, "--json", code=code))


@pytest.fixture
def here(capsys, world, server):
    """A workstation that has all of version 1."""
    here = Here(capsys)
    here.run("remote", "add", "test", f"{server.url}#{world[1].url.partition('#')[2]}")
    here.run("pull", "alice/tiny")
    return here


def record_of(name="web"):
    return Instances().load(name).record


def make_instance(here, follows="alice/tiny#testing", *, version="1", written=True, name="web"):
    """An instance of a version that follows something, stopped; with a write in its overlay unless told otherwise."""
    facts = here.json("show", f"alice/tiny@{version}")
    instance = Instances().create(
        InstanceRecord(
            name=name,
            remote="test",
            reference=follows,
            manifest_digest=facts["manifest"],
            version=version,
            firmware="bios",
            architecture="x86_64",
            memory_mib=64,
            cpus=1,
            accelerator="tcg",
            mount_point="/nowhere",
            created="2026-01-01T00:00:00+00:00",
        )
    )
    command = ["qemu-img", "create", "-q", "-f", "qcow2", instance.overlay, str(BLOCKS * BLOCK)]
    subprocess.run(command, check=True)
    if written:
        command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", instance.overlay]
        subprocess.run(command, check=True, capture_output=True)
    return instance


def cached():
    return len(list((paths.cache_directory() / "blocks").rglob("??/*")))


def test_a_reference_tells_its_bytes_first_and_then_fetches_what_changed(here, server):
    up_to_date = here.json("update", "alice/tiny")
    assert (up_to_date["newer"], up_to_date["missing_blocks"]) == (False, 0)
    before, asked = cached(), server.count("blocks/*")
    plan = here.json("update", "alice/tiny#testing", "--dry-run")
    assert (plan["has"]["version"], plan["now"]["version"], plan["newer"]) == ("1", "2", True)
    assert (plan["data_blocks"], plan["missing_blocks"]) == (BLOCKS, 5)
    assert 0 < plan["bytes_to_fetch"] <= plan["bytes_without_packs"] <= 6 * BLOCK
    assert cached() == before + 1  # a node of the table, made from a delta pack; no block
    assert server.count("blocks/*") == asked
    said = here.said("update", "alice/tiny#testing")
    assert said.index("to fetch") < said.index("fetched")
    assert "new in 2" in said
    assert "alice/tiny@2 is here: safe to unplug" in said
    assert (cached(), server.count("blocks/*")) == (before + 6, asked + 5)
    again = here.json("update", "alice/tiny#testing")
    assert (again["newer"], again["missing_blocks"]) == (False, 0)


def test_to_look_is_not_to_have(here, server):
    here.run("update", "alice/tiny#testing", "--dry-run")
    server.close()
    here.said("show", "alice/tiny#testing", "--offline", code=3)
    assert here.json("show", "alice/tiny", "--offline")["version"] == "1"


def test_a_channel_that_was_moved_back_is_followed_back_and_said_so(here):
    make_instance(here, "alice/tiny#stable", version="2", written=False)
    said = here.said("update", "web")
    assert "moved back" in said
    assert record_of().version == "1"


def test_an_instance_that_has_written_is_refused_and_says_what_it_would_lose(here, server):
    instance = make_instance(here)
    asked = server.count("blocks/*")
    said = here.said("update", "web", code=2)
    assert "MiB written on 1" in said
    assert "no data disk" in said
    assert "--policy drop-system" in said
    assert "--policy keep" in said
    facts = here.json("update", "web", code=2)
    assert (facts["action"], facts["missing_blocks"]) == ("refuse", 5)
    here.run("update", "web", "--dry-run", "--policy", "drop-system")
    assert instance.reloaded().record == instance.record
    assert server.count("blocks/*") == asked


def test_keeping_and_downloading_fetch_and_change_nothing(here):
    instance = make_instance(here)
    assert here.json("update", "web", "--download-only")["fetched_blocks"] == 5
    assert instance.reloaded().record == instance.record
    done = here.json("update", "web", "--channel", "edge", "--policy", "keep")
    assert (done["fetched_blocks"], done["version"]) == (5, "1")
    record = record_of()
    assert (record.reference, record.manifest_digest) == ("test:alice/tiny#edge", instance.record.manifest_digest)


def test_an_instance_that_has_written_nothing_simply_moves(here):
    make_instance(here, written=False)
    assert here.json("update", "web")["version"] == "2"
    assert (record_of().version, record_of().reference) == ("2", "test:alice/tiny#testing")
    assert here.json("update", "web")["action"] == "nothing"


def test_an_instance_moves_without_waiting_for_its_blocks_when_told_to(here, server):
    make_instance(here, written=False)
    asked = server.count("blocks/*")
    here.run("update", "web", "--no-download")
    assert (record_of().version, server.count("blocks/*")) == ("2", asked)


def test_what_runs_is_left_alone_and_can_be_fetched_for(here):
    instance = make_instance(here)
    with instance.lock():  # as QEMU holds it
        assert here.json("update", "web", "--download-only")["fetched_blocks"] == 5
        said = here.said("update", "web", "--policy", "drop-system", code=6)
        assert "oscirc stop web" in said
        for command in (("reset", "--yes"), ("rollback",)):
            here.said(*command, "web", code=6 if command[0] == "reset" else 3)
    assert record_of() == instance.record


def test_dropping_the_system_sets_it_aside_and_rollback_brings_it_back_without_network(here, server):
    instance = make_instance(here)
    old = instance.overlay.read_bytes()
    done = here.json("update", "web", "--policy", "drop-system")
    assert (done["version"], done["kept"]) == ("2", ["1"])
    assert not Instances().load("web").overlay.exists()
    (kept,) = here.json("rollback", "web", "--list")["kept"]
    assert (kept["version"], kept["by"], kept["written"], kept["bytes"] >= 1 << 20) == ("1", "update", True, True)
    # what may be rolled back to stays in the cache, whatever the limit
    needed = here.json("cache", "info")["needed_blocks"]
    assert needed == BLOCKS + 5 + 2
    here.run("cache", "gc", "--limit", "1K")
    assert cached() == needed
    server.close()
    back = here.json("rollback", "web")
    assert (back["version"], back["left"], back["kept"], back["warnings"]) == ("1", "2", [], [])
    assert Instances().load("web").overlay.read_bytes() == old
    assert "keeps no system" in here.said("rollback", "web", code=3)
    here.run("cache", "gc", "--limit", "1K")
    assert cached() == BLOCKS + 1


def test_without_network_an_update_says_so_and_a_rollback_says_what_is_missing(here, server):
    make_instance(here)
    here.run("update", "web", "--policy", "drop-system", "--no-download")
    here.run("cache", "clear", "--yes")
    server.close()
    for arguments in (("update", "web"), ("update", "alice/tiny"), ("update", "--all")):
        here.said(*arguments, code=5)
    code, out, _ = here.attempt("update")
    assert (code, "web" in out, "not known" in out) == (5, True, True)
    said = here.said("rollback", "web")
    assert f"{BLOCKS} of {BLOCKS} blocks of 1" in said
    assert "needs the network" in said
    assert record_of().version == "1"


def test_what_is_pinned_to_a_version_stays_until_it_is_told_what_to_follow(here):
    instance = make_instance(here, "alice/tiny@1")
    assert "pinned to 1" in here.said("update", "web")
    assert "pinned to 1" in here.said("update", "alice/tiny@1")
    assert here.json("ps")["instances"][0]["channel"] is None
    here.said("update", "web", "--channel", "testing", code=2)
    assert record_of() == instance.record  # refused as a whole
    here.run("update", "web", "--channel", "testing", "--policy", "keep")
    assert here.json("ps")["instances"][0]["channel"] == "testing"
    assert record_of().version == "1"
    here.run("update", "web", "--to", "1")
    assert record_of().reference == "test:alice/tiny@1"
    digest = here.json("show", "alice/tiny@3")["manifest"]
    here.run("update", "web", "--to", f"sha256:{digest}", "--policy", "drop-system")
    assert (record_of().version, record_of().manifest_digest) == ("3", digest)
    assert "pinned to sha256" in here.said("update", "web")


def test_what_is_pinned_boots_its_version_without_network(here, server):
    """Its version is known from the receipt alone: what `boot` asks for."""
    make_instance(here, "alice/tiny@1")
    server.close()
    assert "pinned to 1" in here.said("update", "web")
    assert here.json("show", f"alice/tiny@sha256:{record_of().manifest_digest}", "--offline")["version"] == "1"


def test_without_an_argument_it_lists_instances_and_pins_and_all_updates_what_may_be(here):
    make_instance(here, name="written")
    make_instance(here, name="fresh", written=False)
    make_instance(here, "alice/tiny@1", name="still")
    here.run("pin", "alice/tiny@1")
    listed = {each["name"]: each["newer"] for each in here.json("update")["updates"]}
    assert listed == {"written": True, "fresh": True, "still": False, "alice/tiny@1": False}
    assert "it has written" in here.run("update")
    assert [record_of(name).version for name in ("written", "fresh")] == ["1", "1"]
    assert "1 of 4" in here.said("update", "--all", code=2)
    assert [record_of(name).version for name in ("written", "fresh", "still")] == ["1", "2", "1"]


def test_a_pin_moves_to_what_its_channel_means_when_that_is_here(here, world, server):
    here.run("pin", "alice/tiny#testing")
    pins = paths.data_directory() / "pins"
    (pin,) = pins.iterdir()  # as if it had been pinned when the channel meant version 1
    old = json.loads(pin.read_bytes())
    here.run("unpin", "alice/tiny#testing")
    here.run("pin", "alice/tiny@1")
    (pin,) = pins.iterdir()
    document = json.loads(pin.read_bytes()) | {"reference": old["reference"]}
    pin.write_bytes(canonical.serialise(document))
    (row,) = here.json("update")["updates"]
    assert (row["name"], row["has"]["version"], row["now"]["version"]) == ("alice/tiny#testing", "1", "2")
    here.run("update", "alice/tiny#testing", "--download-only")
    assert here.json("pins")["pins"][0]["image"] == "alice/tiny@1"
    here.run("update", "alice/tiny#testing")
    (now,) = here.json("pins")["pins"]
    assert (now["image"], now["reference"], now["safe_to_unplug"]) == ("alice/tiny@2", "alice/tiny#testing", True)


def test_a_yank_warns_and_one_for_security_refuses_with_and_without_network(here, server, world):
    publisher, repository = world
    make_instance(here)

    def sign(*arguments):
        publisher.run("yank", f"{IMAGE}@2", *arguments, "--key", "alice")

    with serving(publisher, repository):
        sign("--why", "it eats files")
        assert "it eats files" in here.said("update", "alice/tiny#testing")
        sign("--why", "a hole", "--security")
        for command in (("update", "web", "--policy", "drop-system"), ("update", "alice/tiny#testing")):
            assert "a hole" in here.said(*command, code=4)
        here.run("update", "web", "--policy", "drop-system", "--allow-revoked")
        Instances().load("web").overlay.write_text("written")
        here.run("rollback", "web")
        sign("--restore")  # for the tests that follow; this workstation does not hear of it
    server.close()
    assert "a hole" in here.said("show", "alice/tiny#testing", "--offline", code=4)
    assert "a hole" in here.said("rollback", "web", "--to", "2", code=4)
    assert record_of().version == "1"
    assert "a hole" in here.said("rollback", "web", "--to", "2", "--allow-revoked")


def test_the_rest_of_the_same_version_is_fetched_and_said_to_be_here(here):
    here.run("pull", "alice/tiny")
    here.run("cache", "clear", "--yes")
    assert "safe to unplug" in here.said("update", "alice/tiny")
    assert "safe to unplug" not in here.said("update", "alice/tiny")


def test_a_rollback_hears_of_a_yank_that_this_workstation_was_not_told_of(here, server, world):
    publisher, repository = world
    make_instance(here)
    here.run("update", "web", "--policy", "drop-system")
    with serving(publisher, repository):
        publisher.run("yank", f"{IMAGE}@1", "--why", "a hole", "--security", "--key", "alice")
        assert "a hole" in here.said("rollback", "web", code=4)
        assert record_of().version == "2"
        publisher.run("yank", f"{IMAGE}@1", "--restore", "--key", "alice")
        here.run("rollback", "web")
    assert record_of().version == "1"


def test_reset_forgets_the_system_and_rm_says_what_goes(here):
    make_instance(here)
    here.run("update", "web", "--policy", "drop-system")
    assert "say --yes" in here.said("reset", "web", code=2)  # nobody is there to be asked
    assert "begins anew on 2" in here.said("reset", "web", "--yes")
    assert [layer.version for layer in record_of().kept] == ["1"]
    assert "had set aside (1:" in here.said("rm", "web")
    assert Instances().names() == []


def test_an_instance_of_an_older_oscirc_is_updated_like_any_other(here):
    instance = make_instance(here)
    path = instance.directory / "instance.json"
    old = json.loads(path.read_bytes())
    for key in ("format", "layer", "kept", "data_disk_bytes"):
        del old[key]
    path.write_text(json.dumps(old))
    here.run("update", "web", "--policy", "drop-system")
    assert (record_of().version, layers.find(record_of()).version) == ("2", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("update", "alice/tiny", "--channel", "edge"), "no instance"),
        (("update", "--channel", "edge"), "which instance"),
        (("update", "web", "--channel", "edge", "--to", "1"), "contradict"),
        (("update", "web", "--download-only", "--no-download"), "contradict"),
        (("update", "web", "--all"), "contradict"),
        (("update", "alice/tiny#testing", "--no-download"), "for instances"),
        (("rollback", "alice/tiny"), "reference"),
    ],
)
def test_what_means_nothing_is_refused(here, arguments, said):
    make_instance(here)
    assert said in here.said(*arguments, code=2)


def test_channels_are_listed_and_one_that_is_removed_leaves_its_version(here, world):
    publisher, repository = world
    with serving(publisher, repository):
        publisher.run("channel", "set", f"{IMAGE}@1", "passing", "--key", "alice")
        listed = here.json("channel", "list", "alice/tiny")["channels"]
        assert [(each["channel"], each["version"]) for each in listed] == sorted(
            [*((channel, version) for version, channel in CHANNELS.items()), ("passing", "1")]
        )
        make_instance(here, "alice/tiny#passing")
        publisher.run("channel", "remove", IMAGE, "passing", "--key", "alice")
        publisher.refused("channel", "remove", IMAGE, "passing", "--key", "alice", code=3)
    assert "passing" not in here.run("channel", "list", "alice/tiny")
    assert "no channel 'passing'" in here.said("update", "web", code=3)
    assert here.json("show", "alice/tiny@1")["version"] == "1"


def test_what_does_not_exist_is_not_found(here):
    for command in ("update", "rollback", "reset"):
        assert "oscirc ps" in here.said(command, "nobody", code=3)
    make_instance(here)
    here.said("update", "web", "--channel", "nightly", code=3)
    here.said("update", "web", "--to", "9", code=3)
