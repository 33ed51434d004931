"""A part of a file under way, over real connections to a server on loopback."""

import contextlib
import threading
import time

import pytest
from support.fault_server import FaultServer, over_long, reset, shorten, stall, truncate

from oscirc_blockstore.accelerators import BUNDLE, Accelerator
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DeadlineExceededError, NotServedError, TransportError
from oscirc_remote import downloads
from oscirc_remote.downloads import Download
from oscirc_remote.http_client import HttpClient

RAW = bytes(range(256)) * 4000
FILE = Accelerator(BUNDLE, "boot", digest_of(RAW), len(RAW))


@pytest.fixture
def server():
    with FaultServer({FILE.path: RAW}) as server:
        yield server


@pytest.fixture
def start(server):
    clients, started = [], []

    def begin(accelerator=FILE, first=0, last=None, **options):
        clients.append(HttpClient(server.url))
        started.append(
            Download(clients[-1], accelerator, first, last or accelerator.length, **{"stall_s": 5.0, **options})
        )
        return started[-1]

    yield begin
    for each in (*started, *clients):
        each.close()


def everything(download):
    pieces = []
    while piece := download.read(10):
        pieces.append(piece)
    return b"".join(pieces)


def test_the_file_comes_in_order(start):
    download = start()
    assert everything(download) == RAW
    assert download.read(10) == b""
    assert (download.received_bytes, download.held_bytes) == (len(RAW), 0)


def test_no_more_is_held_than_the_queue_may_hold(start):
    download = start(queue_bytes=100_000)
    first = download.read(10)
    for _ in range(200):
        if download.held_bytes >= 90_000:
            break
        threading.Event().wait(0.005)
    assert download.held_bytes <= 100_000
    assert first + everything(download) == RAW


def test_small_pieces_are_held_together(start, monkeypatch):
    monkeypatch.setattr(downloads, "PIECE_BYTES", 500)
    download = start(queue_bytes=10_000)
    for _ in range(200):
        if download.held_bytes == 10_000:
            break
        threading.Event().wait(0.005)
    assert len(download._pieces) <= 10_000 // 500 + 1
    assert everything(download) == RAW


@pytest.mark.parametrize(
    "fault", [truncate(), shorten(), reset(), stall(after_bytes=1000)], ids=lambda fault: fault.__qualname__
)
def test_what_comes_before_a_failure_is_given_out_first(server, start, fault):
    server.inject("accel/*", fault)
    download = start(stall_s=0.3)
    got = b""
    with pytest.raises(TransportError):
        while piece := download.read(10):
            got += piece
        raise DeadlineExceededError("it ended early, without an error")
    assert RAW.startswith(got)


def test_a_body_that_goes_on_is_not_read_on(server, start):
    server.inject("accel/*", over_long(None))
    download = start()
    got = b""
    with contextlib.suppress(TransportError):
        got = everything(download)
    assert len(got) <= download.received_bytes <= len(RAW)


def test_a_file_that_is_not_there_is_said_so(start):
    with pytest.raises(NotServedError):
        start(Accelerator(BUNDLE, "boot", digest_of(b"none"), 10)).read(10)


def test_reading_ends_when_it_is_closed(server, start):
    server.inject("accel/*", stall(after_bytes=0))
    download = start(stall_s=30.0)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(download.read(30)))
    thread.start()
    download.close()
    thread.join(10)
    assert answers == [b""]


def test_silence_is_bounded_for_the_reader_too(server, start):
    server.inject("accel/*", stall(after_bytes=0))
    with pytest.raises(DeadlineExceededError):
        start(stall_s=30.0).read(0.05)


def test_its_pace_counts_unless_the_reader_held_it_up(start):
    download = start()
    everything(download)
    received, seconds = download.pace()
    assert received == len(RAW)
    assert seconds > 0
    began = time.monotonic()
    held_up = start(queue_bytes=1000)
    while held_up.held_bytes < 1000:
        threading.Event().wait(0.005)
    threading.Event().wait(0.2 + time.monotonic() - began)
    everything(held_up)
    assert held_up.pace() == (0, 0.0)


def test_a_pace_below_the_least_is_too_slow():
    pace = downloads._Pace(1000.0)
    assert not pace.is_too_slow(downloads.PACE_S - 1, 10)
    assert pace.is_too_slow(downloads.PACE_S, 10)
    assert not pace.is_too_slow(downloads.PACE_S + 1, 10)
    assert not pace.is_too_slow(2 * downloads.PACE_S, 20_000)
