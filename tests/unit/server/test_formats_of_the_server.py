"""Small rules: paths of the tree, where to listen, lines of the log, dates."""

import logging

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NameRefusedError, UsageError
from oscirc_server import logs
from oscirc_server.clock import date_text
from oscirc_server.settings import Listen, Settings
from oscirc_server.tree_paths import index_path, is_tree_path, role_of_path, role_path, root_path, target_path

D = digest_of(b"x")


def test_every_path_that_is_written_can_be_served():
    for path in (
        role_path("timestamp", 9),
        role_path("root", 1),
        role_path("a.b-c", 12),
        root_path(D),
        target_path("repository.json", D),
        index_path("alice", "debian.x-1", D),
        f"blocks/sha256/ab/{D.hex()}.zst",
        f"manifests/{D.hex()}.json",
        "accel/" + D.hex(),
    ):
        assert is_tree_path(path), path


@pytest.mark.parametrize(
    "path", ["", "metadata", "metadata/", "x/y", "metadata/../x", "metadata/a b", "metadata/é", "/metadata/a"]
)
def test_other_paths_are_not(path):
    assert not is_tree_path(path)


def test_roles_are_read_back_from_their_paths():
    assert role_of_path("metadata/12.a.b-c.json") == ("a.b-c", 12)
    assert role_of_path("metadata/1.1.root.json") == ("1.root", 1)
    for path in ("metadata/timestamp.json", "metadata/0.root.json", "metadata/x.root.json", "targets/1.root.json"):
        assert role_of_path(path) is None


def test_an_index_has_no_path_under_a_bad_name():
    with pytest.raises(NameRefusedError):
        index_path("..", "debian", D)


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("127.0.0.1:8420", "127.0.0.1", 8420, "http://127.0.0.1:8420"),
        ("localhost:0", "localhost", 0, "http://localhost:0"),
        ("[::1]:80", "::1", 80, "http://[::1]:80"),
        ("example.org:65535", "example.org", 65535, "http://example.org:65535"),
    ],
)
def test_addresses_to_listen_on(text, host, port, url):
    listen = Listen.parse(text)
    assert (listen.host, listen.port, listen.url(listen.port)) == (host, port, url)


@pytest.mark.parametrize("text", ["", "8420", ":8420", "host:", "host:x", "host:65536", "host:-1", "host:²"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError):
        Listen.parse(text)


def test_threads_follow_the_machine(tmp_path):
    assert Settings(data_dir=tmp_path).upload_threads >= 2


def test_a_log_line_holds_its_facts_in_one_line():
    record = logging.makeLogRecord(
        {
            "name": "x",
            "levelname": "INFO",
            "msg": "request %s",
            "args": ("done",),
            "path": "/a b\n",
            "ms": 3,
            "created": 0,
        }
    )
    line = logs.LineFormatter().format(record)
    assert line == 'time=1970-01-01T00:00:00.000Z level=info event="request done" path="/a b\\n" ms=3'


def test_a_traceback_follows_its_line():
    error = ValueError("why")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, None)})
    assert "ValueError: why" in logs.LineFormatter().format(record)


def test_dates_are_utc_to_the_second():
    assert date_text(1_800_000_000.9) == "2027-01-15T08:00:00Z"
