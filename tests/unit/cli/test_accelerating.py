"""Profiles as they are given to `publish --profile` and `profile add`, and how two of them differ."""

import json

import pytest

from oscirc import accelerating
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, NameRefusedError, NotFoundError, UsageError
from oscirc_blockstore.profile import Profile
from oscirc_publisher import accelerating as publishing

DISK = digest_of(b"disk")


@pytest.fixture
def written(tmp_path):
    def write(name="boot", file="a.json"):
        place = tmp_path / file
        place.write_bytes(Profile(DISK, name, 2, (3, 1)).serialise())
        return place

    return write


def test_files_are_read_under_their_own_name_or_another(written):
    own, other = written(), written(file="b.json")
    read = accelerating.read_profiles([str(own), f"desktop={other}"])
    assert [each.name for each in read] == ["boot", "desktop"]
    assert read[1].positions == (3, 1)


def test_a_file_whose_name_has_an_equals_sign_is_that_file(written, tmp_path, monkeypatch):
    written(file="x=y.json")
    monkeypatch.chdir(tmp_path)
    for text in ("x=y.json", str(tmp_path / "x=y.json")):
        assert accelerating.read_profiles([text])[0].name == "boot"


def test_two_of_one_name_are_refused(written):
    with pytest.raises(UsageError, match="two of the profiles"):
        accelerating.read_profiles([str(written()), str(written(file="b.json"))])


def test_what_is_no_profile_is_refused_with_its_file(written, tmp_path):
    bad = tmp_path / "bad"
    bad.write_text(json.dumps({"format": "oscirc-profile-1"}))
    with pytest.raises(UsageError, match="bad is not a profile"):
        accelerating.read_profiles([str(bad)])
    with pytest.raises(LocalError, match="cannot read"):
        accelerating.read_profiles([str(tmp_path / "none")])
    with pytest.raises(NameRefusedError):
        accelerating.read_profiles([f"No Name={written()}"])


class Version:
    publisher, image, version_label, manifest_digest = "alice", "debian", "1", DISK


@pytest.fixture
def listed(monkeypatch):
    """Profiles that the server has."""
    there = {}

    def find(_client, name, manifest_digest, profile):
        assert (name.path, manifest_digest) == ("images/alice/debian/versions/1", DISK)
        if profile not in there:
            raise NotFoundError("none")
        return there[profile]

    monkeypatch.setattr(publishing, "listed_profile", find)
    return there


def test_a_fleets_profile_is_compared_with_the_recorded_one_and_takes_its_name(listed, capsys):
    listed["fleet-boot"] = Profile(DISK, "fleet-boot", 7, (1, 2, 3))
    listed["boot"] = Profile(DISK, "boot", 2, (2, 3, 4, 5))
    taken, difference = accelerating.compared(None, Version, "fleet-boot", "boot")
    assert taken == Profile(DISK, "boot", 7, (1, 2, 3))
    assert (difference.blocks, difference.new_blocks, difference.lost_blocks, difference.runs) == (3, 1, 2, 7)
    accelerating.tell_difference(difference)
    assert "1 of them are not in boot, which has 2 others" in capsys.readouterr().err


def test_where_nothing_was_recorded_all_of_it_is_new(listed):
    listed["fleet-boot"] = Profile(DISK, "fleet-boot", 7, (1, 2, 3))
    _, difference = accelerating.compared(None, Version, "fleet-boot", "boot")
    assert (difference.new_blocks, difference.lost_blocks) == (3, 0)
    with pytest.raises(NotFoundError):
        accelerating.compared(None, Version, "fleet-desktop", "desktop")
