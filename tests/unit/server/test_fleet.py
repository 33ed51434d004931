"""Shared boots: what a majority of networks touched becomes a profile, and nothing that one of them says."""

import pytest
from sqlalchemy import func, select

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import profile
from oscirc_blockstore.accelerators import MAX_ACCELERATORS, PROFILE
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_blockstore.profile import Profile
from oscirc_server.app import create_app
from oscirc_server.models import AcceleratorRow, ProfileRun
from oscirc_server.services import fleet
from oscirc_server.services.fleet import KEEP_S, MAX_RUN_BYTES, MIN_RUNS, REWRITE_S, add_run, network_of

from .in_process import client_at, client_of
from .server_world import block

pytestmark = pytest.mark.usefixtures("no_block_lengths")

NAMES = ("alice", "debian", "1.0")
RUNS = "/api/v1/images/alice/debian/versions/1.0/profiles/{}/runs"


@pytest.fixture
def disk(api, alice):
    built = alice.build("debian", [block(str(number)) for number in range(8)] + [None] * 92)
    assert api.publish(alice, "debian", "1.0", built).status_code == 200
    return built


@pytest.fixture
def send(installation, disk):
    """Have a network send a run."""

    def sending(network, *positions, name="boot", manifest=disk.digest, runs=1):
        raw = Profile(manifest, name, runs, positions).serialise()
        return add_run(installation, NAMES, name, raw, network.encode().ljust(16))

    return sending


@pytest.fixture
def made(world, disk):
    """The fleet's profile as it is served, or None."""

    def find(name="fleet-boot"):
        listed = documents.parse_listing((world.tree / documents.listing_path(disk.digest)).read_bytes())
        found = listed.find(PROFILE, name)
        return None if found is None else profile.parse((world.tree / found.path).read_bytes())

    return find


def kept(installation):
    with installation.database.read() as session:
        return session.scalar(select(func.count()).select_from(ProfileRun))


def test_enough_networks_make_a_profile_of_what_most_of_them_touched(world, send, made, disk):
    for number in range(MIN_RUNS - 1):
        assert send(f"network {number}", 5, 3, 1, 10 + number) == number + 1
    assert not (world.tree / documents.listing_path(disk.digest)).exists()
    send("another", 5, 1, 99)
    assert made() == Profile(disk.digest, "fleet-boot", MIN_RUNS, (5, 3, 1))
    hint = documents.parse_hint((world.tree / documents.hint_path("alice", "debian")).read_bytes())
    assert hint.channels["stable"].find(PROFILE, "fleet-boot")


def test_one_network_counts_once_however_often_it_sends(installation, send, world, disk):
    for number in range(50):
        assert send("the same", number % 7, 50) == 1
    assert kept(installation) == 1
    assert not (world.tree / documents.listing_path(disk.digest)).exists()


def test_networks_in_the_minority_bring_nothing_in_and_turn_nothing_around(send, made):
    for number in range(2):
        send(f"liar {number}", *range(99, 0, -1))
    for number in range(3):
        send(f"honest {number}", 1, 2, 3)
    assert made().positions == (1, 2, 3)


def test_where_networks_agree_on_nothing_there_is_no_profile(world, send, disk):
    for number in range(MIN_RUNS):
        send(f"network {number}", number)
    assert not (world.tree / documents.listing_path(disk.digest)).exists()


def test_a_profile_is_made_at_most_once_an_hour_and_the_one_before_is_gone(world, send, made):
    for number in range(MIN_RUNS):
        send(f"network {number}", 1)
    first = made()
    for number in range(MIN_RUNS):
        send(f"network {number}", 2, 1)
    assert made() == first
    world.clock.advance(REWRITE_S)
    send("network 0", 2, 1)
    assert made().positions == (2, 1)
    assert len([path for path in (world.tree / "accel").iterdir() if path.suffix != ".json" and path.is_file()]) == 1


def test_a_file_that_is_listed_elsewhere_too_is_not_taken_away(world, installation, send, made, disk):
    for number in range(MIN_RUNS):
        send(f"network {number}", 1)
    with installation.database.write() as session:
        row = session.get(AcceleratorRow, (disk.digest, PROFILE, "fleet-boot"))
        session.add(
            AcceleratorRow(
                manifest=digest_of(b"other"), kind=PROFILE, name="x", sha256=row.sha256, length=row.length,
                index_length=0, created_s=0,
            )
        )  # fmt: skip
        path = world.tree / "accel" / row.sha256.hex()
    world.clock.advance(REWRITE_S)
    for number in range(MIN_RUNS):
        send(f"network {number}", 2, 1)
    world.clock.advance(REWRITE_S)
    send("network 0", 2, 1)
    assert made().positions == (2, 1)
    assert path.exists()


def test_runs_of_a_name_are_bounded_and_the_oldest_go(installation, send, monkeypatch):
    monkeypatch.setattr(fleet, "MAX_RUNS", 3)
    assert [send(f"network {number}", 1) for number in range(5)] == [1, 2, 3, 3, 3]
    assert send("network 0", 1) == 3  # gone, so it is a new one


def test_runs_in_all_are_bounded(installation, api, alice, send, disk, monkeypatch):
    monkeypatch.setattr(fleet, "MAX_RUNS_IN_ALL", 4)
    other = alice.build("alpine", [block("x"), block("y")])
    assert api.publish(alice, "alpine", "1.0", other).status_code == 200
    for number in range(4):
        send(f"network {number}", 1)
    raw = Profile(other.digest, "boot", 1, (1,)).serialise()
    assert add_run(installation, ("alice", "alpine", "1.0"), "boot", raw, bytes(16)) == 1
    assert kept(installation) == 4


