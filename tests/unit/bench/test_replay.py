"""The replayer, as a process: every read in order, checked against the original once its clock stands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from replay import reads_of

REPLAY = Path(__file__).parents[3] / "bench" / "replay.py"
READS = [(0, 4096), (8192, 1024), (0, 512), (12_000, 4384)]


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(range(256)) * 64)
    return path


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "boot.trace"
    lines = [f"{offset} {length} {at}\n" for at, (offset, length) in enumerate(READS)]
    path.write_text("oscirc-trace-1 16384 " + "0" * 64 + "\n" + "".join(lines))
    return path


def replay(*arguments):
    return subprocess.run([sys.executable, REPLAY, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_line_that_says_that_a_trace_is_whole_is_no_read(trace):
    with trace.open("a") as file:
        file.write("end\n")
    assert reads_of(str(trace)) == READS


def test_a_trace_is_read_in_order_without_a_line_that_was_cut_off(trace):
    with trace.open("a") as file:
        file.write("4096 40")
    assert reads_of(str(trace)) == READS


def test_all_reads_are_made_and_equal_the_original(trace, disk):
    facts = json.loads(replay(trace, disk, disk).stdout)
    assert (facts["reads"], facts["bytes"], facts["wrong"]) == (4, sum(length for _, length in READS), 0)
    assert facts["ended"] >= facts["started"]


def test_one_flipped_bit_counts_as_one_wrong_read(trace, disk, tmp_path):
    damaged = bytearray(disk.read_bytes())
    damaged[8200] ^= 1
    (tmp_path / "damaged.raw").write_bytes(damaged)
    assert json.loads(replay(trace, tmp_path / "damaged.raw", disk).stdout)["wrong"] == 1


def test_without_an_original_nothing_is_compared(trace, disk):
    assert json.loads(replay(trace, disk).stdout)["wrong"] is None


def test_a_disk_that_ends_too_early_is_an_error(trace, disk, tmp_path):
    (tmp_path / "short.raw").write_bytes(disk.read_bytes()[:9000])
    done = replay(trace, tmp_path / "short.raw")
    assert done.returncode
    assert "nothing at 9000" in done.stderr


def test_the_name_may_come_later_when_the_replayer_is_ready(trace, disk):
    with subprocess.Popen(
        [sys.executable, REPLAY, trace, "-", disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout.readline() == "ready\n"
        output, _ = waiting.communicate(f"{disk}\n", timeout=60)
    assert json.loads(output)["wrong"] == 0


def test_a_guest_reads_the_same(disk, trace):
    assert json.loads(replay("--as-guest", trace, disk, disk).stdout)["wrong"] == 0
    assert json.loads(replay("--as-guest", trace, disk).stdout)["bytes"] == sum(length for _, length in READS)
