"""A bundle from two mirrors over real connections, the preferred of which does everything that a mirror can do wrong."""

import random
import tracemalloc

import pytest
from support.fault_server import (
    FaultServer,
    drip,
    flip_bit,
    no_length,
    over_long,
    redirect,
    replace,
    reset,
    shorten,
    stall,
    status,
    truncate,
)

from oscirc_blockstore.accelerators import BUNDLE, Accelerator
from oscirc_blockstore.errors import DeadlineExceededError, NotServedError, ServerRefusedError, UnreachableError
from oscirc_remote import bundle_mirrors, bundle_tries, downloads
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.bundle_stream import BundleStream
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.stream_files import StreamFiles

from .bundles import Image, Keeper
from .fakes import BLOCK_SIZE


def random_block(number):
    return random.Random(number).randbytes(BLOCK_SIZE)


IMAGE = Image(make=random_block)
PATH = IMAGE.accelerator.path


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(bundle_tries, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(bundle_tries, "LONGEST_PAUSE_S", 0.01)


@pytest.fixture
def servers():
    with FaultServer({PATH: IMAGE.raw}) as first, FaultServer({PATH: IMAGE.raw}) as second:
        yield first, second


class World:
    def __init__(self, directory, servers, accelerator=IMAGE.accelerator):
        self.source = MirroredSource([HttpFrameSource(server.url) for server in servers])
        self.mirrors = BundleMirrors(self.source)
        self.keeper = Keeper()
        self.stream = BundleStream(
            accelerator,
            IMAGE.digest,
            IMAGE.manifest,
            self.keeper,
            self.mirrors,
            Arrivals(),
            StreamFiles(directory, accelerator.sha256),
        )

    def run(self):
        try:
            self.stream.run()
        finally:
            self.mirrors.close()
            self.source.close()
        return self

    @property
    def brought(self):
        """What came, and what is left for single requests."""
        return {each.digest for each in self.stream.left_out()} | set(self.keeper.kept)


FAULTS = {
    "a wrong bit in the first segment": flip_bit(len(IMAGE.index) + 40),
    "a wrong bit near the end": flip_bit(-50_000),
    "a wrong bit in the index": flip_bit(20),
    "it breaks off in the index": truncate(100),
    "it breaks off in a segment": truncate(300_000),
    "it is too short, and says so": shorten(100_000),
    "it is half as long as listed": shorten(len(IMAGE.raw) // 2),
    "it is silent": stall(),
    "it falls silent": stall(300_000),
    "it resets the connection": reset(),
    "it goes on without end": over_long(None),
    "it declares a terabyte": over_long(1 << 40),
    "another file": replace(b"<html>no</html>" * 1000),
    "nothing": replace(b""),
    "404": status(404),
    "500": status(500),
    "503 for an hour": status(503, Retry_After="3600"),
    "403": status(403),
    "it redirects to itself": redirect("/repo/" + PATH),
}


SILENT = ("it is silent", "it falls silent")
SHORT_SILENCE_S = 1.6  # more than `PATIENCE_S`, and than a good mirror takes on a busy machine


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_whatever_the_preferred_mirror_does_the_other_brings_the_bundle(tmp_path, servers, fault, monkeypatch):
    if fault in SILENT:
        monkeypatch.setattr(bundle_mirrors, "STALL_S", SHORT_SILENCE_S)
    first, second = servers
    first.inject("accel/*", FAULTS[fault])
    world = World(tmp_path, servers).run()
    assert world.stream.state == "complete"
    assert world.brought == IMAGE.named
    assert second.count("accel/*") >= 1
    one, other = world.source.mirror_status()
    assert one.last_problem
    assert not other.last_problem


@pytest.mark.parametrize("lone_fault", [no_length(), truncate(300_000)], ids=["no length", "one break"])
def test_a_single_mirror_that_is_only_odd_brings_it_too(tmp_path, servers, lone_fault):
    servers[0].inject("accel/*", lone_fault, times=1)
    world = World(tmp_path, servers[:1]).run()
    assert world.stream.state == "complete"
    assert world.brought == IMAGE.named


def test_a_mirror_that_drips_is_left_for_another(tmp_path, servers, monkeypatch):
    monkeypatch.setattr(downloads, "PACE_S", 0.3)
    monkeypatch.setattr(bundle_mirrors, "SLOWEST", 1 << 20)
    servers[0].inject("accel/*", drip(0.02, 500))
    world = World(tmp_path, servers).run()
    assert world.stream.state == "complete"
    assert world.brought == IMAGE.named
    assert "bytes/s" in world.source.mirror_status()[0].last_problem


def test_how_fast_it_came_counts_for_the_standing(tmp_path, servers):
    world = World(tmp_path, servers).run()
    one, other = world.source.mirror_status()
    assert one.throughput > 0
    assert other.throughput == 0
    assert world.source.rate() > 0
    assert (world.mirrors.requests, servers[1].count()) == (1, 0)
    assert world.mirrors.received_bytes >= len(IMAGE.raw)


def test_a_file_that_never_ends_costs_no_memory(tmp_path, servers):
    """Everybody sends zeros without end where the bundle should be."""
    for server in servers:
        server.inject("accel/*", over_long(None))
    tracemalloc.start()
    world = World(tmp_path, servers).run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert world.stream.state == "failed"
    assert world.keeper.kept == {}
    assert peak < 2 * downloads.QUEUE_BYTES
    assert world.mirrors.received_bytes < 20 * len(IMAGE.raw)


def test_a_bundle_that_is_not_as_long_as_listed_is_refused_at_its_index(tmp_path, servers):
    listed = Accelerator(BUNDLE, "boot", IMAGE.accelerator.sha256, len(IMAGE.raw) - 1, len(IMAGE.index))
    world = World(tmp_path, servers, listed).run()
    assert world.stream.state == "failed"
    assert "not as long as it was listed" in str(world.stream.problem)
    assert world.keeper.kept == {}


def test_documents_come_from_the_first_that_has_them():
    name = "accel/list.json"
    with FaultServer({}) as first, FaultServer({name: b"{}"}) as second:
        source = MirroredSource([HttpFrameSource(server.url) for server in (first, second)])
        mirrors = BundleMirrors(source)
        assert mirrors.get(name, 10, Deadline.after(10), bytes) == b"{}"
        assert mirrors.get("accel/none", 10, Deadline.after(10), bytes) is None
        first.inject("accel/*", status(500))
        assert mirrors.get(name, 10, Deadline.after(10), bytes) == b"{}"
        with pytest.raises(ServerRefusedError):
            mirrors.get("accel/none", 10, Deadline.after(10), bytes)
        mirrors.close()
        with pytest.raises(UnreachableError):
            mirrors.get(name, 10, Deadline.after(10), bytes)
        source.close()


@pytest.fixture
def parts(servers):
    source = MirroredSource([HttpFrameSource(server.url) for server in servers])
    mirrors = BundleMirrors(source)
    yield source, mirrors
    mirrors.close()
    source.close()


def test_a_part_comes_from_the_preferred_mirror_that_is_not_skipped(parts, servers):
    _, mirrors = parts
    first, second = (server.url for server in servers)
    got = mirrors.get_part(IMAGE.accelerator, 5, 105, Deadline.after(10))
    assert got == (IMAGE.raw[5:105], first)
    assert mirrors.get_part(IMAGE.accelerator, 5, 105, Deadline.after(10), skip=frozenset({first})).source == second
    assert mirrors.get_range(IMAGE.accelerator, 5, 105, Deadline.after(10)) == IMAGE.raw[5:105]
    with pytest.raises(NotServedError):
        mirrors.get_part(IMAGE.accelerator, 5, 105, Deadline.after(10), skip=frozenset({first, second}))


@pytest.mark.parametrize("fault", [stall(), stall(50), reset(), status(500), truncate(50)])
def test_a_mirror_that_fails_in_a_part_costs_it_once(parts, servers, fault, monkeypatch):
    monkeypatch.setattr(bundle_mirrors, "STALL_S", SHORT_SILENCE_S)
    source, mirrors = parts
    servers[0].inject("accel/*", fault)
    for _ in range(3):
        got = mirrors.get_part(IMAGE.accelerator, 0, 100, Deadline.after(10))
        assert got == (IMAGE.raw[:100], servers[1].url)
    assert servers[0].count() == 1
    assert source.mirror_status()[0].demoted


def test_who_does_not_have_a_file_is_asked_once_and_not_blamed(parts, servers):
    source, mirrors = parts
    servers[0].inject("accel/*", status(404))
    for _ in range(3):
        assert mirrors.get_part(IMAGE.accelerator, 0, 100, Deadline.after(10)).source == servers[1].url
    assert servers[0].count() == 1
    assert not source.mirror_status()[0].demoted
    servers[1].inject("accel/*", status(404))
    for _ in range(3):
        with pytest.raises(NotServedError):
            mirrors.get_part(IMAGE.accelerator, 0, 100, Deadline.after(10))
    assert servers[1].count() == 4


def test_who_had_hardly_any_time_is_not_blamed(parts, servers):
    source, mirrors = parts
    servers[0].inject("accel/*", stall())
    with pytest.raises(DeadlineExceededError):
        mirrors.get_part(IMAGE.accelerator, 0, 100, Deadline.after(0.05), skip=frozenset({servers[1].url}))
    assert not source.mirror_status()[0].demoted


def test_after_closing_nothing_is_asked_for(servers):
    source = MirroredSource([HttpFrameSource(servers[0].url)])
    mirrors = BundleMirrors(source)
    mirrors.close()
    download = mirrors.open(IMAGE.accelerator, 0, len(IMAGE.raw), frozenset())
    with pytest.raises(UnreachableError):
        download.read(10)
    assert servers[0].count() == 0
    source.close()
