"""Changes of one inode, judged by e2fsck; and what no file owns."""

import random
import re
import subprocess

import pytest
from support import changed_images, ext4_images

from oscirc_blockstore import ext4_editing
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4_files import Ext4Files
from oscirc_blockstore.range_set import RangeSet

MIB = 1 << 20


def test_the_checksum_is_the_one_of_rfc_3720():
    assert ext4_editing.crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert ext4_editing.crc32c(0xFFFFFFFF, bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA


@pytest.fixture(
    params=[("-b", "4096"), ("-b", "1024"), ("-b", "4096", "-I", "128"), ("-b", "4096", "-O", "^metadata_csum")]
)
def path(request, tmp_path):
    files = {"small": b"abc", "blocks": random.Random(1).randbytes(50_000), "none": b"", "etc/other": b"stays"}
    return ext4_images.make(tmp_path / "disk", files, options=request.param)


def opened(path):
    return Ext4Files(ext4_images.reader(path), ByteRange(0, path.stat().st_size))


def replaced(path, number, raw):
    place = opened(path).layout.inode_place(number)
    with path.open("r+b") as file:
        file.seek(place.start)
        file.write(raw)


def raw_inode(path, inode):
    place = opened(path).layout.inode_place(inode.number)
    return ext4_images.reader(path)(place.start, place.size)


@pytest.mark.parametrize("name", ["small", "blocks", "none"])
def test_an_emptied_file_is_empty_and_the_file_system_sound(path, tmp_path, name):
    files = opened(path)
    inode = files.find(name)
    replaced(path, inode.number, ext4_editing.emptied(files.layout, inode.number, raw_inode(path, inode)))
    part = changed_images.check(path.read_bytes(), tmp_path)
    assert changed_images.cat(part, name) == ""
    assert changed_images.cat(part, "etc/other") == "stays"
    assert opened(path).layout.ranges(opened(path).find(name)) == []


def test_another_length_within_the_same_blocks_is_sound(path, tmp_path):
    files = opened(path)
    inode = files.find("small")
    replaced(path, inode.number, ext4_editing.resized(files.layout, inode.number, raw_inode(path, inode), 2))
    assert changed_images.cat(changed_images.check(path.read_bytes(), tmp_path), "small") == "ab"
    with pytest.raises(DocumentRefusedError, match="number of blocks"):
        ext4_editing.resized(files.layout, inode.number, raw_inode(path, inode), 5000)


def test_a_file_whose_extents_are_a_tree_is_not_emptied(tmp_path):
    path = ext4_images.make(tmp_path / "disk", {"holes": random.Random(2).randbytes(40 * 4096)})
    changed_images.edit(path, [f"punch /holes {at} {at}" for at in range(1, 39, 2)])
    files = opened(path)
    inode = files.find("holes")
    assert ext4_editing.emptied(files.layout, inode.number, raw_inode(path, inode)) is None


def test_free_places_are_what_debugfs_calls_free(path):
    files = opened(path)
    everything = RangeSet([ByteRange(0, path.stat().st_size)])
    read, partition = ext4_images.reader(path), ByteRange(0, path.stat().st_size)
    found = list(ext4_editing.free_places(files.layout, read, partition, everything))
    size = files.layout.block_size
    for one in (found[0], found[len(found) // 2], found[-1]):
        assert one.size == size
        assert "not in use" in ext4_images.debugfs(path, f"testb {one.start // size}")
    free = {one.start // size for one in found}
    used = [at for at in range(path.stat().st_size // size) if at not in free]
    for at in (used[1], used[len(used) // 2], used[-1]):
        assert "marked in use" in ext4_images.debugfs(path, f"testb {at}")


def test_the_journals_content_can_go(path, tmp_path):
    files = opened(path)
    places = list(ext4_editing.journal_places(files.layout, ext4_images.reader(path)))
    assert sum(place.size for place in places) >= MIB - files.layout.block_size
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place.start : place.stop] = bytes(place.size)
    changed_images.check(bytes(raw), tmp_path)


def test_a_journal_that_is_not_idle_is_refused(path):
    files = opened(path)
    first = next(ext4_editing.journal_places(files.layout, ext4_images.reader(path))).start - files.layout.block_size
    with path.open("r+b") as file:
        file.seek(first + 0x1C)
        file.write(b"\0\0\0\1")
    with pytest.raises(DocumentRefusedError, match="not idle"):
        list(ext4_editing.journal_places(opened(path).layout, ext4_images.reader(path)))


@pytest.mark.parametrize("options", [(), ("-O", "sparse_super2"), ("-O", "^sparse_super,^resize_inode"), ("-G", "2")])
def test_what_is_free_is_what_dumpe2fs_calls_free_in_groups_that_nobody_used_too(tmp_path, options):
    path = ext4_images.make(
        tmp_path / "disk", {"file": b"x" * 9000}, size=60 * MIB, options=("-b", "1024", "-N", "2000", *options)
    )
    told = subprocess.run(
        ["dumpe2fs", path],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
    ).stdout
    assert told.count("BLOCK_UNINIT") >= 2
    free = set()
    for piece in re.findall(r"^  Free blocks: (.+)$", told, re.MULTILINE):
        for run in piece.split(", "):
            first, _, last = run.partition("-")
            free.update(range(int(first), int(last or first) + 1))
    whole = ByteRange(0, path.stat().st_size)
    places = ext4_editing.free_places(opened(path).layout, ext4_images.reader(path), whole, RangeSet([whole]))
    assert {place.start // 1024 for place in places} == free
