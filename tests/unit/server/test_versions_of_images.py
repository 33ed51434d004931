"""Versions as resources: states, order, channels, what a draft shows to whom; and what they are made of."""

import pytest

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.image_index import Yank
from oscirc_blockstore.table import NODE_SIZE, entry
from oscirc_server.models import VersionRow
from oscirc_server.services import drafts, image_rows

from .server_world import BLOCK, Api, block
from .test_app import is_problem

DATE = "2027-01-16T08:00:00Z"


@pytest.fixture
def three(api, alice):
    """debian 1.0 (yanked), 2.0 and 3.0; the disks by label."""
    disks = {}
    for number, label in enumerate(("1.0", "2.0", "3.0")):
        contents = [block("same"), block(label), None, *[block("more")] * number]
        disks[label] = alice.build("debian", contents, family="debian", version=label, firmware="uefi")
        assert api.publish(alice, "debian", label, disks[label]).status_code == 200
    change(api, alice, alice.indexes["debian"].with_yank("1.0", Yank("broken", DATE)).with_channel("old", "2.0"))
    return disks


def change(api, alice, index):
    indexes = {**alice.indexes, index.image: index}
    assert api.call("PUT", "publishers/alice/role", json=alice.offer(indexes)).status_code == 200
    alice.took_force(indexes)


def delete(api, alice, label):
    change(api, alice, alice.indexes["debian"].without_versions([label], date=DATE, why="too old"))


def get(http, path, status=200):
    answer = http.get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_versions_are_listed_newest_first_with_state_channels_and_sizes(http, three):
    found = get(http, "images/alice/debian/versions")["versions"]
    assert [(each["version"], each["state"], each["channels"]) for each in found] == [
        ("3.0", "released", ["stable"]),
        ("2.0", "released", ["old"]),
        ("1.0", "yanked", []),
    ]
    assert [each["shown"] for each in found] == [True, False, False]
    assert found[2]["changed"] == {"date": DATE, "why": "broken", "security": False}
    newest = found[0]
    assert (newest["disk_size"], newest["data_bytes"]) == (5 * BLOCK, 4 * BLOCK)
    assert newest["download_bytes"] == sum(len(record.frame) for record in three["3.0"].records)
    assert newest["system"]["version"] == "3.0"
    assert get(http, "images/alice/debian/versions/3.0") == newest
    assert get(http, "images/alice/debian/channels/stable") == newest


def test_pages_of_versions_follow_each_other_and_a_state_selects(http, three):
    first = http.get("/api/v1/images/alice/debian/versions", params={"limit": 2})
    assert first.headers["link"] == '<versions?limit=2&after=2.0>; rel="next"'
    assert first.json()["next"] == "2.0"
    rest = get(http, "images/alice/debian/versions?limit=2&after=2.0")
    assert ([each["version"] for each in rest["versions"]], rest["next"]) == (["1.0"], None)
    assert [each["version"] for each in get(http, "images/alice/debian/versions?state=yanked")["versions"]] == ["1.0"]
    is_problem(http.get("/api/v1/images/alice/debian/versions?after=9"), 400)
    is_problem(http.get("/api/v1/images/alice/debian/versions?state=lost"), 422)


def test_a_restored_version_is_released_again(http, api, alice, three):
    change(api, alice, alice.indexes["debian"].with_yank("1.0", None))
    found = get(http, "images/alice/debian/versions/1.0")
    assert (found["state"], found["changed"]) == ("released", None)


def test_a_deleted_version_stays_known_and_its_disk_is_not_shown(http, api, alice, three):
    delete(api, alice, "1.0")
    found = get(http, "images/alice/debian/versions/1.0")
    assert (found["state"], found["changed"]["why"]) == ("deleted", "too old")
    assert found["disk_size"] == 3 * BLOCK
    assert [each["version"] for each in get(http, "images/alice/debian/versions")["versions"]] == ["3.0", "2.0", "1.0"]
    for part in ("table", "table/entries", "diff/2.0"):
        is_problem(http.get(f"/api/v1/images/alice/debian/versions/1.0/{part}"), 404)
    disk = alice.build("debian", [block("4")])
    assert api.publish(alice, "debian", "4.0", disk).status_code == 200
    assert get(http, "images/alice/debian/versions?limit=1")["versions"][0]["version"] == "4.0"


def test_what_is_not_listed_any_more_is_not_found(http, api, alice, three):
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({})).status_code == 200
    for path in ("versions", "versions/3.0", "channels", "channels/stable"):
        is_problem(http.get(f"/api/v1/images/alice/debian/{path}"), 404)


def test_a_version_under_way_shows_its_state_to_its_publisher_alone(http, installation, world, api, alice, three):
    def state(label="4.0"):
        return api.call("GET", f"images/alice/debian/versions/{label}").json()["state"]

    draft = api.draft("alice", "debian", "4.0")
    assert state() == "draft"
    disk = alice.build("debian", [block("4")])
    api.missing(draft, [record.digest for record in disk.records])
    assert api.upload(draft, disk.records).status_code == 200
    assert state() == "uploading"
    with drafts.verifying(installation, draft):
        assert state() == "verifying"
        assert api.call("GET", f"drafts/{draft}").json()["state"] == "verifying"
        world.clock.advance(drafts.VERIFYING_S + 1)
        assert state() == "uploading"
    for token in (None, world.token("publish:bob")):
        is_problem(Api(http, token).call("GET", "images/alice/debian/versions/4.0"), 404)
    is_problem(Api(http, "oscirc_nonsense").call("GET", "images/alice/debian/versions/3.0"), 401)


