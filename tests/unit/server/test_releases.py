"""Releases: what becomes visible, what is refused, and that nothing half done is seen."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.table import NODE_SIZE
from oscirc_server.models import ManifestRow
from oscirc_server.services import releases

from .server_world import BLOCK, DAY_S, Api, Publisher, block, fork, offer_of, signed


@pytest.fixture
def disk(alice):
    return alice.build("debian", [block("a"), None, block("b")], family="debian", version="12")


@pytest.fixture
def draft(api, alice, disk):
    """Uploaded, with its manifest, ready for release as debian@1.0."""
    return api.stage(alice, "debian", "1.0", disk)


@pytest.fixture
def indexes(alice, disk):
    return {"debian": alice.index_with("debian", "1.0", disk.digest)}


def release(api, draft, offer):
    return api.call("POST", f"drafts/{draft}/release", json=offer)


def refused(answer, status, kind):
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["type"] == kind, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    return problem


def nothing_visible(world, http, publisher="alice"):
    assert http.get("/api/v1/images").json()["images"] == []
    assert http.get(f"/metadata/1.{publisher}.json").status_code == 404
    assert list((world.tree / "manifests").iterdir() if (world.tree / "manifests").exists() else []) == []


def test_a_released_version_is_in_the_tree_and_the_catalog(world, api, alice, http, disk):
    answer = api.publish(alice, "debian", "1.0", disk)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"role_version": 1, "snapshot_version": 3}
    assert (world.tree / "manifests" / f"{disk.digest.hex()}.json").read_bytes() == disk.raw
    index = alice.indexes["debian"].serialise()
    assert (world.tree / "targets/alice" / f"{digest_of(index).hex()}.debian.json").read_bytes() == index
    listed = http.get("/api/v1/images").json()["images"]
    assert [(image["publisher"], image["image"], image["channels"]) for image in listed] == [
        ("alice", "debian", {"stable": "1.0"})
    ]
    shown = http.get("/api/v1/publishers/alice").json()
    assert (shown["role_version"], shown["images"]) == (1, ["debian"])


def test_the_same_release_asked_again_gives_the_same_answer(api, alice, draft, indexes):
    offer = alice.offer(indexes)
    first = release(api, draft, offer)
    again = release(api, draft, offer)
    assert (again.status_code, again.json()) == (200, first.json())
    alice.took_force(indexes)
    refused(release(api, draft, alice.offer(indexes)), 409, "ConflictError")


def test_a_released_version_published_again_with_the_same_disk_is_accepted(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    again = api.publish(alice, "debian", "1.0", disk)
    assert (again.status_code, again.json()["role_version"]) == (200, 2)


def test_the_second_version_needs_only_what_changed(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    changed = alice.build("debian", [block("a"), None, block("c")])
    draft = api.draft("alice", "debian", "2.0")
    lacking = api.missing(draft, [record.digest for record in changed.records])
    assert lacking == [changed.blocks[1].digest, changed.nodes[0].digest]


def test_a_version_label_never_gets_another_disk(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    other = alice.build("debian", [block("x")])
    draft = api.draft("alice", "debian", "1.0")
    assert api.call("GET", f"drafts/{draft}").json()["released"] == disk.digest.hex()
    assert api.upload(draft, other.records).status_code == 200
    refused(api.call("PUT", f"drafts/{draft}/manifest", content=other.raw), 409, "ConflictError")


def test_without_a_manifest_nothing_is_released(api, alice, disk, indexes):
    draft = api.draft("alice", "debian", "1.0")
    refused(release(api, draft, alice.offer(indexes)), 409, "ConflictError")


@pytest.mark.parametrize("absent", ["block", "node"])
def test_a_disk_that_is_not_all_here_is_refused_with_the_number_missing(world, api, alice, disk, indexes, http, absent):
    draft = api.draft("alice", "debian", "1.0")
    kept = disk.nodes if absent == "block" else disk.blocks
    assert api.upload(draft, kept).status_code == 200
    assert api.call("PUT", f"drafts/{draft}/manifest", content=disk.raw).status_code == 204
    problem = refused(release(api, draft, alice.offer(indexes)), 422, "MissingBlocksError")
    assert problem["missing"] == (2 if absent == "block" else 1)
    nothing_visible(world, http)


def test_a_node_damaged_on_the_server_is_asked_for_again(world, api, alice, disk, draft, indexes):
    node = disk.nodes[0]
    path = world.tree / "blocks/sha256" / node.digest.hex()[:2] / f"{node.digest.hex()}.zst"
    path.write_bytes(node.frame[:-1] + bytes([node.frame[-1] ^ 1]))
    refused(release(api, draft, alice.offer(indexes)), 422, "MissingBlocksError")
    assert api.missing(draft, [record.digest for record in disk.records]) == [node.digest]
    assert api.upload(draft, [node]).status_code == 200
    assert path.read_bytes() == node.frame
    assert release(api, draft, alice.offer(indexes)).status_code == 200


def test_a_table_that_names_a_node_as_a_block_is_refused(api, alice):
    """Right digest, wrong size: the rows say what each digest holds."""
    node = block("not a table", NODE_SIZE)
    disk = alice.build("debian", [block("a"), block("b")])
    forged = alice.build("debian", [block("a"), node + bytes(BLOCK - NODE_SIZE)])
    draft = api.draft("alice", "debian", "1.0")
    assert api.upload(draft, [*disk.records, *forged.nodes]).status_code == 200
    assert api.call("PUT", f"drafts/{draft}/manifest", content=forged.raw).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1.0", forged.digest)}
    assert refused(release(api, draft, alice.offer(indexes)), 422, "MissingBlocksError")["missing"] == 1


def test_a_tampered_table_is_refused(api, alice):
    """A node that names something past the end of the disk: well stored, never made by a publisher's tool."""
    longer = alice.build("debian", [block("a"), block("b"), block("c")])
    shorter = alice.build("debian", [block("a"), block("b")])
    manifest = alice.build("debian", [block("a"), block("b")]).manifest
    forged = replace(manifest, root=longer.manifest.root)
    draft = api.draft("alice", "debian", "1.0")
    assert api.upload(draft, [*longer.records, *shorter.records]).status_code == 200
    assert api.call("PUT", f"drafts/{draft}/manifest", content=forged.serialise()).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1.0", digest_of(forged.serialise()))}
    refused(release(api, draft, alice.offer(indexes)), 422, "TableRefusedError")


