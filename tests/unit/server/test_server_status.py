"""Status: what expires, what is dangerous, what needs doing."""

import pytest

from oscirc_blockstore import keys
from oscirc_server.alarms import RoleHealth, Severity, health_of, roles_in_force, worst
from oscirc_server.models import SignedRole
from oscirc_server.status import status

from .server_world import DAY_S, PASSPHRASE, Publisher, block, make_world


def test_a_healthy_server_has_no_alarms(world, installation, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a"), None])).status_code == 200
    facts = status(installation)
    assert facts.alarms == ()
    assert (facts.publishers, facts.images, facts.blocks, facts.open_drafts) == (1, 1, 2, 0)
    assert facts.stored_bytes > 0
    assert [(role.role, role.version, role.severity == "ok") for role in facts.roles] == [
        ("alice", 1, True),
        ("root", 1, True),
        ("snapshot", 3, True),
        ("targets", 2, True),
        ("timestamp", 3, True),
    ]
    assert facts.remote_url == world.made.remote_url
    assert facts.can_impersonate_publishers is False
    assert facts.severity is Severity.OK


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
        (1.3, {"snapshot", "timestamp"}),
        (271, {"alice", "snapshot", "timestamp"}),
        (306, {"alice", "targets", "snapshot", "timestamp"}),
        (5 * 365 - 179, {"alice", "root", "targets", "snapshot", "timestamp"}),
    ],
)
def test_alarms_come_while_there_is_time_to_do_something(world, installation, api, alice, days, alarmed):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    world.clock.advance(days * DAY_S)
    facts = status(installation)
    assert {role.role for role in facts.roles if role.alarm} == alarmed
    assert (facts.severity is Severity.OK) == (not alarmed)
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
    world.place.lose_store()
    assert "the store cannot be used" in status(installation).alarms[0]


@pytest.mark.parametrize(
    ("role", "left_s", "severity"),
    [
        ("root", 181 * DAY_S, "ok"),
        ("root", 180 * DAY_S, "warning"),
        ("root", 7 * DAY_S, "critical"),
        ("targets", 60 * DAY_S, "warning"),
        ("alice", 31 * DAY_S, "ok"),
        ("alice", 30 * DAY_S, "warning"),
        ("alice", 0, "expired"),
    ],
)
def test_severity_follows_from_the_time_that_is_left(role, left_s, severity):
    now_s = 1_800_000_000
    health = health_of(SignedRole(role=role, version=3, raw=b"", expires_s=now_s + left_s, signed_s=now_s), now_s)
    assert (health.severity, health.left_s, health.overdue_s) == (severity, left_s, 0)
    assert bool(health.alarm) == (severity != "ok")


@pytest.mark.parametrize(
    ("age_s", "severity", "overdue_s"),
    [(30 * 3600, "ok", 6 * 3600), (31 * 3600, "warning", 7 * 3600), (5 * DAY_S, "critical", 4 * DAY_S)],
)
def test_an_online_role_alarms_when_nobody_renews_it(age_s, severity, overdue_s):
    row = SignedRole(role="timestamp", version=3, raw=b"", expires_s=7 * DAY_S, signed_s=0)
    health = health_of(row, age_s)
    assert (health.severity, health.overdue_s) == (severity, overdue_s)


def test_the_worst_of_all_roles_is_what_monitoring_asks_for(world, installation):
    assert worst(roles_in_force(installation)) is Severity.OK
    world.clock.advance(366 * DAY_S)
    roles = {role.role: role for role in roles_in_force(installation)}
    assert isinstance(roles["targets"], RoleHealth)
    assert worst(roles.values()) is Severity.EXPIRED
    assert roles["targets"].left_s == -DAY_S
    assert worst([]) is Severity.OK


def test_status_says_which_keys_are_where(world):
    places = {role.role: role for role in world.administration.status().keys}
    assert places["snapshot"].signs_here
    assert places["snapshot"].keys[0].file == str(world.data / "keys" / "snapshot.pem")
    assert not places["root"].signs_here
    assert (places["root"].threshold, places["root"].keys[0].file, places["root"].files_here) == (1, "", ())
    root = keys.load_private((world.keys / "root.pem").read_bytes(), PASSPHRASE, "root").public_key()
    assert places["root"].keys[0].fingerprint == keys.fingerprint(root)


def test_an_online_key_that_is_not_here_is_an_alarm(world):
    (world.data / "keys" / "timestamp.pem").rename(world.data / "keys" / "elsewhere")
    (world.data / "keys" / "timestamp.pem").write_text("not a key")
    facts = world.administration.status()
    assert ["lacks the timestamp key" in alarm for alarm in facts.alarms] == [True]
    assert facts.severity is Severity.WARNING
