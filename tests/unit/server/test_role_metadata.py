"""Signed roles by name: what the tree has by path, with versions as validators."""

from .server_world import block
from .test_app import is_problem


def test_roles_are_what_the_tree_has(world, http, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    listed = http.get("/api/v1/roles").json()["roles"]
    assert [each["role"] for each in listed] == ["alice", "root", "snapshot", "targets", "timestamp"]
    for each in listed:
        raw = (world.tree / each["path"]).read_bytes()
        answer = http.get(f"/api/v1/roles/{each['role']}")
        assert (answer.content, answer.headers["etag"]) == (raw, f'"{each["role"]}.{each["role_version"]}"')
        one = http.get(f"/api/v1/roles/{each['role']}/versions/{each['role_version']}")
        assert (one.content, "immutable" in one.headers["cache-control"]) == (raw, True)
        assert (
            http.get(f"/api/v1/roles/{each['role']}", headers={"If-None-Match": answer.headers["etag"]}).status_code
            == 304
        )


def test_pages_of_roles_follow_each_other(http):
    first = http.get("/api/v1/roles?limit=3")
    assert first.headers["link"] == '<roles?limit=3&after=targets>; rel="next"'
    assert [each["role"] for each in http.get("/api/v1/roles?after=targets").json()["roles"]] == ["timestamp"]


def test_what_is_no_role_is_not_found(http):
    for path in ("roles/nobody", "roles/root/versions/99", "roles/nobody/versions/1"):
        is_problem(http.get(f"/api/v1/{path}"), 404)
    is_problem(http.get("/api/v1/roles/root/versions/0"), 422)


def test_a_role_can_be_put_only_where_administrators_sign(http):
    answer = http.put("/api/v1/roles/snapshot")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"
    assert http.put("/api/v1/roles/root").status_code == 401


def test_repository_facts_are_those_in_force(http):
    answer = http.get("/api/v1/documents/repository.json")
    assert (answer.status_code, answer.json()["name"]) == (200, "Test repository")
