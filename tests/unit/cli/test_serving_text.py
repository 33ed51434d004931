"""What operators and monitoring read of a server."""

from dataclasses import replace

from oscirc import serving_text
from oscirc_server.alarms import RoleHealth, Severity
from oscirc_server.key_places import KeyPlace, RoleKeys
from oscirc_server.renewal import Renewed
from oscirc_server.status import Status

NOW_S = 1_800_000_000


def role(name, left_s, severity):
    return RoleHealth(name, 3, NOW_S, NOW_S + left_s, left_s, 0, severity)


WELL = Status(
    remote_url="http://repository.test/r#sha256=00",
    public_url="http://repository.test/r",
    roles=(role("root", 10**8, Severity.OK), role("timestamp", 600_000, Severity.OK)),
    keys=(
        RoleKeys("root", 2, (KeyPlace("ab" * 32, ""), KeyPlace("cd" * 32, "")), ()),
        RoleKeys("targets", 1, (KeyPlace("ef" * 32, ""),), ("/srv/keys/targets.pem",)),
        RoleKeys("timestamp", 1, (KeyPlace("12" * 32, "/srv/keys/timestamp.pem"),), ("/srv/keys/timestamp.pem",)),
    ),
    offline_keys_here=("targets",),
    can_impersonate_publishers=True,
    publishers=2,
    images=3,
    blocks=4,
    stored_bytes=5 << 20,
    open_drafts=0,
    alarms=("this server can impersonate publishers: move the targets key out of /srv/keys",),
    severity=Severity.OK,
)
ILL = replace(
    WELL, roles=(role("timestamp", -5, Severity.EXPIRED),), alarms=("the timestamp expired",), severity=Severity.EXPIRED
)


def test_monitoring_reads_one_line(capsys):
    assert (
        serving_text.check_line(WELL)
        == "OK: 2 roles in force, the first to expire is timestamp on 2027-01-22 06:40 UTC"
    )
    assert serving_text.check_line(ILL) == "EXPIRED: the timestamp expired"


def test_people_read_which_keys_are_where(capsys):
    serving_text.print_status(WELL)
    told = capsys.readouterr()
    assert "2 of 2" in told.out
    assert f"{'ab' * 8}…  elsewhere\n" in told.out
    assert "elsewhere, or in /srv/keys/targets.pem" in told.out
    assert f"{'12' * 8}…  /srv/keys/timestamp.pem" in told.out
    assert "can impersonate publishers" in told.err


def test_programs_read_severity_and_whether_all_is_well():
    assert serving_text.status_document(WELL)["healthy"] is True
    found = serving_text.status_document(ILL)
    assert (found["healthy"], found["severity"]) == (False, "expired")
    assert found["roles"][0]["alarm"] is True
    assert "expired on" in found["roles"][0]["text"]


def test_a_renewal_says_until_when():
    found = serving_text.renewed_document(Renewed("root", 2, NOW_S))
    assert found == {"role": "root", "version": 2, "expires_s": NOW_S, "expires": "2027-01-15 08:00 UTC"}