def test_a_manifest_that_miscounts_its_data_is_refused(api, alice, disk):
    forged = replace(disk.manifest, data_blocks=3).serialise()
    draft = api.draft("alice", "debian", "1.0")
    assert api.upload(draft, disk.records).status_code == 200
    assert api.call("PUT", f"drafts/{draft}/manifest", content=forged).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1.0", digest_of(forged))}
    refused(release(api, draft, alice.offer(indexes)), 422, "DocumentRefusedError")


@pytest.mark.parametrize("version", [0, 2, 7])
def test_a_role_of_another_version_is_a_conflict_that_names_the_current_one(
    world, api, alice, draft, indexes, http, version
):
    role = alice.role(indexes)
    role.version = version or 1
    raw = signed(role, alice.key)
    if version == 0:
        raw = raw.replace(b'"version":1', b'"version":0')
        refused(release(api, draft, offer_of(raw, indexes)), 422, "DocumentRefusedError")
    else:
        problem = refused(release(api, draft, offer_of(raw, indexes)), 409, "RoleConflictError")
        assert problem["current_version"] == 0
    nothing_visible(world, http)


def test_a_role_signed_by_another_key_is_refused(world, api, alice, draft, indexes, http):
    mallory = Publisher("alice", clock=world.clock)
    refused(release(api, draft, mallory.offer(indexes)), 403, "SignatureRefusedError")
    nothing_visible(world, http)


def test_a_role_altered_after_signing_is_refused(api, alice, draft, indexes):
    raw = signed(alice.role(indexes), alice.key)
    altered = raw.replace(b"2027-", b"2026-", 1) if b"2027-" in raw else raw.replace(b'"length":', b'"length": 1', 1)
    assert altered != raw
    assert release(api, draft, offer_of(altered, indexes)).status_code in (403, 422)


