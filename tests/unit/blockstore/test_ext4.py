"""Against file systems that mke2fs made, and against damage of every kind."""

import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ext4_images

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import MAX_GROUPS, ROOT_INODE, Ext4

MIB = 1 << 20
FILES = {
    "etc/fstab": b"/dev/vda1 / ext4\n",
    "etc/hostname": b"here\n",
    "usr/lib/libc.so.6": random.Random(1).randbytes(900_000),
    "usr/bin/true": b"\x7fELF" + bytes(1000),
    **{f"many/file-{number:04}": b"%d" % number for number in range(700)},
}


@pytest.fixture(scope="module", params=[("-b", "4096"), ("-b", "1024"), ("-b", "4096", "-O", "^64bit,^metadata_csum")])
def image(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("ext4") / "disk"
    return ext4_images.make(path, FILES, start=MIB, options=request.param)


def opened(path, **options):
    size = path.stat().st_size
    return Ext4(ext4_images.reader(path), ByteRange(MIB, size), **options)


def find(file_system, path):
    inode = file_system.inode(ROOT_INODE)
    for name in path.split("/"):
        inode = file_system.inode(file_system.entries(inode)[name])
    return inode


def test_files_are_found_by_their_names_with_their_content(image):
    file_system = opened(image)
    read = ext4_images.reader(image)
    for path, raw in FILES.items():
        inode = find(file_system, path)
        assert (inode.is_regular, inode.size) == (True, len(raw))
        assert ext4_images.content(read, file_system, inode) == raw


def test_a_directory_of_many_blocks_lists_all_of_its_names(image):
    file_system = opened(image)
    names = file_system.entries(find(file_system, "many"))
    assert set(names) == {f"file-{number:04}" for number in range(700)}


def test_the_inode_tables_hold_every_inode_in_use(image):
    file_system = opened(image)
    tables = list(file_system.inode_tables())
    for path in FILES:
        place = file_system.inode_place(find(file_system, path).number)
        assert any(table.start <= place.start and place.stop <= table.stop for table in tables)


def test_a_file_in_many_pieces_is_followed_through_its_tree(tmp_path):
    """More extents than an inode holds, made by punching holes into a file that stood in one piece."""
    path = ext4_images.make(tmp_path / "disk", {"holes": random.Random(2).randbytes(400 * 4096)}, start=0)
    for at in range(1, 399, 2):
        ext4_images.debugfs_write(path, f"punch /holes {at} {at}")
    file_system = Ext4(ext4_images.reader(path), ByteRange(0, path.stat().st_size))
    pieces = file_system.ranges(find(file_system, "holes"))
    assert sum(piece.size for piece in pieces) == 201 * 4096
    raw = random.Random(2).randbytes(400 * 4096)
    read = ext4_images.reader(path)
    assert read(pieces[0].start, 4096) == raw[:4096]
    assert read(pieces[1].start, 4096) == raw[2 * 4096 : 3 * 4096]


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (56, "<H", 0x1234),  # magic
        (24, "<I", 7),  # block size
        (32, "<I", 0),  # blocks per group
        (40, "<I", 0),  # inodes per group
        (40, "<I", 1 << 30),
        (88, "<H", 64),  # inode size
        (88, "<H", 60_000),
        (254, "<H", 8),  # descriptor size
        (4, "<I", 0xFFFFFFFF),  # blocks
        (4, "<I", 0),
    ],
)
def test_a_superblock_that_cannot_be_is_refused(image, at, form, value):
    raw = bytearray(image.read_bytes())
    if at == 254:  # which counts where the 64bit feature is on
        raw[MIB + 1024 + 96] |= 0x80
    struct.pack_into(form, raw, MIB + 1024 + at, value)
    with pytest.raises(DocumentRefusedError):
        list(Ext4(lambda offset, size: bytes(raw[offset : offset + size]), ByteRange(MIB, len(raw))).inode_tables())


def test_a_partition_that_ends_early_is_refused(image):
    for size in (0, 100, 1500, 3 * 4096):
        with pytest.raises(DocumentRefusedError):
            Ext4(ext4_images.reader(image), ByteRange(MIB, MIB + size))


