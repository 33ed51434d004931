"""Metadata as values: hostile bytes are refused, one's own are what a client would accept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, Targets

from oscirc_blockstore import keys
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, NotFoundError, SignatureRefusedError, UsageError
from oscirc_server import key_files, metadata
from oscirc_server.delegations import delegation, publishers, with_publisher, without_publisher

from .server_world import MovableClock, Publisher, signed

NOW = 1_800_000_000
GOOD = signed(Targets(version=3, expires=metadata.expiry(NOW, 60)), keys.generate())


def test_good_bytes_come_back_as_they_were():
    parsed = metadata.parse(GOOD, Targets, "it")
    assert parsed.signed.version == 3
    stored = metadata.stored("alice", parsed.signed, GOOD)
    assert (stored.role, stored.version, stored.raw, stored.expires_s) == ("alice", 3, GOOD, NOW + 60)


def changed(**fields):
    document = json.loads(GOOD)
    document["signed"].update(fields)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[1]",
        b'{"signed": 1}',
        GOOD[:-1],
        GOOD + b"x",
        b"\xff\xfe",
        b"[" * 100_000,
        GOOD.replace(b'"signatures":', b'"signatures":[],"signatures":', 1),
        changed(_type="mirrors"),
        changed(version=0),
        changed(version=1.5),
        changed(version="3"),
        changed(spec_version="9.0"),
        changed(expires="tomorrow"),
        changed(targets=[]),
        changed(extra=1.5),
        b" " * (metadata.MAX_ROLE_BYTES + 1),
    ],
)
def test_what_is_no_metadata_is_refused(raw):
    with pytest.raises(DocumentRefusedError):
        metadata.parse(raw, Targets, "it")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(raw):
    with pytest.raises(DocumentRefusedError):
        metadata.parse(raw, Targets, "it")


def test_another_role_is_refused():
    with pytest.raises(DocumentRefusedError):
        metadata.parse(GOOD, Root, "it")


def test_a_threshold_counts_distinct_keys():
    first, second = keys.generate(), keys.generate()
    targets = with_publisher(
        Targets(expires=metadata.expiry(NOW, 60)), "alice", [first.public_key(), second.public_key()], threshold=2
    )
    role = Targets(expires=metadata.expiry(NOW, 60))

    def verify(*private):
        raw = signed(role, *private)
        metadata.verify(targets, "alice", metadata.parse(raw, Targets, "it"), "it")

    verify(first, second)
    for too_few in ((first,), (second,), (first, first), ()):
        with pytest.raises(SignatureRefusedError):
            verify(*too_few)
    with pytest.raises(SignatureRefusedError):
        metadata.verify(targets, "bob", metadata.parse(GOOD, Targets, "it"), "it")


def test_publishers_are_added_replaced_and_taken_out():
    empty = Targets(expires=metadata.expiry(NOW, 60))
    alice, bob = Publisher("alice", MovableClock()), Publisher("bob", MovableClock())
    both = with_publisher(with_publisher(empty, "bob", [bob.key.public_key()]), "alice", [alice.key.public_key()])
    assert publishers(both) == ["alice", "bob"]
    assert publishers(empty) == []
    other = keys.generate().public_key()
    replaced = with_publisher(both, "alice", [other])
    assert delegation(replaced, "alice").fingerprints == (keys.fingerprint(other),)
    assert len(replaced.delegations.keys) == 2
    assert publishers(without_publisher(replaced, "alice")) == ["bob"]
    assert len(without_publisher(replaced, "alice").delegations.keys) == 1
    with pytest.raises(NotFoundError):
        without_publisher(empty, "alice")
    for threshold, given_keys in ((0, [other]), (2, [other]), (1, [])):
        with pytest.raises(UsageError):
            with_publisher(empty, "alice", given_keys, threshold=threshold)


def test_a_snapshot_that_clients_would_not_read_is_not_signed():
    signer = CryptoSigner(keys.generate())
    many = {f"publisher-{number}": (1, b"x") for number in range(17_000)}
    with pytest.raises(LocalError):
        metadata.sign_snapshot(1, metadata.expiry(NOW, 60), many, [signer])
    few = metadata.sign_snapshot(1, metadata.expiry(NOW, 60), {"alice": (2, b"x")}, [signer])
    assert metadata.parse(few.raw, Snapshot, "it").signed.meta["alice.json"].version == 2


def test_keys_are_never_overwritten(tmp_path):
    path = key_files.key_path(tmp_path, "root")
    key_files.write_key(path, keys.generate(), "secret")
    before = path.read_bytes()
    with pytest.raises(LocalError):
        key_files.write_key(path, keys.generate(), "secret")
    assert path.read_bytes() == before
    with pytest.raises(LocalError):
        key_files.load_signer(tmp_path / "absent.pem", None)
