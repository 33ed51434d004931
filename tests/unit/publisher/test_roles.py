from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Snapshot, TargetFile, Targets

from oscirc_blockstore import keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import SignatureRefusedError, TrustError
from oscirc_publisher.roles import next_role, no_role, parse_role, sign

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def private():
    return keys.generate()


def test_the_first_role_and_what_it_names(private):
    raw = next_role(no_role("alice"), {"debian": b"index"}, private, NOW)
    role = parse_role(raw, "alice", 1, (private.public_key(),))
    assert role.version == 1
    assert role.index("debian").sha256 == digest_of(b"index").hex()
    assert role.index("debian").length == 5
    assert role.index("other") is None
    assert role.expires == NOW + timedelta(days=365)
    signed = Metadata[Targets].from_bytes(raw).signed
    assert list(signed.targets) == ["alice/debian.json"]
    assert signed.delegations is None


def test_the_next_role_keeps_what_it_does_not_change(private):
    first = next_role(no_role("alice"), {"debian": b"one", "fedora": b"two"}, private, NOW)
    role = parse_role(first, "alice", 1, (private.public_key(),))
    second = next_role(role, {"debian": b"three"}, private, NOW + timedelta(days=400))  # an expired one, built upon
    role = parse_role(second, "alice", 2, (private.public_key(),))
    assert role.index("debian").sha256 == digest_of(b"three").hex()
    assert role.index("fedora").sha256 == digest_of(b"two").hex()
    assert role.expires == NOW + timedelta(days=765)


def test_a_clock_that_is_not_utc_signs_the_same_moment(private):
    from datetime import timezone

    east = NOW.astimezone(timezone(timedelta(hours=9)))
    raw = next_role(no_role("alice"), {}, private, east)
    assert Metadata[Targets].from_bytes(raw).signed.expires == NOW + timedelta(days=365)


def test_a_role_that_somebody_else_signed_is_refused(private):
    raw = next_role(no_role("alice"), {}, keys.generate(), NOW)
    with pytest.raises(SignatureRefusedError, match="not signed with your key"):
        parse_role(raw, "alice", 1, (private.public_key(),))


def test_a_role_that_was_altered_is_refused(private):
    raw = next_role(no_role("alice"), {"debian": b"one"}, private, NOW)
    altered = raw.replace(digest_of(b"one").hex().encode(), digest_of(b"two").hex().encode())
    assert altered != raw
    with pytest.raises(SignatureRefusedError, match="altered"):
        parse_role(altered, "alice", 1, (private.public_key(),))


def test_another_version_than_stated_is_refused(private):
    raw = next_role(no_role("alice"), {}, private, NOW)
    with pytest.raises(SignatureRefusedError, match="version 1, not 2"):
        parse_role(raw, "alice", 2, (private.public_key(),))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"signatures": [], "signed": {}}'])
def test_what_is_no_metadata_is_refused(private, raw):
    with pytest.raises(SignatureRefusedError):
        parse_role(raw, "alice", 1, (private.public_key(),))


def test_metadata_of_another_kind_is_refused(private):
    metadata = Metadata(Snapshot(version=1, expires=NOW))
    metadata.sign(CryptoSigner(private))
    with pytest.raises(SignatureRefusedError):
        parse_role(metadata.to_bytes(), "alice", 1, (private.public_key(),))


@pytest.mark.parametrize("path", ["bob/debian.json", "alice/../x.json", "alice/a/b.json", "repository.json", "alice/x"])
def test_a_role_with_targets_that_are_not_its_own_is_refused(private, path):
    target = TargetFile(1, {"sha256": "0" * 64}, path)
    raw = sign(Targets(version=1, expires=NOW, targets={path: target}), private)
    with pytest.raises(SignatureRefusedError):
        parse_role(raw, "alice", 1, (private.public_key(),))


def test_a_target_without_a_sha256_is_refused(private):
    path = "alice/debian.json"
    target = TargetFile(1, {"sha512": "0" * 128}, path)
    raw = sign(Targets(version=1, expires=NOW, targets={path: target}), private)
    with pytest.raises(SignatureRefusedError):
        parse_role(raw, "alice", 1, (private.public_key(),))


def test_a_former_key_is_trusted_only_when_it_is_named(private):
    former = keys.generate()
    raw = next_role(no_role("alice"), {"debian": b"one"}, former, NOW)
    role = parse_role(raw, "alice", 1, (private.public_key(), former.public_key()))
    assert parse_role(next_role(role, {}, private, NOW), "alice", 2, (private.public_key(),)).index("debian")


def test_nothing_is_signed_that_a_server_must_refuse(private):
    with pytest.raises(TrustError):
        next_role(no_role("alice"), {"debian": b""}, private, NOW)  # an empty index


def test_the_signed_bytes_follow_from_the_content_alone(private):
    one = next_role(no_role("alice"), {"a": b"1", "b": b"2"}, private, NOW)
    two = next_role(no_role("alice"), {"b": b"2", "a": b"1"}, private, NOW)
    assert Metadata[Targets].from_bytes(one).signatures == Metadata[Targets].from_bytes(two).signatures
