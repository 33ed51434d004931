"""The figures of paired boots; nothing is booted here."""

import pytest
from warm_boot import Boot, summed, verdict

RAW = Boot(50.0, 1.0, 2700, 100_000_000)


def pair(excess_s: float) -> tuple[Boot, Boot]:
    return Boot(51.0, RAW.read_s + excess_s, 2700, 100_000_000), RAW


def test_the_guest_s_disk_is_found_among_the_nodes():
    stats = {"rd_total_time_ns": 1_500_000_000, "rd_operations": 7, "rd_bytes": 4096}
    entries = [
        {"node-name": "overlay", "qdev": "/machine/peripheral/disk/virtio-backend", "stats": stats},
        {"node-name": "firmware-code", "stats": {}},
    ]
    assert summed(40.0, entries) == Boot(40.0, 1.5, 7, 4096)


def test_the_median_of_the_pairs_decides():
    figures, passed = verdict([pair(each) for each in (0.1, 9.0, 1.4, 9.0, 1.5)], 0)
    assert figures["median_excess_share_of_boot"] == pytest.approx(0.03)
    assert passed
    assert not verdict([pair(each) for each in (0.1, 9.0, 1.4, 9.0, 1.6)], 0)[1]


def test_a_mount_that_reads_faster_than_the_raw_file_passes():
    assert verdict([pair(-0.5)], 0)[1]


def test_one_driver_call_fails():
    assert not verdict([pair(0.0)], 1)[1]
