import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from oscirc_blockstore.errors import BusyError
from oscirc_fusedriver import records
from oscirc_fusedriver.readers import MountDescription
from oscirc_fusedriver.records import MountRecord
from oscirc_remote.deadlines import Deadline

DESCRIBED = MountDescription("home", "home:alice/disk#stable", "ab" * 32, "alice/disk", "1.2")


@pytest.fixture
def record(tmp_path):
    place = tmp_path / "mnt"
    place.mkdir()
    return MountRecord.of_this_process(place, "0:99", DESCRIBED, 12345, 2.5)


def test_a_record_is_found_as_it_was_written(record):
    assert records.find(Path(record.mountpoint)) is None
    record.write()
    assert records.find(Path(record.mountpoint)) == record
    assert records.list_records() == [record]
    assert record.process.alive()
    assert (record.image, record.disk_size, record.disk.name) == ("alice/disk", 12345, "disk.raw")
    assert record.deadline_ms == 2500


def test_its_files_are_the_users_own(record):
    record.write()
    path = records.mounts_directory() / f"{record.id}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no temporary file is left
    assert len(record.id) == 16
    assert record.socket.name == f"{record.id}.sock"


def test_a_mount_point_is_the_same_by_every_name(record, tmp_path):
    record.write()
    link = tmp_path / "link"
    link.symlink_to(record.mountpoint)
    assert records.find(link) == record
    assert records.find(tmp_path / "." / "x" / ".." / "mnt") == record


def test_removing_leaves_the_record_of_whoever_came_after(record):
    record.write()
    later = replace(record, pid=1, start_ticks=1)
    later.write()
    record.remove()
    assert records.find(Path(record.mountpoint)) == later
    later.remove()
    later.remove()
    assert records.list_records() == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: "",
        lambda fields: "{",
        lambda fields: "[]",
        lambda fields: json.dumps({**fields, "extra": 1}),
        lambda fields: json.dumps({**fields, "pid": "1"}),
        lambda fields: json.dumps({**fields, "pid": True}),
        lambda fields: json.dumps({**fields, "mountpoint": "/elsewhere"}),
        lambda fields: json.dumps({name: fields[name] for name in fields if name != "image"}),
        lambda fields: " " * 70000 + json.dumps(fields),
    ],
)
def test_a_file_that_is_no_record_is_passed_over(record, damage):
    record.write()
    path = records.mounts_directory() / f"{record.id}.json"
    path.write_text(damage(asdict(record)))
    assert records.list_records() == []


def test_a_mount_point_can_be_claimed_once(record):
    place = Path(record.mountpoint)
    with records.claimed(place):
        with pytest.raises(BusyError, match="just mounting"), records.claimed(place):
            pass
        record.write()
        with pytest.raises(BusyError, match="alice/disk is already mounted"), records.claimed(place):
            pass
    with records.claimed(place):
        pass


def test_a_claim_waits_for_a_driver_that_ends_but_not_for_one_that_serves(record):
    place = Path(record.mountpoint)
    claims = contextlib.ExitStack()
    claims.enter_context(records.claimed(place))
    threading.Timer(0.1, claims.close).start()
    with records.claimed(place, deadline=Deadline.after(30)):
        with pytest.raises(BusyError, match="just mounting"), records.claimed(place, deadline=Deadline.after(0.05)):
            pass
        record.write()
        with pytest.raises(BusyError, match="already mounted"), records.claimed(place, deadline=Deadline.after(3600)):
            pass


def test_the_kernel_frees_the_claim_of_a_dead_process(record):
    place = Path(record.mountpoint)
    program = (
        "import os, sys, pathlib; from oscirc_fusedriver import records\n"
        "with records.claimed(pathlib.Path(sys.argv[1])): print('claimed', flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(place)], env=os.environ, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("claimed\n", -9)
    with records.claimed(place):
        pass
