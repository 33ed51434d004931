"""Partition tables as bytes, against the UEFI specification and against what sfdisk makes of them."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from uuid import UUID

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "guests"))

from guestdisks import partitions, programs

MIB = 1 << 20
DISK = UUID("00112233-4455-6677-8899-aabbccddeeff")
FIRST = UUID("10112233-4455-6677-8899-aabbccddeeff")
SECOND = UUID("20112233-4455-6677-8899-aabbccddeeff")


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\xaa" * 440 + bytes(16 * MIB - 440))
    return path


def write_gpt(disk):
    efi = partitions.Partition(MIB, 4 * MIB, partitions.EFI_SYSTEM, FIRST, "EFI")
    root = partitions.Partition(5 * MIB, 10 * MIB, partitions.LINUX, SECOND, "root")
    partitions.write_gpt(disk, DISK, [efi, root])


@pytest.mark.parametrize("here", [1, 16 * 2048 - 1])
def test_both_gpt_headers_carry_right_checksums_and_point_at_each_other(disk, here):
    write_gpt(disk)
    content = disk.read_bytes()
    header = content[here * 512 : here * 512 + 92]
    checksum = struct.unpack_from("<I", header, 16)[0]
    assert checksum == zlib.crc32(header[:16] + bytes(4) + header[20:])
    own, other = struct.unpack_from("<QQ", header, 24)
    assert (own, other) == (here, 16 * 2048 - here)
    table_at, count, size, table_checksum = struct.unpack_from("<QIII", header, 72)
    assert zlib.crc32(content[table_at * 512 : table_at * 512 + count * size]) == table_checksum


def test_gpt_is_guarded_by_an_mbr_that_claims_the_whole_disk(disk):
    write_gpt(disk)
    entry = disk.read_bytes()[446:462]
    assert entry[4] == 0xEE
    assert struct.unpack("<II", entry[8:]) == (1, 16 * 2048 - 1)


def test_mbr_keeps_the_boot_code(disk):
    partitions.write_mbr(disk, signature=0x11223344, start_bytes=MIB)
    sector = disk.read_bytes()[:512]
    assert sector[:440] == b"\xaa" * 440
    assert sector[440:446] == b"\x44\x33\x22\x11\0\0"
    assert sector[510:] == b"\x55\xaa"


def listing(disk):
    try:
        program = programs.find("sfdisk")
    except programs.BuildError:
        pytest.skip("sfdisk is not installed")
    done = subprocess.run([program, "--json", disk], capture_output=True, check=True, text=True)
    return json.loads(done.stdout)["partitiontable"]


def test_sfdisk_reads_the_same_gpt(disk):
    write_gpt(disk)
    table = listing(disk)
    assert table["id"].lower() == str(DISK)
    rows = [(row["start"], row["size"], row["uuid"].lower(), row["name"]) for row in table["partitions"]]
    assert rows == [(2048, 8192, str(FIRST), "EFI"), (10240, 20480, str(SECOND), "root")]
    assert [UUID(row["type"]) for row in table["partitions"]] == [partitions.EFI_SYSTEM, partitions.LINUX]


def test_sfdisk_reads_the_same_mbr(disk):
    partitions.write_mbr(disk, signature=0x11223344, start_bytes=MIB)
    table = listing(disk)
    assert table["id"] == "0x11223344"
    (row,) = table["partitions"]
    assert (row["start"], row["size"], row["type"], row["bootable"]) == (2048, 15 * 2048, "83", True)
