"""Recordings whose process was killed: what they left goes, and a living one's is never touched."""

import dataclasses
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

import pytest

from oscirc import recording_leftovers
from oscirc_blockstore.errors import LocalError
from oscirc_fusedriver.processes import ProcessIdentity
from oscirc_vmlaunch import launching
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.records import InstanceRecord


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary directory of this test's own."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def stopped(monkeypatch):
    """Guests that were ended."""
    names = []

    async def stop(instance, *, timeout_s, fail_reads):
        names.append(instance.name)

    monkeypatch.setattr(launching, "stop", stop)
    return names


@pytest.fixture
def dead():
    """A process that has been."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
    assert not identity.alive()
    return identity


def directory_of(temporary, owner):
    place = temporary / f"oscirc-record-{owner.pid}-{owner.start_ticks}-ab_12x"
    (place / "mnt").mkdir(parents=True)
    (place / "trace").write_text("half")
    return place


def guest_on(place, name="record-00ff", *, ephemeral=True):
    """A guest of that recording, as its record says."""
    made = Instances().create(
        InstanceRecord(
            name=name,
            remote="",
            reference="",
            manifest_digest="ab" * 32,
            version="",
            firmware="bios",
            architecture="x86_64",
            memory_mib=256,
            cpus=1,
            accelerator="tcg",
            mount_point=str(place / "mnt"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            port_forwards=(),
            ephemeral=ephemeral,
        )
    )
    assert made.directory.exists()
    return made


def test_the_guest_and_the_directory_of_a_dead_recording_go(temporary, dead, stopped, capsys):
    place = directory_of(temporary, dead)
    guest_on(place)
    recording_leftovers.sweep()
    assert stopped == ["record-00ff"]
    assert Instances().names() == []
    assert list(temporary.iterdir()) == []
    assert str(place) in capsys.readouterr().err


def test_a_guest_is_found_although_its_directory_is_gone(temporary, dead, stopped):
    guest_on(temporary / f"oscirc-record-{dead.pid}-{dead.start_ticks}-abcd")
    recording_leftovers.sweep()
    assert stopped == ["record-00ff"]
    assert Instances().names() == []


def test_what_lives_what_is_somebody_s_and_what_cannot_be_told_stays(temporary, dead, stopped, capsys):
    mine = ProcessIdentity.current()
    living = directory_of(temporary, mine)
    guest_on(living)
    unnamed = temporary / "oscirc-record-abcdefgh"  # whose it is, is not said
    unnamed.mkdir()
    elsewhere = directory_of(temporary / "other", dead)  # not in the temporary directory, no guest on it
    target = directory_of(temporary / "more", dead)
    (temporary / target.name).symlink_to(target)
    guest_on(directory_of(temporary / "mine", dead), "record-mine", ephemeral=False)
    recording_leftovers.sweep()
    assert stopped == []
    assert Instances().names() == ["record-00ff", "record-mine"]
    assert all(path.exists() for path in (living, unnamed, elsewhere, target, temporary / target.name))
    assert capsys.readouterr().err == ""


def test_another_process_with_the_same_number_is_not_the_owner(temporary, stopped):
    mine = ProcessIdentity.current()
    place = directory_of(temporary, dataclasses.replace(mine, start_ticks=mine.start_ticks - 1))
    recording_leftovers.sweep()
    assert not place.exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(temporary, dead, stopped, monkeypatch, capsys):
    first, second = directory_of(temporary, dead), directory_of(temporary, dataclasses.replace(dead, start_ticks=1))
    unmount = recording_leftovers._unmount

    def stuck(mountpoint):
        if mountpoint.parent == first:
            raise LocalError("it is still mounted")
        unmount(mountpoint)

    monkeypatch.setattr(recording_leftovers, "_unmount", stuck)
    recording_leftovers.sweep()
    assert (first.exists(), second.exists()) == (True, False)
    assert "could not be removed: it is still mounted" in capsys.readouterr().err


def test_a_recording_s_directory_tells_whose_it_is_from_its_first_moment(temporary):
    with recording_leftovers.private_directory() as work:
        assert recording_leftovers.owner_of(work) == ProcessIdentity.of(os.getpid())
        recording_leftovers.sweep()
        assert work.exists()
    assert list(temporary.iterdir()) == []
