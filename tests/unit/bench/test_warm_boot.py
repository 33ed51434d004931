"""The figures of paired boots, and whose turn it is; nothing is booted here."""

import json
import os
from pathlib import Path

import pytest
from warm_boot import MOUNT, RAW, Boot, RandomReads, drop_pages, keep, order, summed, verdict

READ = Boot(50.0, 1.0, 2700, 100_000_000)
NO_CALLS = RandomReads(20_000, 0, 0, 1.4)


def round_of(excess_s: float) -> dict[str, Boot]:
    return {MOUNT: Boot(51.0, READ.read_s + excess_s, 2700, 100_000_000), RAW: READ}


def test_the_guest_s_disk_is_found_among_the_nodes():
    stats = {"rd_total_time_ns": 1_500_000_000, "rd_operations": 7, "rd_bytes": 4096}
    entries = [
        {"node-name": "overlay", "qdev": "/machine/peripheral/disk/virtio-backend", "stats": stats},
        {"node-name": "firmware-code", "stats": {}},
    ]
    assert summed(40.0, entries) == Boot(40.0, 1.5, 7, 4096)


def test_the_median_of_the_pairs_decides():
    figures, passed = verdict([round_of(each) for each in (0.1, 9.0, 1.4, 9.0, 1.5)], NO_CALLS)
    assert figures["median_excess_share_of_boot"] == {RAW: pytest.approx(0.03)}
    assert passed
    assert not verdict([round_of(each) for each in (0.1, 9.0, 1.4, 9.0, 1.6)], NO_CALLS)[1]


def test_a_mount_that_reads_faster_than_the_raw_file_passes():
    assert verdict([round_of(-0.5)], NO_CALLS)[1]


def test_one_driver_call_fails():
    assert not verdict([round_of(0.0)], RandomReads(20_000, 0, 1, 1.4))[1]


def test_random_reads_that_found_too_little_in_the_page_cache_show_nothing():
    assert verdict([round_of(0.0)], RandomReads(18_000, 2_000, 0, 1.4))[1]
    assert not verdict([round_of(0.0)], RandomReads(17_999, 2_001, 0, 1.4))[1]
    assert not verdict([round_of(0.0)], RandomReads(0, 20_000, 0, 0.0))[1]


def test_each_is_first_in_turn():
    assert [order(number)[0] for number in range(4)] == [MOUNT, RAW, MOUNT, RAW]
    assert {*order(0)} == {*order(1)} == {MOUNT, RAW}


def test_the_pages_of_every_file_below_a_folder_are_dropped(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    files = {tmp_path / "one", tmp_path / "a" / "two", tmp_path / "a" / "b" / "three"}
    for file in files:
        file.write_bytes(b"x" * 4096)
    dropped = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda file, *advice: dropped.append((Path(f"/proc/self/fd/{file}").readlink(), *advice))
    )
    drop_pages(tmp_path)
    assert sorted(dropped) == sorted((file, 0, 0, os.POSIX_FADV_DONTNEED) for file in files)
    drop_pages(tmp_path / "one")
    assert dropped[-1] == (tmp_path / "one", 0, 0, os.POSIX_FADV_DONTNEED)


def test_figures_of_one_disk_leave_those_of_the_other(tmp_path):
    file = tmp_path / "warm_boot.json"
    for name, number in (("debian13", 1), ("debian12", 2), ("debian13", 3)):
        keep(file, name, {"pairs": number})
    disks = json.loads(file.read_text())["disks"]
    assert {name: figures["pairs"] for name, figures in disks.items()} == {"debian12": 2, "debian13": 3}
    assert disks["debian12"]["machine"]["cores"]
