"""Several keys stand for a publisher: whose word is built upon, what leaves for others to sign, what comes back."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tuf.api.metadata import Metadata, TargetFile, Targets

from oscirc_blockstore import image_index, keys
from oscirc_blockstore.about import About
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotFoundError, SignatureRefusedError
from oscirc_blockstore.signing_request import parse_request, read_signatures
from oscirc_publisher import administration, changing
from oscirc_publisher.joint_signing import AwaitsSignaturesError, joint_keys, send
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory
from oscirc_publisher.roles import sign, tuf_key
from oscirc_publisher.signing import PublisherKey
from oscirc_server import ceremony_facts

from .conftest import MIB, MemoryDisk, mixed_bytes

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def team(repository, tmp_path):
    """Three keys of `alice`, two of which must sign; and the targets role that says so."""
    held = [PublisherKey(f"key-{n}", keys.generate(), tmp_path / f"{n}.json") for n in range(3)]
    repository.add_publisher("alice", *(key.public for key in held))
    offline = keys.generate()
    target = TargetFile(10, {"sha256": "0" * 64}, "repository.json")
    first = sign(Targets(version=1, expires=NOW, targets={"repository.json": target}), offline)
    edit = administration.adding("alice", [key.public for key in held], 2)
    return held, administration.change_targets(first, [offline], NOW, edit)


def signatory(rest, team, *which, **options):
    held, targets = team
    first, *more = (held[at] for at in which)
    return Signatory(rest, "alice", first, co_signers=more, joint=lambda: joint_keys(targets, "alice"), **options)


def release(rest, team, *which, version="1"):
    disk = MemoryDisk(mixed_bytes(MIB))
    return publish(disk, signatory(rest, team, *which), "debian", version, block_size=65536)


def test_two_keys_at_hand_release_at_once(repository, team):
    with repository.client() as rest:
        result = release(rest, team, 0, 2)
        assert result.changed
        role = signatory(rest, team, 1).served_role()  # signed without this one, and still the publisher's
    assert role.version == 1
    assert len(Metadata.from_bytes(role.raw).signatures) == 2


def test_one_key_leaves_a_request_that_the_others_complete(repository, team):
    held, _ = team
    with repository.client() as rest:
        with pytest.raises(AwaitsSignaturesError, match="1 more of alice's keys") as caught:
            release(rest, team, 0)
        request = parse_request(caught.value.request.serialise())
        assert (request.parts[0].role, request.draft) == ("alice", next(iter(repository.drafts)))
        index = image_index.parse(request.documents["debian"], "alice", "debian")
        assert index.channels == {"stable": "1"}
        (own,) = read_signatures(request, caught.value.signatures, "it")
        assert keys.fingerprint(own.key) == held[0].fingerprint
        payload = Metadata[Targets](Targets.from_dict(json.loads(request.parts[0].payload)))
        assert payload.signed_bytes == request.parts[0].payload
        raw = sign(payload.signed, held[0].private, held[1].private)
        assert send(rest, request, "alice", raw).role_version == 1
        again = release(rest, team, 0)  # what is left to do after that: nothing
    assert (again.changed, again.role_version) == (False, 1)


def test_a_change_without_a_disk_leaves_a_request_beside_what_is_in_force(repository, team):
    held, _ = team
    with repository.client() as rest:
        release(rest, team, 0, 1)
        with pytest.raises(AwaitsSignaturesError) as caught:
            changing.yank(signatory(rest, team, 1), "debian", "1", "broken")
        request = caught.value.request
        assert request.draft == ""
        before = image_index.parse(request.documents["before/debian"], "alice", "debian")
        after = image_index.parse(request.documents["debian"], "alice", "debian")
        assert (before.version("1").yanked, after.version("1").yanked.why) == (None, "broken")
        signed = Metadata[Targets](Targets.from_dict(json.loads(request.parts[0].payload))).signed
        assert send(rest, request, "alice", sign(signed, held[1].private, held[2].private)).role_version == 2
        with pytest.raises(AwaitsSignaturesError):
            changing.resign(signatory(rest, team, 2))
    assert repository.index("alice", "debian").version("1").yanked.why == "broken"


def test_whoever_signs_too_is_told_what_is_said_of_an_image_and_what_is_deleted(repository, team):
    with repository.client() as rest:
        release(rest, team, 0, 1)
        both = signatory(rest, team, 0, 1)
        changing.describe(both, "debian", lambda _said: About("Debian", readme="# Old"))
        with pytest.raises(AwaitsSignaturesError) as caught:
            changing.describe(signatory(rest, team, 1), "debian", lambda said: replace(said, title="D", readme="# New"))
        (facts,) = ceremony_facts.describe(parse_request(caught.value.request.serialise()))
        assert facts.changes == (
            "alice/debian: title becomes 'D' (was 'Debian')",
            f"alice/debian: the README becomes one of 5 bytes, SHA-256 {digest_of(b'# New').hex()}",
        )
        with pytest.raises(AwaitsSignaturesError) as caught:
            changing.delete_image(signatory(rest, team, 1), "debian", "no use")
        told = ceremony_facts.describe(caught.value.request)[0].changes
        assert "alice/debian: version 1 is deleted for ever: no use" in told
        assert "alice/debian: nothing is released under this name ever again" in told


def test_what_is_in_force_travels_with_a_request_where_every_version_is_deleted(repository, team):
    """Else whoever signs would be told of everything in the index as if it were new."""
    with repository.client() as rest:
        disk = MemoryDisk(mixed_bytes(MIB))
        both = signatory(rest, team, 0, 1)
        publish(disk, both, "debian", "1", block_size=65536, channel=None)
        changing.delete(both, "debian", ["1"], "broken")
        with pytest.raises(AwaitsSignaturesError) as caught:
            release(rest, team, 0, version="2")
        (facts,) = ceremony_facts.describe(caught.value.request)
    assert [change.partition(",")[0] for change in facts.changes] == [
        "alice/debian: + version 2",
        "alice/debian: #stable goes from nothing to 2",
    ]


def test_a_role_that_one_key_alone_signed_is_not_built_upon(repository, team):
    """Somebody with one stolen key and the server on their side: nobody else's signature is put under that."""
    held, _ = team
    with repository.client() as rest:
        release(rest, team, 0, 1)
        forged = Metadata[Targets].from_bytes(repository.files["metadata/1.alice.json"]).signed
        forged.version = 2
        repository.files["metadata/2.alice.json"] = sign(forged, held[2].private)
        repository.publishers["alice"].role_version = 2
        with pytest.raises(SignatureRefusedError, match="1 of the 2"):
            signatory(rest, team, 0).served_role()
        with pytest.raises(SignatureRefusedError):
            changing.resign(signatory(rest, team, 0, 1))


def test_a_key_that_is_not_among_them_is_refused(repository, team, tmp_path):
    stranger = PublisherKey("other", keys.generate(), tmp_path / "other.json")
    _, targets = team
    with repository.client() as rest:
        with pytest.raises(SignatureRefusedError, match="none of those"):
            Signatory(rest, "alice", stranger, joint=lambda: joint_keys(targets, "alice")).resign()
        with pytest.raises(SignatureRefusedError, match="another key"):
            Signatory(rest, "alice", stranger).resign()


def test_whom_a_role_delegates_to_is_read_from_verified_bytes(team):
    held, targets = team
    found = joint_keys(targets, "alice")
    assert (found.threshold, {tuf_key(key).keyid for key in found.keys}) == (
        2,
        {tuf_key(key.public).keyid for key in held},
    )
    with pytest.raises(NotFoundError):
        joint_keys(targets, "bob")
