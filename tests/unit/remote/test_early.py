"""A bundle that is started on an unsigned hint's word: never more than that, and nothing is left of what was wrong."""

import threading

import pytest
from support.fault_server import FaultServer, over_long, replace, stall, status

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Hint, Listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, NotFoundError, UnreachableError
from oscirc_remote import early as early_module
from oscirc_remote.deadlines import Deadline
from oscirc_remote.downloads import QUEUE_BYTES
from oscirc_remote.early import EarlyBundle, Place
from oscirc_remote.stream_files import StreamFiles

DISK = digest_of(b"the manifest of the disk")
RAW = bytes(range(256)) * 1000
BUNDLED = Accelerator(BUNDLE, "boot", digest_of(RAW), len(RAW), 100)
HINT = accelerators.hint_path("alice", "debian")


def hint(*listed, manifest=DISK, channel="stable"):
    return Hint("alice", "debian", {channel: Listing(manifest, listed)}).serialise()


@pytest.fixture
def files():
    return {HINT: hint(BUNDLED), BUNDLED.path: RAW}


@pytest.fixture
def server(files):
    with FaultServer(files) as server:
        yield server


@pytest.fixture
def begin(server, tmp_path):
    begun = []

    def start(where=lambda: Place([server.url]), channel="stable", profile="boot"):
        begun.append(EarlyBundle(where, "alice", "debian", channel, profile, tmp_path))
        return begun[-1]

    yield start
    for each in begun:
        each.drop()


def is_free(directory):
    """Whether the lock of the bundle's stream can be had."""
    files = StreamFiles(directory, BUNDLED.sha256)
    try:
        return files.try_lock()
    finally:
        files.close()


def test_the_bundle_that_is_hinted_comes_while_nobody_has_asked_for_it(server, begin):
    early = begin()
    server.wait_until_asked(BUNDLED.path)
    started = early.claim(DISK)
    assert started.bundle == BUNDLED
    pieces = []
    while piece := started.download.read(10):
        pieces.append(piece)
    assert b"".join(pieces) == RAW
    assert (early.requests, early.received_bytes > len(RAW)) == (2, True)
    started.drop()


def test_what_was_claimed_is_not_dropped_with_the_rest(begin):
    early = begin()
    started = early.claim(DISK)
    early.drop()
    assert started.download.read(10)
    started.drop()


def test_a_hint_for_another_disk_is_dropped_and_leaves_no_lock(files, begin, tmp_path):
    files[HINT] = hint(BUNDLED, manifest=digest_of(b"another"))
    assert begin().claim(DISK) is None
    assert is_free(tmp_path)


def test_of_a_bundle_of_a_terabyte_no_more_is_held_than_the_queue(files, server, begin):
    huge = Accelerator(BUNDLE, "boot", BUNDLED.sha256, 1 << 40, 100)
    files[HINT] = hint(huge)
    server.inject(BUNDLED.path, over_long(1 << 40))
    started = begin().claim(DISK)
    for _ in range(2000):
        if started.download.held_bytes >= QUEUE_BYTES:
            break
        threading.Event().wait(0.005)
    assert started.download.held_bytes <= QUEUE_BYTES
    assert started.download.received_bytes <= QUEUE_BYTES
    started.drop()


@pytest.mark.parametrize(
    "answer",
    [status(404), status(500), replace(b"{}"), replace(b"no JSON"), over_long(), replace(b"[" * 100_000)],
    ids=["404", "500", "empty", "no JSON", "endless", "deep"],
)
def test_without_a_hint_that_can_be_read_nothing_is_started(server, begin, tmp_path, caplog, answer):
    server.inject(HINT, answer)
    early = begin()
    assert early.claim(DISK) is None
    assert server.count(BUNDLED.path) == 0
    assert is_free(tmp_path)
    assert not caplog.records  # a stranger's file is no mistake of ours


def test_connections_that_nobody_needs_any_more_are_closed(files, server, begin):
    files[HINT] = hint(Accelerator(PROFILE, "boot", digest_of(b"profile"), 7))
    early = begin()
    early._thread.join(20)
    (client,) = early._clients
    assert early.claim(DISK).download is None
    with pytest.raises(UnreachableError, match="closed"):
        client.get(HINT, 1000, Deadline.after(5))
    assert server.count(HINT) == 1


def test_another_channel_s_hint_is_not_used(begin):
    assert begin(channel="beta").claim(DISK) is None


def test_where_only_a_profile_is_hinted_the_listing_is_known_at_least(files, begin):
    listed = Accelerator(PROFILE, "boot", digest_of(b"profile"), 7)
    files[HINT] = hint(listed)
    started = begin().claim(DISK)
    assert started.listing.accelerators == (listed,)
    assert (started.bundle, started.files, started.download) == (None, None, None)


def test_a_bundle_that_another_process_streams_or_that_was_here_before_is_not_begun(server, begin, tmp_path):
    other = StreamFiles(tmp_path, BUNDLED.sha256)
    assert other.try_lock()
    started = begin().claim(DISK)
    assert (started.bundle, started.download) == (BUNDLED, None)
    other.keep_index(b"an index")
    other.close()
    assert begin().claim(DISK).download is None
    assert server.count(BUNDLED.path) == 0
    assert is_free(tmp_path)


def test_a_hint_that_does_not_come_is_not_waited_for(server, begin):
    server.inject(HINT, stall())
    early = begin()
    server.wait_until_asked(HINT)
    assert early.claim(DISK, 0.05) is None


def test_of_several_mirrors_the_first_that_has_a_hint_is_asked(files, begin):
    with FaultServer({}) as empty, FaultServer(files) as full:
        started = begin(lambda: Place([empty.url, full.url])).claim(DISK)
        assert started.download.source == full.url
        started.drop()


def test_a_remote_that_is_not_known_is_no_trouble(begin):
    def unknown():
        raise NotFoundError("no such remote")

    assert begin(unknown).claim(DISK) is None


def test_a_mistake_of_ours_is_logged_and_the_mount_goes_on(begin, caplog):
    assert begin(lambda: 1 / 0).claim(DISK) is None
    assert "ZeroDivisionError" in caplog.text


def test_without_a_thread_for_the_download_the_stream_is_left_to_others(begin, tmp_path, monkeypatch):
    def none_left(*_args, **_options):
        raise LocalError("no thread to download with")

    monkeypatch.setattr(early_module, "download", none_left)
    assert begin().claim(DISK) is None
    assert is_free(tmp_path)


def test_who_has_another_version_begins_with_no_bundle(begin, server):
    other = frozenset({digest_of(b"another version")})
    started = begin(lambda: Place([server.url], other)).claim(DISK)
    assert (started.bundle, started.download) == (BUNDLED, None)
    started = begin(lambda: Place([server.url], other | {DISK})).claim(DISK)
    assert started.download is not None
    started.drop()
