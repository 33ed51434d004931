"""Small changes to an ext4 file system that keep it sound, as bytes to put in place of others. Pure; writes nothing.

Only what touches one inode and no counter: a file becomes empty, or gets another length within its blocks. The
blocks stay its own, marked unwritten, so bitmaps, descriptors and the superblock stay as they are, and `e2fsck` has
nothing to correct. Also told is what no file owns: blocks that the bitmaps call free, and the journal's old content.

All of that holds only for a file system that was unmounted (`Ext4Files.needs_recovery`): else the journal would put
back what it holds.

Layout and checksums: the Linux kernel's documentation, Documentation/filesystems/ext4, and RFC 3720 for the CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from oscirc_blockstore.disk_source import ByteRange, aligned
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import Ext4, Inode
from oscirc_blockstore.partitions import Read
from oscirc_blockstore.range_set import RangeSet

_POLYNOMIAL = 0x82F63B78
_READ_ONLY_COMPATIBLE_AT, _INCOMPATIBLE_AT, _UUID_AT, _SEED_AT, _JOURNAL_INODE_AT = 100, 96, 104, 0x270, 0xE0
_METADATA_CHECKSUMS, _BIGALLOC, _SEED_GIVEN, _JOURNAL_DEVICE = 0x400, 0x200, 0x2000, 0x8
_COMPATIBLE_AT, _RESERVED_DESCRIPTOR_BLOCKS_AT, _BACKUP_GROUPS_AT = 92, 206, 0x24C
_SPARSE_SUPER, _SPARSE_SUPER_2 = 0x1, 0x200
_SIZE_LOW_AT, _EXTENTS_AT, _GENERATION_AT, _SIZE_HIGH_AT = 4, 40, 100, 108
_CHECKSUM_LOW_AT, _EXTRA_SIZE_AT, _CHECKSUM_HIGH_AT = 124, 128, 130
_MOST_UNWRITTEN = 32767
_UNWRITTEN = 32768
_JOURNAL_MAGIC = 0xC03B3998


def crc32c(seed: int, raw: bytes) -> int:
    """The CRC-32C of `raw` from `seed` on, without the final inversion, as ext4 keeps it."""
    for byte in raw:
        seed = _TABLE[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return tuple(found)


_TABLE = _table()


def emptied(layout: Ext4, number: int, raw: bytes) -> bytes | None:
    """The bytes of an inode whose file is empty; None where that takes more than the inode (its extents are a tree)."""
    changed = bytearray(raw)
    magic, count, _, depth = struct.unpack_from("<HHHH", raw, _EXTENTS_AT)
    if magic != 0xF30A or depth or count > 4:  # noqa: PLR2004  # as many as an inode has room for
        return None
    for at in range(_EXTENTS_AT + 12, _EXTENTS_AT + 12 + 12 * count, 12):
        (length,) = struct.unpack_from("<H", raw, at + 4)
        if length > _UNWRITTEN:
            continue
        if length > _MOST_UNWRITTEN:
            return None
        struct.pack_into("<H", changed, at + 4, length + _UNWRITTEN)
    return _resized(layout, number, changed, 0)


def resized(layout: Ext4, number: int, raw: bytes, size: int) -> bytes:
    """The bytes of an inode whose file is of this size, which must end in the same block as before."""
    low, high = struct.unpack_from("<I", raw, _SIZE_LOW_AT)[0], struct.unpack_from("<I", raw, _SIZE_HIGH_AT)[0]
    if -(-size // layout.block_size) != -(-(low | high << 32) // layout.block_size):
        raise DocumentRefusedError("a file cannot be given another number of blocks")
    return _resized(layout, number, bytearray(raw), size)


def _resized(layout: Ext4, number: int, inode: bytearray, size: int) -> bytes:
    struct.pack_into("<I", inode, _SIZE_LOW_AT, size & 0xFFFFFFFF)
    struct.pack_into("<I", inode, _SIZE_HIGH_AT, size >> 32)
    (features,) = struct.unpack_from("<I", layout.superblock, _READ_ONLY_COMPATIBLE_AT)
    if features & _METADATA_CHECKSUMS:
        _sum(layout, number, inode)
    return bytes(inode)


def _sum(layout: Ext4, number: int, inode: bytearray) -> None:
    """Puts the right checksum in: of the file system's seed, the inode's number and generation, and its bytes."""
    (incompatible,) = struct.unpack_from("<I", layout.superblock, _INCOMPATIBLE_AT)
    if incompatible & _SEED_GIVEN:
        (seed,) = struct.unpack_from("<I", layout.superblock, _SEED_AT)
    else:
        seed = crc32c(0xFFFFFFFF, layout.superblock[_UUID_AT : _UUID_AT + 16])
    seed = crc32c(crc32c(seed, struct.pack("<I", number)), bytes(inode[_GENERATION_AT : _GENERATION_AT + 4]))
    extra = struct.unpack_from("<H", inode, _EXTRA_SIZE_AT)[0] if len(inode) > _EXTRA_SIZE_AT else 0
    has_high = _EXTRA_SIZE_AT + extra >= _CHECKSUM_HIGH_AT + 2
    struct.pack_into("<H", inode, _CHECKSUM_LOW_AT, 0)
    if has_high:
        struct.pack_into("<H", inode, _CHECKSUM_HIGH_AT, 0)
    found = crc32c(seed, bytes(inode))
    struct.pack_into("<H", inode, _CHECKSUM_LOW_AT, found & 0xFFFF)
    if has_high:
        struct.pack_into("<H", inode, _CHECKSUM_HIGH_AT, found >> 16)


def free_places(layout: Ext4, read: Read, partition: ByteRange, among: RangeSet) -> Iterator[ByteRange]:
    """Blocks among these ranges that no file and no structure owns, ascending; absolute bytes. `read` as for `Ext4`."""
    (features,) = struct.unpack_from("<I", layout.superblock, _READ_ONLY_COMPATIBLE_AT)
    if features & _BIGALLOC:
        return  # a bit stands for a cluster there
    size = layout.block_size
    (first_block,) = struct.unpack_from("<I", layout.superblock, 20)
    (per_group,) = struct.unpack_from("<I", layout.superblock, 32)
    structures: RangeSet | None = None
    for number, group in enumerate(layout.groups()):
        start = partition.start + (first_block + number * per_group) * size
        place = ByteRange(start, max(start, min(start + per_group * size, partition.stop)))
        parts = list(among.within(place))
        if not parts:
            continue
        if group.is_uninitialised:  # e2fsck says so of a group that files were in, too, once they are gone
            structures = structures or _structures(layout, partition.start + first_block * size, per_group * size)
            bitmap = b""
        else:
            bitmap = read(group.block_bitmap, size)
        for part in parts:
            first, last = -(-(part.start - start) // size), (part.stop - start) // size
            for block in range(first, last):
                one = ByteRange(start + block * size, start + (block + 1) * size)
                if group.is_uninitialised and structures is not None:
                    is_free = not structures.touches(one)
                else:
                    is_free = not bitmap[block >> 3] >> (block & 7) & 1
                if is_free:
                    yield one


def _structures(layout: Ext4, first_group_at: int, group_bytes: int) -> RangeSet:
    """What a group holds of which no block was given to a file: bitmaps, inode tables, copies of the superblock."""
    size = layout.block_size
    (reserved,) = struct.unpack_from("<H", layout.superblock, _RESERVED_DESCRIPTOR_BLOCKS_AT)
    copy_bytes = (1 + -(-layout.descriptors.size // size) + reserved) * size
    found = []
    for number, group in enumerate(layout.groups()):
        found += [ByteRange(at, at + size) for at in (group.block_bitmap, group.inode_bitmap)]
        found.append(ByteRange(group.inode_table, group.inode_table + layout.inodes_per_group * layout.inode_size))
        if _has_copy(layout, number):
            start = first_group_at + number * group_bytes
            found.append(ByteRange(start, start + copy_bytes))
    found.sort(key=lambda place: place.start)
    return RangeSet(aligned(iter(found), 1, max(place.stop for place in found)))


def _has_copy(layout: Ext4, number: int) -> bool:
    """Whether a group begins with a copy of superblock and descriptors."""
    compatible, read_only = (
        struct.unpack_from("<I", layout.superblock, at)[0] for at in (_COMPATIBLE_AT, _READ_ONLY_COMPATIBLE_AT)
    )
    if compatible & _SPARSE_SUPER_2:
        return number in (0, *struct.unpack_from("<II", layout.superblock, _BACKUP_GROUPS_AT))
    if number < 2 or not read_only & _SPARSE_SUPER:  # noqa: PLR2004  # the first two
        return True
    for base in (3, 5, 7):
        power = base
        while power < number:
            power *= base
        if power == number:
            return True
    return False


def journal_places(layout: Ext4, read: Read) -> Iterator[ByteRange]:
    """Where the journal's old content stands: all of it but its own first block; refuses one that is not idle."""
    (number,) = struct.unpack_from("<I", layout.superblock, _JOURNAL_INODE_AT)
    (incompatible,) = struct.unpack_from("<I", layout.superblock, _INCOMPATIBLE_AT)
    if not number or incompatible & _JOURNAL_DEVICE:
        return
    inode: Inode = layout.inode(number)
    pieces = layout.ranges(inode)
    if not pieces:
        return
    magic, begins_at = struct.unpack(">I", read(pieces[0].start, 4))[0], read(pieces[0].start + 0x1C, 4)
    if magic != _JOURNAL_MAGIC or any(begins_at):
        raise DocumentRefusedError("the journal is not idle, or no journal")
    yield ByteRange(pieces[0].start + layout.block_size, pieces[0].stop)
    yield from pieces[1:]
