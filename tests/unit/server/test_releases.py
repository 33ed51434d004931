"""Releases: what becomes visible, what is refused, and that nothing half done is seen."""

from server_world import block


def test_a_released_version_is_in_the_tree_and_the_catalog(world, api, alice, http):
    disk = alice.build("debian", [block("a"), None, block("b")], family="debian", version="12")
    answer = api.publish(alice, "debian", "1.0", disk)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"role_version": 1, "snapshot_version": 3}
    assert (world.tree / "manifests" / f"{disk.digest.hex()}.json").read_bytes() == disk.raw
    listed = http.get("/api/v1/images").json()["images"]
    assert [(image["publisher"], image["image"], image["channels"]) for image in listed] == [
        ("alice", "debian", {"stable": "1.0"})
    ]
