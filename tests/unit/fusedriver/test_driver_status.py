import json

import pytest

from oscirc_blockstore.errors import LocalError
from oscirc_fusedriver.status import DriverCounters, MountStatus

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