def test_an_extent_tree_that_leads_in_circles_ends(image):
    raw = bytearray(image.read_bytes())
    file_system = opened(image)
    inode = find(file_system, "usr/lib/libc.so.6")
    place = file_system.inode_place(inode.number)
    block = file_system.ranges(inode)[0].start
    number = (block - MIB) // file_system.block_size
    entries = (file_system.block_size - 12) // 12
    # at every depth, all entries lead to the block where the same tree stands again, one level less deep
    struct.pack_into("<HHHHI", raw, place.start + 40, 0xF30A, 4, 4, 1, 0)
    for at in range(4):
        struct.pack_into("<IIHH", raw, place.start + 52 + 12 * at, 0, number, 0, 0)
    struct.pack_into("<HHHHI", raw, block, 0xF30A, entries, entries, 0, 0)
    for at in range(entries):
        struct.pack_into("<IHHI", raw, block + 12 + 12 * at, 0, 1, 0, number)
    damaged = Ext4(lambda offset, size: bytes(raw[offset : offset + size]), ByteRange(MIB, len(raw)), max_steps=500)
    with pytest.raises(DocumentRefusedError, match="too long"):
        for _ in range(3):
            damaged.ranges(damaged.inode(inode.number))


def test_a_tree_that_is_its_own_child_ends(image):
    raw = bytearray(image.read_bytes())
    file_system = opened(image)
    inode = find(file_system, "usr/lib/libc.so.6")
    place = file_system.inode_place(inode.number)
    block = file_system.ranges(inode)[0].start
    number = (block - MIB) // file_system.block_size
    struct.pack_into("<HHHHI", raw, place.start + 40, 0xF30A, 1, 4, 5, 0)
    struct.pack_into("<IIHH", raw, place.start + 52, 0, number, 0, 0)
    struct.pack_into("<HHHHI", raw, block, 0xF30A, 1, 4, 5, 0)
    struct.pack_into("<IIHH", raw, block + 12, 0, number, 0, 0)
    damaged = Ext4(lambda offset, size: bytes(raw[offset : offset + size]), ByteRange(MIB, len(raw)))
    with pytest.raises(DocumentRefusedError, match="cannot be"):
        damaged.ranges(damaged.inode(inode.number))


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(data=st.data())
def test_whatever_is_damaged_is_read_or_refused_in_bounded_time(image, data):
    raw = bytearray(image.read_bytes())
    file_system = opened(image)
    tables = [ByteRange(MIB + 1024, MIB + 2048), file_system.descriptors, *file_system.inode_tables()]
    tables += file_system.ranges(find(file_system, "many"))[:1]
    for _ in range(data.draw(st.integers(1, 8))):
        table = data.draw(st.sampled_from(tables))
        at = data.draw(st.integers(table.start, table.stop - 4))
        raw[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    try:
        damaged = Ext4(
            lambda offset, size: bytes(raw[offset : offset + size]), ByteRange(MIB, len(raw)), max_steps=5000
        )
        for name in ("etc", "many", "usr"):
            directory = find(damaged, name)
            for number in list(damaged.entries(directory).values())[:20]:
                for piece in damaged.ranges(damaged.inode(number)):
                    assert MIB <= piece.start < piece.stop <= len(raw)
    except (DocumentRefusedError, KeyError):
        pass


def test_a_file_system_of_more_groups_than_anybody_has_is_refused_before_they_are_read():
    """Zeros cost a publisher nothing: a petabyte of empty groups must not cost its readers memory."""
    superblock = bytearray(1024)
    struct.pack_into("<I", superblock, 0, 1 << 20)
    struct.pack_into("<I", superblock, 4, (MAX_GROUPS + 1) * 8)
    struct.pack_into("<I", superblock, 20, 1)
    struct.pack_into("<II", superblock, 32, 8, 0)
    struct.pack_into("<I", superblock, 40, 8)
    struct.pack_into("<HH", superblock, 56, 0xEF53, 1)
    struct.pack_into("<H", superblock, 88, 256)
    asked = []

    def read(offset, size):
        asked.append(size)
        return bytes(superblock) if offset == 1024 else bytes(size)

    with pytest.raises(DocumentRefusedError, match="cannot be"):
        Ext4(read, ByteRange(0, 1 << 50)).groups()
    assert asked == [1024]
    struct.pack_into("<I", superblock, 4, MAX_GROUPS * 8)
    assert len(Ext4(read, ByteRange(0, 1 << 50)).groups()) == MAX_GROUPS
