"""A publisher that several keys stand for: fewer signatures than the threshold release nothing."""

import itertools

from oscirc_blockstore import keys

from .server_world import PASSPHRASE, Publisher, block, offer_of, signed


def team_of(world, threshold, count=3):
    private = [keys.generate() for _ in range(count)]
    public = [keys.public_pem(key.public_key()) for key in private]
    world.administration.add_publisher("team", public, world.keys, PASSPHRASE, threshold=threshold)
    return Publisher("team", clock=world.clock, key=private[0]), private


def test_one_stolen_key_of_three_releases_nothing_and_any_two_do(world, admin):
    team, private = team_of(world, 2)
    disk = team.build("debian", [block("a")])
    draft = admin.stage(team, "debian", "1", disk)
    indexes = {"debian": team.index_with("debian", "1", disk.digest)}
    role = team.role(indexes)
    stranger = keys.generate()
    for thieves in (private[:1], private[2:], [private[0], private[0]], [private[1], stranger], [stranger, stranger]):
        answer = admin.call("POST", f"drafts/{draft}/release", json=offer_of(signed(role, *thieves), indexes))
        assert answer.status_code == 403, answer.text
        answer = admin.call("PUT", "publishers/team/role", json=offer_of(signed(role, *thieves), indexes))
        assert answer.status_code in (403, 422), answer.text
    answer = admin.call("POST", f"drafts/{draft}/release", json=offer_of(signed(role, *private[:2]), indexes))
    assert (answer.status_code, answer.json()["role_version"]) == (200, 1)
    for number, pair in enumerate(itertools.permutations(private, 2), start=2):
        team.role_version = number - 1
        offered = offer_of(signed(team.role(indexes), *pair), {})
        assert admin.call("PUT", "publishers/team/role", json=offered).json()["role_version"] == number


def test_the_api_says_how_many_of_which_keys_sign(world, http):
    _, private = team_of(world, 2)
    facts = http.get("/api/v1/publishers/team").json()
    assert facts["threshold"] == 2
    assert sorted(facts["fingerprints"]) == sorted(keys.fingerprint(key.public_key()) for key in private)


def test_a_planned_rotation_leaves_nobody_without_images(world, admin, http):
    """Old and new key overlap: the role that the old one signed stays listed, and the new one signs the next."""
    old = Publisher("carol", clock=world.clock)
    world.administration.add_publisher("carol", [old.public_pem], world.keys, PASSPHRASE)
    assert admin.publish(old, "debian", "1", old.build("debian", [block("a")])).status_code == 200
    new = Publisher("carol", clock=world.clock, role_version=1, indexes=dict(old.indexes))
    both = [old.public_pem, new.public_pem]
    accepted = world.administration.add_publisher("carol", both, world.keys, PASSPHRASE)
    assert accepted.unsigned_publishers == ()
    assert http.get("/api/v1/images/carol/debian").status_code == 200
    assert admin.publish(new, "debian", "2", new.build("debian", [block("b")])).status_code == 200
    accepted = world.administration.add_publisher("carol", [new.public_pem], world.keys, PASSPHRASE)
    assert accepted.unsigned_publishers == ()
    assert http.get("/api/v1/images/carol/debian").status_code == 200
