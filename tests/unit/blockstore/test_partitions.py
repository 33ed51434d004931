import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.partitions import MAX_PARTITIONS, find_partitions

MIB = 1 << 20


def reader(raw):
    return lambda offset, size: bytes(raw[offset : offset + size])


def made_by_sfdisk(path, script, size=64 * MIB):
    with path.open("wb") as file:
        file.truncate(size)
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    subprocess.run(
        ["sfdisk", "--quiet", "--no-tell-kernel", path], input=script, text=True, check=True, env=environment
    )
    return path.read_bytes()


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions_are_found_where_sfdisk_made_them(tmp_path, label):
    raw = made_by_sfdisk(tmp_path / "disk", f"label: {label}\n2048,20480\n32768,16384\n")
    assert find_partitions(reader(raw), len(raw)) == [
        ByteRange(1 * MIB, 11 * MIB),
        ByteRange(16 * MIB, 24 * MIB),
    ]


def test_a_disk_without_a_table_is_one_piece():
    assert find_partitions(reader(bytes(MIB)), MIB) == [ByteRange(0, MIB)]


def test_what_reaches_beyond_the_disk_is_left_out(tmp_path):
    raw = made_by_sfdisk(tmp_path / "disk", "label: gpt\n2048,20480\n32768,16384\n")
    assert find_partitions(reader(raw), 12 * MIB) == [ByteRange(1 * MIB, 11 * MIB)]


def test_a_table_that_promises_a_billion_partitions_is_read_as_far_as_any_disk_has():
    asked = []
    raw = bytearray(64 * MIB)
    raw[510:512], raw[450] = b"\x55\xaa", 0xEE
    raw[512:520] = b"EFI PART"
    struct.pack_into("<QII", raw, 512 + 72, 2, 1 << 30, 128)

    def read(offset, size):
        asked.append(size)
        return bytes(raw[offset : offset + size])

    assert find_partitions(read, len(raw)) == []
    assert max(asked) <= MAX_PARTITIONS * 128 + 34 * 512


@given(st.binary(max_size=2048), st.integers(0, 4 * MIB))
def test_no_bytes_make_it_fail_or_leave_the_disk(head, size):
    raw = head.ljust(34 * 512, b"\x55")[:size]
    for signed in (raw, raw[:510] + b"\x55\xaa" + raw[512:], raw[:510] + b"\x55\xaaEFI PART" + raw[520:]):
        for found in find_partitions(reader(signed), size):
            assert 0 <= found.start <= found.stop <= size