def test_drafts_are_listed_for_whom_they_belong_to(http, world, api, admin, alice):
    ids = sorted(api.draft("alice", "debian", f"{number}.0") for number in range(3))
    assert [each["id"] for each in api.call("GET", "drafts").json()["drafts"]] == ids
    first = admin.call("GET", "drafts?publisher=alice&limit=2").json()
    assert [each["id"] for each in first["drafts"]] == ids[:2]
    assert [each["id"] for each in admin.call("GET", f"drafts?after={first['next']}").json()["drafts"]] == ids[2:]
    assert Api(http, world.token("publish:bob")).call("GET", "drafts").json()["drafts"] == []
    assert api.call("GET", "drafts?image=other").json()["drafts"] == []
    is_problem(http.get("/api/v1/drafts"), 401)


def test_channels_are_listed_by_name(http, three):
    found = get(http, "images/alice/debian/channels")["channels"]
    assert [(each["channel"], each["version"]) for each in found] == [("old", "2.0"), ("stable", "3.0")]
    assert found[1]["manifest"] == three["3.0"].digest.hex()
    assert get(http, "images/alice/debian/channels?limit=1")["next"] == "old"
    is_problem(http.get("/api/v1/images/alice/debian/channels/beta"), 404)


def test_a_manifest_and_its_nodes_are_named_by_digests_and_kept_for_ever(http, three):
    disk = three["2.0"]
    answer = http.get(f"/api/v1/manifests/{disk.digest.hex()}")
    assert (answer.content, answer.headers["etag"]) == (disk.raw, f'"{disk.digest.hex()}"')
    assert "immutable" in answer.headers["cache-control"]
    table = get(http, "images/alice/debian/versions/2.0/table")
    assert (table["block_count"], table["depth"]) == (4, 1)
    node = http.get(f"/api/v1/nodes/{table['root']}")
    assert (len(node.content), node.headers["content-type"]) == (NODE_SIZE, "application/octet-stream")
    assert entry(node.content, 2) == ZERO_DIGEST
    entries = get(http, "images/alice/debian/versions/2.0/table/entries?limit=2")
    assert [each["position"] for each in entries["entries"]] == [0, 1]
    assert entries["entries"][0]["digest"] == entry(node.content, 0).hex()
    lengths = {record.digest: len(record.frame) for record in disk.blocks}
    assert entries["entries"][1]["length"] == lengths[Digest(bytes.fromhex(entries["entries"][1]["digest"]))]
    rest = get(http, f"images/alice/debian/versions/2.0/table/entries?after={entries['next']}")
    assert ([each["position"] for each in rest["entries"]], rest["next"]) == ([3], None)


@pytest.mark.parametrize("path", ["manifests", "nodes"])
@pytest.mark.parametrize(("digest", "status"), [("0" * 64, 404), ("x" * 64, 422), ("ab", 422), ("A" * 64, 422)])
def test_what_no_digest_names_is_refused(http, path, digest, status):
    is_problem(http.get(f"/api/v1/{path}/{digest}"), status)


def test_a_block_is_no_node(http, three):
    is_problem(http.get(f"/api/v1/nodes/{three['1.0'].blocks[0].digest.hex()}"), 404)


@pytest.mark.parametrize("place", ["x", "4", "-1", "99999999999999999999"])
def test_a_place_that_the_table_has_not_is_refused(http, three, place):
    is_problem(http.get(f"/api/v1/images/alice/debian/versions/2.0/table/entries?after={place}"), 400)


def test_rows_that_an_older_version_did_not_write_are_made(installation, http, three):
    before = get(http, "images/alice/debian/versions")
    with installation.database.write() as session:
        for row in session.query(VersionRow).all():
            session.delete(row)
    with installation.database.write() as session:
        assert image_rows.make_missing(session) == 1
    with installation.database.write() as session:
        assert image_rows.make_missing(session) == 0
    assert get(http, "images/alice/debian/versions") == before


def test_a_difference_counts_blocks_and_bytes(http, three):
    found = get(http, "images/alice/debian/versions/2.0/diff/3.0")
    assert (found["old"], found["new"]) == (three["2.0"].digest.hex(), three["3.0"].digest.hex())
    assert found["positions"] == {"unchanged": 2, "changed": 1, "new": 1, "removed": 0}
    lengths = {record.digest: len(record.frame) for record in three["3.0"].records}
    old = {record.digest for record in three["2.0"].records}
    assert found["bytes"] == sum(length for digest, length in lengths.items() if digest not in old)
    assert (found["blocks"], found["nodes"], found["bytes_with_pack"]) == (1, 1, None)
    back = get(http, "images/alice/debian/versions/3.0/diff/2.0")
    assert back["positions"] == {"unchanged": 2, "changed": 1, "new": 0, "removed": 1}
    same = get(http, "images/alice/debian/versions/3.0/diff/3.0")
    assert (same["bytes"], same["blocks"]) == (0, 0)
    is_problem(http.get("/api/v1/images/alice/debian/versions/3.0/diff/9.0"), 404)
