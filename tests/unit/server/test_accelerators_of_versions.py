"""Accelerators on the server: kept when they are what they say, listed, hinted at, and never in the way of a release."""

import hashlib
import json

import pytest

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import bundle, profile
from oscirc_blockstore.accelerators import BUNDLE, MAX_ACCELERATORS, MAX_HINT_BYTES, PROFILE
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import Yank
from oscirc_blockstore.profile import Profile
from oscirc_server.accelerator_bounds import limit_bytes
from oscirc_server.models import AcceleratorRow
from oscirc_server.reconciling import reconcile

from .server_world import BLOCK, block

pytestmark = pytest.mark.usefixtures("no_block_lengths")

VERSION = "images/alice/debian/versions/1.0"


@pytest.fixture
def disk(api, alice):
    """Released as debian@1.0 and `stable`."""
    built = alice.build("debian", [block("a"), None, block("b"), block("c")])
    assert api.publish(alice, "debian", "1.0", built).status_code == 200
    return built


def profile_of(disk, name="boot", positions=(2, 0), runs=2):
    return Profile(disk.digest, name, runs, tuple(positions)).serialise()


def bundle_of(disk, texts=("b", "a"), **changes):
    entries = tuple(Entry(record.digest, record.raw_size) for record in disk.nodes)
    entries += tuple(Entry(digest_of(block(text)), BLOCK) for text in texts)
    frame = bundle.compress_segment([bytes(entry.raw_size) for entry in entries], 1)
    stated = {"manifest": disk.digest, "block_size": BLOCK, **changes}
    return b"".join(bundle.build(stated["manifest"], stated["block_size"], [entries], [frame]))


def put(api, kind, name, raw, *, sha256=None, version=VERSION):
    stated = sha256 or hashlib.sha256(raw).hexdigest()
    return api.call("PUT", f"{version}/accelerators/{kind}/{name}", params={"sha256": stated}, content=raw)


def refused(answer, status, kind):
    assert (answer.status_code, answer.json()["type"]) == (status, kind), answer.text


def listing(world, disk):
    return documents.parse_listing((world.tree / documents.listing_path(disk.digest)).read_bytes())


def hint(world, image="debian"):
    return documents.parse_hint((world.tree / documents.hint_path("alice", image)).read_bytes())


def test_a_profile_and_a_bundle_are_listed_hinted_at_and_served_as_files(world, api, http, disk):
    for kind, raw in ((BUNDLE, bundle_of(disk)), (PROFILE, profile_of(disk))):
        assert put(api, kind, "boot", raw).status_code == 200
        found = listing(world, disk).find(kind, "boot")
        served = http.get(f"/{found.path}")
        assert served.content == raw
        assert "immutable" in served.headers["cache-control"]
        assert found.length == len(raw)
    assert listing(world, disk).find(BUNDLE, "boot").index_length == bundle.index_length(bundle_of(disk))
    assert hint(world).channels == {"stable": listing(world, disk)}
    answer = http.get(f"/api/v1/{VERSION}/accelerators").json()
    assert answer["manifest"] == disk.digest.hex()
    assert [each["kind"] for each in answer["accelerators"]] == [BUNDLE, PROFILE]
    for path in (documents.listing_path(disk.digest), documents.hint_path("alice", "debian")):
        assert "immutable" not in http.get(f"/{path}").headers["cache-control"]


def test_putting_another_of_that_name_replaces_it_for_those_who_come_later(world, api, disk):
    put(api, PROFILE, "boot", profile_of(disk))
    first = listing(world, disk).find(PROFILE, "boot")
    put(api, PROFILE, "boot", profile_of(disk, positions=(0,)))
    second = listing(world, disk).find(PROFILE, "boot")
    assert first.sha256 != second.sha256
    assert (world.tree / first.path).exists()  # somebody may be reading it


def test_what_no_row_names_is_gone_after_the_next_start_and_the_rest_is_written_anew(world, installation, api, disk):
    put(api, PROFILE, "boot", profile_of(disk))
    first = listing(world, disk).find(PROFILE, "boot")
    put(api, PROFILE, "boot", profile_of(disk, positions=(0,)))
    (world.tree / documents.listing_path(disk.digest)).unlink()
    (world.tree / documents.hint_path("alice", "debian")).write_bytes(b"nonsense")
    reconcile(installation)
    assert not (world.tree / first.path).exists()
    assert hint(world).channels["stable"] == listing(world, disk)


def test_only_its_publisher_puts_and_removes(world, api, disk):
    raw = profile_of(disk)
    for token, status in ((None, 401), (world.token("publish:bob"), 403), ("oscirc_unknown", 401)):
        stranger = api.with_token(token)
        assert put(stranger, PROFILE, "boot", raw).status_code == status
        assert stranger.call("DELETE", f"{VERSION}/accelerators/profile/boot").status_code == status