def test_old_runs_are_forgotten(world, installation, send):
    send("old", 1)
    world.clock.advance(KEEP_S + 1)
    assert send("new", 1) == 1
    assert kept(installation) == 1


def test_only_the_default_name_and_those_of_the_publisher_are_taken(installation, send, api, disk):
    with pytest.raises(NotFoundError):
        send("a", 1, name="desktop")
    raw = Profile(disk.digest, "desktop", 1, (1,)).serialise()
    put = api.call(
        "PUT",
        "images/alice/debian/versions/1.0/accelerators/profile/desktop",
        params={"sha256": digest_of(raw).hex()},
        content=raw,
    )
    assert put.status_code == 200
    assert send("a", 1, name="desktop") == 1
    for number in range(MIN_RUNS):
        send(f"network {number}", 1)
    for name in ("fleet-boot", "n" * 63):
        with pytest.raises(NotFoundError):
            send("a", 1, name=name)
    assert kept(installation) == 1 + MIN_RUNS


def test_a_full_list_takes_no_fleet_profile_and_stays_readable(world, installation, send, disk):
    with installation.database.write() as session:
        for number in range(MAX_ACCELERATORS):
            session.add(
                AcceleratorRow(
                    manifest=disk.digest, kind=PROFILE, name=f"p{number}", sha256=bytes(32), length=1,
                    index_length=0, created_s=0,
                )
            )  # fmt: skip
    for number in range(MIN_RUNS):
        assert send(f"network {number}", 1) == number + 1
    with installation.database.read() as session:
        assert session.get(AcceleratorRow, (disk.digest, PROFILE, "fleet-boot")) is None


def test_the_publisher_can_throw_a_fleet_profile_away_with_the_runs_behind_it(installation, api, send, made):
    for number in range(MIN_RUNS):
        send(f"network {number}", 1)
    path = "images/alice/debian/versions/1.0/accelerators/profile/fleet-boot"
    assert api.call("DELETE", path).status_code == 204
    assert made() is None
    assert kept(installation) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": digest_of(b"another disk")},
        {"runs": 2},
        {"positions": ()},
        {"positions": (100,)},
        {"positions": (1 << 40,)},
    ],
)
def test_a_run_that_cannot_be_of_this_disk_is_refused(installation, send, change):
    positions = change.pop("positions", (1,))
    with pytest.raises(DocumentRefusedError):
        send("a", *positions, **change)
    assert kept(installation) == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":[1,1],"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":[-1],"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":[1.5],"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":[true],"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":["1"],"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","positions":[1],"runs":1,"runs":1}',
        b'{"format":"oscirc-profile-1","manifest":"MM","name":"boot","note":"x","positions":[1],"runs":1}',
    ],
)
def test_what_is_no_profile_is_refused(installation, http, disk, raw):
    answer = http.post(RUNS.format("boot"), content=raw.replace(b"MM", disk.digest.hex().encode()))
    assert (answer.status_code, answer.json()["type"]) == (422, "DocumentRefusedError")
    assert kept(installation) == 0


def run_of(disk, *positions):
    return Profile(disk.digest, "boot", 1, positions).serialise()


def test_a_run_needs_no_token_and_is_refused_when_it_is_too_long(http, disk):
    answer = http.post(RUNS.format("boot"), content=run_of(disk, 1, 2))
    assert (answer.status_code, answer.json()) == (202, {"runs": 1})
    answer = http.post(RUNS.format("boot"), content=bytes(MAX_RUN_BYTES + 1))
    assert (answer.status_code, answer.json()["type"]) == (413, "BodyTooLargeError")
    assert http.post(RUNS.format("desktop"), content=run_of(disk, 1)).status_code == 422
    unknown = http.post("/api/v1/images/alice/debian/versions/9/profiles/boot/runs", content=run_of(disk, 1))
    assert unknown.status_code == 404


def test_one_address_has_so_many_turns_and_takes_none_of_another(world, http, disk):
    answers = [http.post(RUNS.format("boot"), content=b"{}").status_code for _ in range(fleet.EACH_NETWORK.burst)]
    assert set(answers) == {422}
    refused = http.post(RUNS.format("boot"), content=run_of(disk, 1))
    assert (refused.status_code, refused.json()["type"]) == (429, "TooManyRequestsError")
    assert 0 < int(refused.headers["retry-after"]) <= 180
    with client_at("192.0.2.7", http) as other:
        assert other.post(RUNS.format("boot"), content=run_of(disk, 1)).status_code == 202
    world.clock.advance(int(refused.headers["retry-after"]))
    assert http.post(RUNS.format("boot"), content=run_of(disk, 1)).status_code == 202


def test_addresses_of_one_network_are_one_sender_and_none_is_stored(installation, world):
    same = [
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:1:2300::1", "2001:db8:1:23ff:ffff::2"),
        ("", "testclient"),
    ]
    for one, other in same:
        assert network_of(installation, one) == network_of(installation, other)
    different = {network_of(installation, each) for each in ("192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db9::1")}
    assert len(different) == 4
    assert all(len(each) == 16 for each in different)


def test_a_secret_of_its_own_hides_the_senders_of_each_repository(template, installation, tmp_path):
    first = network_of(installation, "192.0.2.7")
    assert network_of(installation, "192.0.2.7") == first
    with installation.database.write() as session:
        session.get_one(fleet.Fact, "fleet_secret").value = "00" * 32
    assert network_of(installation, "192.0.2.7") != first


def test_a_repository_may_take_none(world, installation, disk):
    object.__setattr__(installation.settings, "shared_boots", False)
    with client_of(create_app(installation)) as http:
        assert http.post(RUNS.format("boot"), content=run_of(disk, 1)).status_code == 404
    assert kept(installation) == 0
