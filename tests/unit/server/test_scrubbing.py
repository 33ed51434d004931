"""Scrubs: what is damaged or missing is found, repaired from a mirror that is right, and else set aside."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import delete

from oscirc_blockstore.digests import block_path
from oscirc_blockstore.errors import BusyError
from oscirc_server.collection.collecting import collect
from oscirc_server.collection.scrubbing import SCRUBBER, scrub
from oscirc_server.models import BlockRow
from oscirc_server.services import blocks

from .server_world import BLOCK, Record, block
from .test_collecting import everything_of, state_of, stored


@contextlib.contextmanager
def mirror(files):
    """A server of these files; yields its URL and the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path[1:])
            raw = files.get(self.path[1:])
            self.send_response(404 if raw is None else 200)
            self.send_header("Content-Length", str(len(raw or b"")))
            self.end_headers()
            self.wfile.write(raw or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_of(*disks):
    return {block_path(record.digest): record.frame for disk in disks for record in disk.records}


@pytest.fixture
def disk(api, alice, no_block_lengths):
    made = alice.build("debian", [block("a"), block("b"), block("c")])
    assert api.publish(alice, "debian", "1", made).status_code == 200
    return made


def test_a_store_that_is_whole_is_left_as_it_is(installation, disk):
    report = scrub(installation)
    assert (report.checked, report.damaged, report.missing, report.bad) == (4, 0, 0, [])
    assert report.complete
    assert report.checked_bytes == sum(len(record.frame) for record in disk.records)


@pytest.mark.parametrize("which", ["block", "node"])
@pytest.mark.parametrize("how", ["damaged", "missing", "forgotten"])
def test_what_is_wrong_is_repaired_from_a_mirror(installation, disk, which, how):
    record = disk.blocks[0] if which == "block" else disk.nodes[0]
    path = block_path(record.digest)
    if how == "damaged":
        installation.storage.replace(path, b"x" + record.frame[1:])
    else:
        installation.storage.remove(path)
    if how == "forgotten":
        with installation.database.write() as session:
            blocks.forget(session, record.digest)
    with mirror(files_of(disk)) as (url, asked):
        report = scrub(installation, [url])
    assert asked == [path]
    assert (report.repaired, report.damaged + report.missing, report.bad) == (1, 1, [])
    assert installation.storage.get(path, 1 << 20) == record.frame
    assert state_of(installation, record.digest) == "live"
    collect(installation)
    assert scrub(installation).damaged == 0


def test_a_mirror_that_lies_is_not_believed_and_the_next_one_is_asked(installation, disk):
    record = disk.blocks[0]
    path = block_path(record.digest)
    installation.storage.replace(path, b"damaged")
    other = Record(record.digest, BLOCK, disk.blocks[1].frame)
    with mirror({path: other.frame}) as (liar, _), mirror({path: b"short"}) as (fool, _), mirror({}) as (poor, _):
        report = scrub(installation, [liar, fool, poor])
        assert report.bad == [record.digest.hex()]
        with mirror(files_of(disk)) as (honest, _):
            assert scrub(installation, [liar, honest]).repaired == 1
    assert installation.storage.get(path, 1 << 20) == record.frame


def test_what_cannot_be_repaired_is_set_aside_and_taken_from_the_next_upload(installation, world, disk, api, alice):
    record = disk.blocks[0]
    installation.storage.replace(block_path(record.digest), b"damaged")
    report = scrub(installation)
    assert (report.damaged, report.needed_bad, report.bad) == (1, 1, [record.digest.hex()])
    assert (world.data / "quarantine" / f"{record.digest.hex()}.zst").read_bytes() == b"damaged"
    assert not stored(installation, record.digest)
    again = scrub(installation)
    assert (again.missing, again.needed_bad) == (1, 1)
    draft = api.draft("alice", "debian", "2")
    assert api.missing(draft, everything_of(disk)) == [record.digest]
    assert api.upload(draft, [record]).json()["stored"] == 1
    assert scrub(installation).bad == []


def test_a_node_that_is_gone_does_not_hide_what_else_is_wrong(installation, api, alice, disk):
    other = alice.build("other", [block("x"), block("y")])
    assert api.publish(alice, "other", "1", other).status_code == 200
    installation.storage.remove(block_path(disk.nodes[0].digest))
    installation.storage.replace(block_path(other.blocks[0].digest), b"damaged")
    report = scrub(installation)
    assert (report.missing, report.damaged) == (1, 1)
    assert set(report.bad) == {disk.nodes[0].digest.hex(), other.blocks[0].digest.hex()}


def test_a_scrub_goes_on_where_the_last_one_was_interrupted(installation, disk, monkeypatch):
    monkeypatch.setattr("oscirc_server.collection.scrubbing.PAGE", 1)
    asked = iter([False] * 3)  # the walk of the one table, and two pages
    first = scrub(installation, stopped=lambda: next(asked, True))
    assert (first.complete, first.checked) == (False, 2)
    second = scrub(installation)
    assert (second.resumed, second.complete, second.checked) == (True, True, 2)
    assert not scrub(installation).resumed
    asked = iter([False] * 3)
    scrub(installation, stopped=lambda: next(asked, True))
    assert scrub(installation, from_start=True).checked == 4


def test_a_block_that_no_version_needs_is_told_as_well(installation, api, alice, disk):
    loose = alice.build("loose", [block("l")])
    api.stage(alice, "loose", "1", loose)
    installation.storage.replace(block_path(loose.blocks[0].digest), b"damaged")
    report = scrub(installation)
    assert (report.damaged, report.needed_bad) == (1, 0)


def test_one_scrubs_at_a_time(installation):
    with installation.locks.held(SCRUBBER), pytest.raises(BusyError):
        scrub(installation)


def test_while_a_collection_is_under_way_only_the_row_of_a_bad_block_goes(installation, disk, monkeypatch):
    monkeypatch.setattr("oscirc_server.collection.repairing._QUARANTINE_WAIT_S", 0.01)
    record = disk.blocks[0]
    installation.storage.replace(block_path(record.digest), b"damaged")
    with installation.locks.held("collector"):
        scrub(installation)
    assert state_of(installation, record.digest) is None
    assert stored(installation, record.digest)


def test_a_scrub_without_rows_reads_what_versions_need(installation, disk):
    with installation.database.write() as session:
        session.execute(delete(BlockRow))
    assert scrub(installation).checked == 4
