"""Twenty workstations at once over one link, as bench/many_boots.py does with 200: all get everything, each its share."""

import hashlib
import random
import sys
from pathlib import Path

import pytest
from support.commands import Workstation, initialise, serving
from support.nginx import Asked

sys.path.append(str(Path(__file__).parents[2] / "bench"))
import load
from link import Link

WORKSTATIONS = 20
RATE_BITS = 100e6
BUNDLE_BYTES = 6 << 20


@pytest.mark.long
def test_all_complete_and_the_slowest_are_near_the_fair_share(tmp_path):
    operator = Workstation(tmp_path / "operator")
    repository = initialise(operator, tmp_path / "data")
    raw = random.Random(1).randbytes(BUNDLE_BYTES)
    name = hashlib.sha256(raw).hexdigest()
    with serving(operator, repository):
        (repository.tree / "accel").mkdir(exist_ok=True)
        (repository.tree / "accel" / name).write_bytes(raw)
        files = sorted(path for path in (repository.tree / "metadata").iterdir() if path.name != "timestamp.json")
        others = tuple(Asked(200, path.stat().st_size, "", f"/metadata/{path.name}") for path in files)
        boot = load.Boot(Asked(200, len(raw), "", f"/accel/{name}"), others)
        with Link(repository.port, rate_bits=RATE_BITS, round_trip_s=0.02) as link:
            times = load.boot_together(link.port, boot, WORKSTATIONS)
            passed = link.tell()
    assert len(times) == WORKSTATIONS
    assert passed.bytes_down >= boot.bytes * WORKSTATIONS
    fair_s = 8 * boot.bytes * WORKSTATIONS / RATE_BITS
    assert fair_s * 0.9 <= load.percentile(times, 0.95) <= fair_s * 1.3


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(share, expected):
    assert load.percentile([float(number) for number in range(1, 101)], share) == expected


def test_a_boot_is_its_longest_accelerator_and_the_rest_in_order():
    asked = [
        Asked(200, 10, "", "/metadata/1.root.json"),
        Asked(200, 500, "", "/accel/" + "a" * 64),
        Asked(206, 90, "bytes=0-89", "/accel/" + "b" * 64),
        Asked(200, 9000, "", "/blocks/sha256/aa/x.zst"),
    ]
    boot = load.boot_of(asked)
    assert boot.bundle is asked[1]
    assert boot.others == (asked[0], asked[2], asked[3])
    assert (boot.requests, boot.bytes) == (4, 9600)