def expiring(alice, days):
    return {"expires": datetime.fromtimestamp(int(alice.clock.now_s) + days * DAY_S, UTC)}


@pytest.mark.parametrize(
    "change",
    [
        lambda alice: expiring(alice, -1),
        lambda alice: expiring(alice, 400),
        lambda _: {
            "delegations": Delegations({}, {"eve": DelegatedRole("eve", [], 1, terminating=True, paths=["a/*"])})
        },
    ],
    ids=["expired", "longer than a year", "delegating"],
)
def test_a_role_that_breaks_the_rules_is_refused(api, alice, draft, indexes, change):
    role = alice.role(indexes, **change(alice))
    answer = release(api, draft, alice.offer(indexes, role))
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(
    "path", ["bob/debian.json", "alice/../bob.json", "alice/?.json", "alice/*.json", "alice/a/b.json", "alice/x", "x"]
)
def test_a_target_that_is_not_the_publishers_own_or_climbs_or_globs_is_refused(world, api, alice, draft, indexes, path):
    role = alice.role(indexes)
    role.targets[path] = TargetFile(10, {"sha256": "ab" * 32}, path)
    refused(release(api, draft, alice.offer(indexes, role)), 403, "SignatureRefusedError")


def test_a_target_with_other_hashes_or_lengths_is_refused(api, alice, draft, indexes):
    for hashes, length in (
        ({"sha512": "ab" * 64}, 10),
        ({"sha256": "AB" * 32}, 10),
        ({"sha256": "ab" * 32}, 0),
        ({"sha256": "ab" * 32}, image_index.MAX_INDEX_BYTES + 1),
    ):
        role = alice.role(indexes)
        role.targets["alice/other.json"] = TargetFile(length, hashes, "alice/other.json")
        refused(release(api, draft, alice.offer(indexes, role)), 403, "TrustError")


def test_an_index_that_was_not_sent_is_refused(api, alice, draft, indexes):
    offer = alice.offer(indexes)
    offer["indexes"] = {}
    refused(release(api, draft, offer), 403, "TrustError")


def test_an_index_that_is_not_the_named_one_is_refused(api, alice, draft, indexes):
    offer = alice.offer(indexes)
    other = indexes["debian"].with_channel("testing", "1.0").serialise()
    offer["indexes"] = {"debian": base64.b64encode(other).decode()}
    refused(release(api, draft, offer), 422, "DigestMismatchError")


@pytest.mark.parametrize("raw", [b'{"format": "oscirc-image-index-1"}', b"not json", b"{}"])
def test_an_index_that_is_not_canonical_is_refused(api, alice, draft, raw):
    role = alice.role({})
    path = "alice/debian.json"
    role.targets[path] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, path)
    offer = offer_of(signed(role, alice.key), {})
    offer["indexes"] = {"debian": base64.b64encode(raw).decode()}
    refused(release(api, draft, offer), 422, "DocumentRefusedError")


def test_another_publishers_index_is_refused(api, alice, draft, disk):
    raw = ImageIndex("bob", "debian").with_version(ImageVersion("1.0", disk.digest, "2027-01-15T08:00:00Z")).serialise()
    role = alice.role({})
    role.targets["alice/debian.json"] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, "alice/debian.json")
    offer = offer_of(signed(role, alice.key), {})
    offer["indexes"] = {"debian": base64.b64encode(raw).decode()}
    refused(release(api, draft, offer), 422, "DocumentRefusedError")


def test_an_index_without_the_drafts_version_is_refused(api, alice, draft, disk):
    indexes = {"debian": alice.index_with("debian", "1.1", disk.digest)}
    refused(release(api, draft, alice.offer(indexes)), 403, "TrustError")


def test_an_index_that_names_another_manifest_for_the_draft_is_refused(api, alice, draft, disk):
    indexes = {"debian": alice.index_with("debian", "1.0", digest_of(b"another"))}
    refused(release(api, draft, alice.offer(indexes)), 403, "TrustError")


def test_a_role_without_the_drafts_image_is_refused(api, alice, draft):
    refused(release(api, draft, alice.offer({})), 403, "TrustError")


