import json

import pytest

from oscirc_blockstore.errors import LocalError
from oscirc_fusedriver.status import DriverCounters, MapPart, MountStatus

STATUS = MountStatus("/mnt", 12, 3.5, 1024, DriverCounters(reads=3, last_error="x"), {"cache": {"damaged": 1}})


def test_a_status_crosses_as_itself():
    assert MountStatus.from_json(json.loads(json.dumps(STATUS.as_json()))) == STATUS


def test_what_a_newer_driver_adds_is_left_out():
    answer = STATUS.as_json()
    answer["new"] = 1
    answer["driver"]["new"] = 1
    assert MountStatus.from_json(answer) == STATUS


@pytest.mark.parametrize("missing", ["pid", "driver", "reader"])
def test_an_older_driver_is_told_apart(missing):
    answer = STATUS.as_json()
    del answer[missing]
    with pytest.raises(LocalError, match="another form"):
        MountStatus.from_json(answer)


PART = {"start": 2, "runs": [["z", 3], ["a", 1]], "next": 6, "block_count": 9, "block_size": 65536}


def test_a_part_of_the_map_crosses_as_itself():
    assert MapPart.from_json(PART) == MapPart(2, (("z", 3), ("a", 1)), 6, 9, 65536)
    last = {**PART, "runs": [["z", 7]], "next": None}
    assert MapPart.from_json(last).next is None


@pytest.mark.parametrize(
    "change",
    [
        {"next": 2},
        {"next": 10},
        {"next": None},
        {"runs": [["z", 5]]},
        {"runs": [["z"]]},
        {"runs": 7},
        {"start": "2"},
        {"start": -1},
        {"block_count": None},
    ],
)
def test_a_part_that_does_not_go_on_is_refused(change):
    with pytest.raises(LocalError, match="another form"):
        MapPart.from_json({**PART, **change})
