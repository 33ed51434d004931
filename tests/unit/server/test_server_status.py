"""Status: what expires, what is dangerous, what needs doing."""

import pytest

from oscirc_server.status import status

from .server_world import DAY_S, PASSPHRASE, Publisher, block, make_world


def test_a_healthy_server_has_no_alarms(world, installation, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a"), None])).status_code == 200
    facts = status(installation)
    assert facts.alarms == ()
    assert (facts.publishers, facts.images, facts.blocks, facts.open_drafts) == (1, 1, 2, 0)
    assert facts.stored_bytes > 0
    assert [(role.role, role.version, role.alarm) for role in facts.roles] == [
        ("alice", 1, False),
        ("root", 1, False),
        ("snapshot", 3, False),
        ("targets", 2, False),
        ("timestamp", 3, False),
    ]
    assert facts.remote_url == world.made.remote_url
    assert facts.can_impersonate_publishers is False


def test_keys_that_can_sign_for_publishers_are_named_until_they_are_moved(tmp_path):
    world = make_world(tmp_path, offline=False)
    facts = world.administration.status()
    assert facts.can_impersonate_publishers is True
    assert facts.offline_keys_here == ("root", "targets")
    assert "can impersonate publishers" in facts.alarms[0]
    for name in ("root", "targets"):
        (world.data / "keys" / f"{name}.pem").rename(tmp_path / f"{name}.pem")
    assert world.administration.status().alarms == ()


@pytest.mark.parametrize(
    ("days", "alarmed"),
    [
        (1, set()),
        (6, {"snapshot", "timestamp"}),
        (271, {"alice", "snapshot", "timestamp"}),
        (336, {"alice", "targets", "snapshot", "timestamp"}),
        (5 * 365 - 29, {"alice", "root", "targets", "snapshot", "timestamp"}),
    ],
)
def test_alarms_come_a_month_before_the_end_and_two_days_for_the_online_roles(
    world, installation, api, alice, days, alarmed
):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    world.clock.advance(days * DAY_S)
    facts = status(installation)
    assert {role.role for role in facts.roles if role.alarm} == alarmed
    assert len(facts.alarms) == len(alarmed)


def test_a_publisher_whose_key_was_changed_is_named_until_it_signs(world, installation, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    new = Publisher("alice", clock=world.clock)
    accepted = world.administration.add_publisher("alice", [new.public_pem], world.keys, PASSPHRASE)
    assert accepted.unsigned_publishers == ("alice",)
    assert "alice's role is not signed" in status(installation).alarms[0]


def test_a_removed_publishers_expiry_is_nobodys_alarm(world, installation, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    world.administration.remove_publisher("alice", world.keys, PASSPHRASE)
    assert "alice" not in [role.role for role in status(installation).roles]


def test_a_store_that_cannot_be_written_is_an_alarm(world, installation):
    (world.data / "tmp").rmdir()
    assert "the store cannot be used" in status(installation).alarms[0]