def test_an_index_that_smuggles_in_an_unreleased_disk_is_refused(api, alice, draft, indexes):
    smuggled = indexes["debian"].with_version(ImageVersion("0.9", digest_of(b"never"), "2027-01-15T08:00:00Z"))
    refused(release(api, draft, alice.offer({"debian": smuggled})), 403, "TrustError")


def test_an_index_that_names_another_images_disk_is_refused(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    other = alice.build("ubuntu", [block("u")])
    draft = api.stage(alice, "ubuntu", "1.0", other)
    mixed = alice.index_with("ubuntu", "1.0", other.digest).with_version(
        ImageVersion("0.9", disk.digest, "2027-01-15T08:00:00Z")
    )
    offer = alice.offer({**alice.indexes, "ubuntu": mixed})
    refused(release(api, draft, offer), 422, "DocumentRefusedError")


def test_an_index_may_not_forget_a_released_version(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    changed = alice.build("debian", [block("new")])
    draft = api.stage(alice, "debian", "2.0", changed)
    forgetful = ImageIndex("alice", "debian").with_version(ImageVersion("2.0", changed.digest, "2027-01-15T08:00:00Z"))
    refused(release(api, draft, alice.offer({"debian": forgetful})), 422, "DocumentRefusedError")


def test_an_older_index_of_ones_own_may_not_come_back(api, alice, disk):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    old = dict(alice.indexes)
    assert api.publish(alice, "debian", "2.0", alice.build("debian", [block("new")])).status_code == 200
    answer = api.call("PUT", "publishers/alice/role", json=alice.offer(old))
    refused(answer, 422, "DocumentRefusedError")


def test_a_delisted_image_disappears_and_cannot_come_back_changed(api, alice, disk, http):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    kept = dict(alice.indexes)
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({})).status_code == 200
    alice.took_force({})
    assert http.get("/api/v1/images").json()["images"] == []
    assert http.get("/api/v1/images/alice/debian").status_code == 404
    empty = {"debian": ImageIndex("alice", "debian")}
    refused(api.call("PUT", "publishers/alice/role", json=alice.offer(empty)), 422, "DocumentRefusedError")
    assert api.call("PUT", "publishers/alice/role", json=alice.offer(kept)).status_code == 200
    assert http.get("/api/v1/images/alice/debian").status_code == 200


def test_a_deleted_version_leaves_a_tombstone_and_its_label_is_never_used_again(api, alice, disk, http):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    changed = alice.build("debian", [block("new")])
    assert api.publish(alice, "debian", "2.0", changed).status_code == 200
    index = alice.indexes["debian"].without_versions(["1.0"], date="2027-01-16T08:00:00Z", why="old")
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    alice.took_force({"debian": index})
    shown = http.get("/api/v1/images/alice/debian").json()
    assert [version["version"] for version in shown["versions"]] == ["2.0"]
    assert [(gone["version"], gone["why"]) for gone in shown["deleted"]] == [("1.0", "old")]
    names = {"publisher": "alice", "image": "debian", "version": "1.0", "block_size": 65536}
    refused(api.call("POST", "drafts", json=names), 409, "ConflictError")
    forgetful = {"debian": replace(index, deleted=())}
    refused(api.call("PUT", "publishers/alice/role", json=alice.offer(forgetful)), 422, "DocumentRefusedError")
    again = index.with_version(ImageVersion("1.1", disk.digest, "2027-01-17T08:00:00Z"))
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": again})).status_code == 200


def test_a_deleted_image_is_closed_for_ever(api, alice, disk, http):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    closed = alice.indexes["debian"].without_all(date="2027-01-16T08:00:00Z")
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": closed})).status_code == 200
    alice.took_force({"debian": closed})
    assert http.get("/api/v1/images").json()["images"] == []
    names = {"publisher": "alice", "image": "debian", "version": "2.0", "block_size": 65536}
    refused(api.call("POST", "drafts", json=names), 409, "ConflictError")
    for opened in (replace(closed, closed=False), replace(closed, deleted=())):
        refused(
            api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": opened})), 422, "DocumentRefusedError"
        )


def test_an_image_that_comes_back_has_all_its_disks_or_is_refused(api, alice, disk, installation):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    kept = dict(alice.indexes)
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({})).status_code == 200
    alice.took_force({})
    with installation.database.write() as session:
        session.execute(delete(ManifestRow))
    refused(api.call("PUT", "publishers/alice/role", json=alice.offer(kept)), 403, "TrustError")


