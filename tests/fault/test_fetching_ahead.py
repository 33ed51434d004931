"""`mount --fill`, `--fill-rate`, `--no-prefetch` and the preferences for them, as a mirror sees them."""

import time

import pytest
from support.commands import Workstation, serving
from support.fault_server import FaultServer
from support.replaying import Replay

from .conftest import BLOCK, Published, content
from .test_survival import mount


@pytest.fixture
def mirror(published):
    with FaultServer(published.repository.tree) as server:
        yield server


def complete(reader, place, timeout_s=60):
    """Wait until all is here."""
    deadline = time.monotonic() + timeout_s
    while not reader.json("status", place)["safe_to_unplug"]:
        assert time.monotonic() < deadline


def test_the_rest_is_fetched_at_the_rate_that_is_allowed_and_then_the_network_may_go(
    published, mirror, reader, tmp_path
):
    began = time.monotonic()
    disk = mount(reader, mirror, published, tmp_path / "mnt", "--fill-rate", "1M")  # 4 MiB
    complete(reader, tmp_path / "mnt")
    assert time.monotonic() - began > 2.5
    assert mirror.count("blocks/*") == 65  # 64 blocks and a node
    mirror.close()
    assert disk.read_bytes() == published.disk


def test_a_read_does_not_wait_for_what_fills(published, mirror, reader, tmp_path):
    disk = mount(reader, mirror, published, tmp_path / "mnt", "--no-prefetch", "--fill-rate", "20K")  # 3 s a block
    done = Replay(disk, published.disk, BLOCK).run(range(30, 60))
    assert not done.wrong
    assert done.worst_s < 2.0
    assert mirror.count("blocks/*") < 40


def test_without_a_wish_nothing_is_fetched_that_nobody_reads_and_a_preference_is_a_wish(
    published, mirror, reader, tmp_path
):
    disk = mount(reader, mirror, published, tmp_path / "one", "--no-prefetch")
    Replay(disk, published.disk, BLOCK).run([40])
    facts = reader.json("status", tmp_path / "one")
    assert (facts["prefetch"]["state"], facts["prefetched_blocks"]) == ("off", 0)
    assert mirror.count("blocks/*") == 4  # a node, what was read, and the two blocks that a mount begins with
    wishing = Workstation(reader.home, extra={"OSCIRC_FILL": "yes"})
    mount(wishing, mirror, published, tmp_path / "two")
    complete(reader, tmp_path / "two")
    assert reader.json("status", tmp_path / "two")["prefetched_blocks"] >= 60


def test_of_a_version_that_its_publisher_deleted_all_is_fetched_while_it_is_served(reader, tmp_path):
    short_lived = Published(tmp_path / "made", blocks=16)
    publisher, repository = short_lived.publisher, short_lived.repository
    (tmp_path / "next.raw").write_bytes(content("two", 16))
    old, place = "m:alice/tiny@1", tmp_path / "mnt"
    place.mkdir()
    with serving(publisher, repository):
        reader.run("remote", "add", "m", repository.url)
        reader.run("mount", old, place, "--no-prefetch")
        assert not reader.json("status", place)["safe_to_unplug"]
        reader.run("umount", place)
        publisher.run("publish", tmp_path / "next.raw", "test:alice/tiny@2", "--key", "alice", "--block-size", BLOCK)
        publisher.run("delete", "test:alice/tiny@1", "--why", "it is old", "--yes", "--key", "alice")

        def remounted(*options):
            done = reader.attempt("mount", old, place, *options)
            assert done.returncode == 0, done.stderr
            assert "a mount fetches all the rest" in done.stderr
            return reader.json("status", place)

        assert remounted("--no-fill", "--no-prefetch")["prefetch"]["state"] == "off"
        reader.run("umount", place)
        remounted()
        complete(reader, place)
    assert (place / "disk.raw").read_bytes() == short_lived.disk
