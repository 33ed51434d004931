"""What breaks between this server and its bucket is asked again, in bounds: every operation is idempotent.

Of a real S3 server, whose connections a proxy resets before a request was heard, or after it was, with its answer.
"""

import io

import pytest
from support.breaking_proxy import UNANSWERED, UNHEARD, breaking_proxy

from oscirc_blockstore.errors import UnreachableError
from oscirc_server import object_storage
from oscirc_server.object_storage import ObjectStorage

HERE, ABSENT = "accel/here", "accel/absent"
RAW = b"0123456789" * 100
LONG = bytes(range(256)) * (11 << 12)  # 11 MiB: in parts

OPERATIONS = {
    "replace": lambda storage: storage.replace("metadata/timestamp.json", RAW),
    "put_if_absent": lambda storage: storage.put_if_absent(ABSENT, RAW),
    "replace_from": lambda storage: storage.replace_from("accel/long", io.BytesIO(LONG)),
    "get": lambda storage: storage.get(HERE, 1000),
    "get_range": lambda storage: storage.get_range(HERE, 3, 10),
    "size": lambda storage: storage.size(HERE),
    "files": lambda storage: [(file.path, file.size) for file in storage.files("accel")],
    "remove": lambda storage: storage.remove(HERE),
    "remove what is absent": lambda storage: storage.remove(ABSENT),
    "check": lambda storage: storage.check(),
}
EXPECTED = {
    "put_if_absent": True,
    "get": RAW,
    "get_range": RAW[3:10],
    "size": 1000,
    "files": [(HERE, 1000)],
}


@pytest.fixture
def proxy(s3):
    with breaking_proxy(s3.port) as opened:
        yield opened


@pytest.fixture
def storage(s3, proxy, monkeypatch):
    """One that has a connection already, as a server's always has."""
    monkeypatch.setattr(object_storage, "_REMOVING_PAUSES_S", (0.0, 0.0))
    opened = ObjectStorage.open(f"s3://{s3.bucket()}/prefix?endpoint={proxy.url}")
    opened.replace(HERE, RAW)
    opened.check()
    opened.remove("accel/nothing")
    return opened


@pytest.mark.parametrize("how", [UNHEARD, UNANSWERED])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_connection_that_breaks_once_is_noticed_by_nobody(storage, proxy, name, how):
    proxy.break_next(how)
    assert OPERATIONS[name](storage) == EXPECTED.get(name)
    assert len(proxy.requests) >= 2  # it was asked again
    if name == "replace_from":
        assert storage.get("accel/long", len(LONG)) == LONG
    if name == "remove":
        assert storage.size(HERE) is None


def test_a_removal_is_asked_three_times_and_then_it_has_failed(storage, proxy):
    proxy.break_next(UNHEARD, times=3)
    with pytest.raises(UnreachableError):
        storage.remove(HERE)
    assert len(proxy.requests) == 3
    assert storage.size(HERE) == 1000


def test_a_removal_that_is_refused_is_not_asked_again(s3, proxy, storage, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    stranger = ObjectStorage.open(f"s3://bucket-0/prefix?endpoint={proxy.url}")
    proxy.break_next(UNHEARD, times=0)
    with pytest.raises(object_storage.LocalError, match="credentials"):
        stranger.remove(HERE)
    assert len(proxy.requests) == 1


def test_all_that_is_asked_for_a_removal_is_over_before_others_may_begin(storage):
    """`collection.removing` counts on it."""
    from oscirc_server.collection import removing

    tries = len(object_storage._REMOVING_PAUSES_S) + 1
    longest_s = tries * object_storage._REMOVING_S + 1
    assert removing.REMOVE_WITHIN_S + longest_s < removing.FINISH_AFTER_S
    assert storage._removing.retry_config["max_retries"] == 0