def test_channels_move_and_versions_are_yanked_without_a_draft(api, alice, disk, http):
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    yanked = alice.indexes["debian"].with_yank("1.0", Yank("it eats disks", "2027-01-16T08:00:00Z", security=True))
    offer = alice.offer({"debian": yanked.with_channel("old", "1.0")})
    first = api.call("PUT", "publishers/alice/role", json=offer)
    assert first.status_code == 200, first.text
    assert api.call("PUT", "publishers/alice/role", json=offer).json() == first.json()  # the answer was lost: again
    shown = http.get("/api/v1/images/alice/debian").json()
    assert shown["channels"] == {"stable": "1.0", "old": "1.0"}
    assert shown["versions"][0]["yanked"]["security"] is True


def test_two_releases_from_one_state_are_a_conflict_for_the_second(api, alice, disk):
    other = fork(alice)
    other_disk = other.build("ubuntu", [block("u")])
    draft = api.stage(other, "ubuntu", "1.0", other_disk)
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    indexes = {"ubuntu": other.index_with("ubuntu", "1.0", other_disk.digest)}
    problem = refused(release(api, draft, other.offer(indexes)), 409, "RoleConflictError")
    assert problem["current_version"] == 1
    merged = {**alice.indexes, **indexes}
    assert release(api, draft, alice.offer(merged)).status_code == 200


def test_who_lost_a_race_is_not_made_to_wait_for_another_walk_of_the_table(api, alice, disk, monkeypatch):
    walked = []
    real = releases.check_complete
    monkeypatch.setattr(releases, "check_complete", lambda *given: walked.append(given) or real(*given))
    draft = api.stage(alice, "debian", "1.0", disk)
    indexes = {"debian": alice.index_with("debian", "1.0", disk.digest)}
    ahead = alice.role(indexes)
    ahead.version += 1
    refused(release(api, draft, alice.offer(indexes, ahead)), 409, "RoleConflictError")
    assert release(api, draft, alice.offer(indexes)).status_code == 200
    assert len(walked) == 1


def test_a_publisher_who_is_not_delegated_to_can_release_nothing(world, http, admin, api, alice, draft, indexes):
    world.administration.remove_publisher("alice", world.keys, "a passphrase for tests")
    refused(release(api, draft, alice.offer(indexes)), 404, "NotFoundError")
    refused(api.call("PUT", "publishers/alice/role", json=alice.offer(indexes)), 404, "NotFoundError")


@pytest.mark.parametrize(
    "body", [{}, {"role": "?"}, {"role": 1}, {"role": "e30=", "indexes": []}, {"role": "e30=", "indexes": {"a": 1}}]
)
def test_a_release_body_that_is_not_one_is_refused(api, draft, body):
    assert release(api, draft, body).status_code == 422


@pytest.mark.parametrize("role", [b"{}", b"[]", b"\xff", b'{"signatures":[],"signed":{"_type":"root"}}', b"[" * 9999])
def test_a_role_that_is_no_metadata_is_refused(api, draft, role):
    offer = {"role": base64.b64encode(role).decode(), "indexes": {}}
    refused(release(api, draft, offer), 422, "DocumentRefusedError")


def test_a_token_of_another_publisher_releases_nothing(world, http, api, alice, draft, indexes):
    world.add_publisher("bob")
    bob = Api(http, world.token("publish:bob"))
    for answer in (
        release(bob, draft, alice.offer(indexes)),
        bob.call("GET", f"drafts/{draft}"),
        bob.call("PUT", "publishers/alice/role", json=alice.offer(indexes)),
        bob.call("DELETE", f"drafts/{draft}"),
    ):
        refused(answer, 403, "ScopeError")
    for token in (None, "oscirc_wrong"):
        refused(release(bob.with_token(token), draft, alice.offer(indexes)), 401, "UnauthenticatedError")