@pytest.mark.parametrize(
    ("kind", "name", "make", "status", "error"),
    [
        (PROFILE, "boot", lambda disk: profile_of(disk, positions=(4,)), 422, "DocumentRefusedError"),
        (PROFILE, "boot", lambda disk: profile_of(disk, name="other"), 422, "DocumentRefusedError"),
        (PROFILE, "boot", lambda _: Profile(digest_of(b"x"), "boot", 1, ()).serialise(), 422, "DocumentRefusedError"),
        (PROFILE, "boot", lambda _: b"{}", 422, "DocumentRefusedError"),
        (PROFILE, "fleet-boot", lambda disk: profile_of(disk, name="fleet-boot"), 400, "UsageError"),
        (PROFILE, "Boot", profile_of, 400, "NameRefusedError"),
        (PROFILE, ".boot", profile_of, 400, "NameRefusedError"),
        ("picture", "boot", profile_of, 400, "UsageError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk)[:-1], 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk) + b"x", 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk)[:40], 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk, manifest=digest_of(b"x")), 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk, block_size=4 * BLOCK), 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda _: bytes(1000), 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda _: b"", 422, "DocumentRefusedError"),
        (BUNDLE, "boot", lambda disk: bundle_of(disk, texts="abcd"), 422, "DocumentRefusedError"),
    ],
)
def test_what_is_not_what_it_says_is_not_kept(world, api, disk, kind, name, make, status, error):
    refused(put(api, kind, name, make(disk)), status, error)
    assert [path.name for path in (world.tree / "accel").iterdir()] == ["hints"]


def test_a_body_that_was_damaged_on_its_way_is_refused(world, api, disk):
    refused(put(api, PROFILE, "boot", profile_of(disk), sha256="ab" * 32), 400, "UsageError")
    refused(put(api, PROFILE, "boot", profile_of(disk), sha256="zz" * 32), 422, "DocumentRefusedError")


def test_a_body_longer_than_any_of_that_kind_is_refused_while_it_comes(api, disk, monkeypatch):
    monkeypatch.setattr(profile, "MAX_PROFILE_BYTES", 1000)
    refused(put(api, PROFILE, "boot", bytes(1001)), 413, "BodyTooLargeError")
    longest = limit_bytes(disk.manifest, BUNDLE)
    assert longest < 8 * BLOCK  # three blocks, one node
    refused(put(api, BUNDLE, "boot", bytes(longest + 1)), 413, "BodyTooLargeError")


@pytest.mark.parametrize("version", ["images/alice/debian/versions/2.0", "images/alice/none/versions/1.0"])
def test_a_version_that_is_not_released_has_none(api, disk, version):
    for answer in (
        api.call("GET", f"{version}/accelerators"),
        put(api, PROFILE, "boot", profile_of(disk), version=version),
        api.call("DELETE", f"{version}/accelerators/profile/boot"),
    ):
        refused(answer, 404, "NotFoundError")


def test_what_was_removed_is_listed_no_more_and_cannot_be_removed_again(world, api, disk):
    put(api, PROFILE, "boot", profile_of(disk))
    assert api.call("DELETE", f"{VERSION}/accelerators/profile/boot").status_code == 204
    assert listing(world, disk).accelerators == ()
    refused(api.call("DELETE", f"{VERSION}/accelerators/profile/boot"), 404, "NotFoundError")


def fill(installation, manifest, count, kind=PROFILE, name_chars=63):
    with installation.database.write() as session:
        for number in range(count):
            name = f"{number:03}-".ljust(name_chars, "n")
            session.add(
                AcceleratorRow(
                    manifest=manifest, kind=kind, name=name, sha256=digest_of(name.encode()), length=1 << 40,
                    index_length=0, created_s=0,
                )
            )  # fmt: skip


def test_a_version_has_a_bounded_number_of_them(installation, api, disk):
    fill(installation, disk.digest, MAX_ACCELERATORS - 1)
    assert put(api, PROFILE, "boot", profile_of(disk)).status_code == 200
    refused(put(api, BUNDLE, "boot", bundle_of(disk)), 409, "ConflictError")
    assert put(api, PROFILE, "boot", profile_of(disk, positions=(0,))).status_code == 200  # instead of one


def test_hints_follow_channels_and_pass_over_withdrawn_versions(world, api, alice, disk):
    put(api, PROFILE, "boot", profile_of(disk))
    other = alice.build("debian", [block("z")])
    assert api.publish(alice, "debian", "2.0", other).status_code == 200
    assert hint(world).channels["stable"].manifest == other.digest
    indexes = {"debian": alice.indexes["debian"].with_yank("2.0", Yank("broken", "2027-01-16T08:00:00Z"))}
    assert api.call("PUT", "publishers/alice/role", json=alice.offer(indexes)).status_code == 200
    assert hint(world).channels == {}


def test_more_channels_than_a_hint_has_room_for_are_no_reason_to_refuse_anything(world, installation, api, alice, disk):
    fill(installation, disk.digest, MAX_ACCELERATORS - 1)
    index = alice.indexes["debian"]
    for number in range(100):
        index = index.with_channel(f"channel-{number:03}", "1.0")
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    assert put(api, PROFILE, "boot", profile_of(disk)).status_code == 200
    raw = (world.tree / documents.hint_path("alice", "debian")).read_bytes()
    assert MAX_HINT_BYTES // 2 < len(raw) <= MAX_HINT_BYTES
    assert 5 < len(json.loads(raw)["channels"]) < 100
    reconcile(installation)  # a server with such an image starts
