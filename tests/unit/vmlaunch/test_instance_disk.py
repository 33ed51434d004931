"""An instance's disk: what is read from its overlay and what from its base; and when it is refused."""

import asyncio
import hashlib
import random
import shutil
import subprocess

import pytest

from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import ZERO_DIGEST, block_digest, digest_of
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import BusyError, DiskRefusedError, DocumentRefusedError, NotFoundError, UsageError
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_vmlaunch import instance_disk, overlays

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")

KIB, MIB, BLOCK = 1 << 10, 1 << 20, 256 << 10
SIZE = 8 * MIB


class MemoryBase:
    """A version in memory that counts what is read of it."""

    def __init__(self, raw):
        self.raw = raw
        self.held = {}
        geometry = Geometry(len(raw), BLOCK)
        builder = TableBuilder(geometry, self.held.__setitem__)
        blocks = 0
        for position in range(geometry.block_count):
            block = raw[position * BLOCK : (position + 1) * BLOCK].ljust(BLOCK, b"\0")
            digest = block_digest(block)
            blocks += digest != ZERO_DIGEST
            self.held[digest] = block
            builder.add(position, digest)
        self.manifest = Manifest("alice", "debian", geometry, builder.finish(), blocks, SystemFacts())
        self.read_ranges = []
        self.closed = False

    def load(self, digest, raw_size):
        return self.held[digest]

    def read(self, offset, size):
        self.read_ranges.append((offset, size))
        return self.raw[offset : offset + size]

    def close(self):
        self.closed = True


@pytest.fixture
def base():
    return MemoryBase(random.Random(1).randbytes(4 * MIB) + bytes(4 * MIB))


@pytest.fixture
def instance(instances, make_record, base, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(base.raw)
    made = instances.create(make_record(manifest_digest=digest_of(base.manifest.serialise()).hex()))
    asyncio.run(overlays.create(made.overlay, disk, manifest_digest=made.record.manifest_digest))
    disk.unlink()  # what follows needs no mount of the base
    return made


def write(instance, *commands):
    image = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{instance.overlay}"}}}}'
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-d", "unmap", *arguments, image], check=True, capture_output=True)


def test_what_was_written_is_over_the_base_and_the_base_is_read_for_the_rest_only(instance, base):
    write(instance, "write -P 7 1M 4k", "write -P 8 3M 256k", "write -z 512k 128k")
    with instance_disk.opened(instance, base) as disk:
        assert isinstance(disk, ChangedDisk)
        assert list(disk.changed()) == [
            ByteRange(512 * KIB, 640 * KIB),
            ByteRange(MIB, MIB + 4 * KIB),
            ByteRange(3 * MIB, 3 * MIB + 256 * KIB),
        ]
        assert disk.read(3 * MIB, BLOCK) == bytes([8]) * BLOCK
        assert base.read_ranges == []
        assert disk.read(MIB, BLOCK) == bytes([7]) * 4096 + base.raw[MIB + 4096 : MIB + BLOCK]
        assert base.read_ranges == [(MIB + 4096, BLOCK - 4096)]
        assert disk.read(512 * KIB, BLOCK) == bytes(128 * KIB) + base.raw[640 * KIB : 768 * KIB]
        assert disk.overlay_bytes_read == BLOCK + 4096
        assert disk.size == SIZE
    assert base.closed


def test_discarded_data_reads_as_zeros(instance, base):
    write(instance, "write -P 7 1M 1M", "discard 1M 512k")
    with instance_disk.opened(instance, base) as disk:
        assert disk.read(MIB, MIB) == bytes(512 * KIB) + bytes([7]) * (512 * KIB)


def test_what_the_overlay_says_is_zeros_is_known_without_reading(instance, base):
    write(instance, "write -P 7 1M 1M", "discard 1M 512k", "write -z 3M 256k")
    with instance_disk.opened(instance, base) as disk:
        assert disk.reads_as_zeros(MIB, 512 * KIB)
        assert disk.reads_as_zeros(3 * MIB, BLOCK)
        assert not disk.reads_as_zeros(MIB, MIB)  # data behind it
        assert not disk.reads_as_zeros(3 * MIB - 4096, BLOCK)  # the base before it
        assert not disk.reads_as_zeros(5 * MIB, BLOCK)  # the base holds zeros there; the overlay does not say so
        assert disk.held_bytes() == (512 * KIB, 512 * KIB + BLOCK)


def test_a_disk_that_was_trimmed_whole_costs_no_reading(instance, base):
    write(instance, f"write -z 4k {SIZE - 4096}")  # what a discard becomes where there is a disk below
    with instance_disk.opened(instance, base) as disk:
        assert list(disk.changed()) == [ByteRange(4096, SIZE)]
        assert disk.reads_as_zeros(4096, SIZE - 4096)
        assert disk.held_bytes() == (0, SIZE - 4096)


def test_its_extents_are_those_of_base_and_overlay_without_the_holes_of_both(instance, base):
    write(instance, "write -P 7 6M 4k")
    with instance_disk.opened(instance, base) as disk:
        assert list(disk.extents()) == [ByteRange(0, 4 * MIB), ByteRange(6 * MIB, 6 * MIB + BLOCK)]


def test_an_instance_that_is_held_is_refused_with_a_hint(instance, base):
    with instance.lock(), pytest.raises(BusyError, match="in use") as caught, instance_disk.opened(instance, base):
        pass
    assert "oscirc stop one" in caught.value.hint
    assert base.closed


def test_it_cannot_be_started_while_it_is_read(instance, base):
    with instance_disk.opened(instance, base), pytest.raises(BusyError), instance.lock():
        pass


@pytest.fixture
def writing_qemu(instance):
    """A QEMU that somebody started by hand on the overlay."""
    image = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{instance.overlay}"}}}}'
    process = subprocess.Popen(
        ["qemu-io", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    process.stdin.write(b"length\n")
    process.stdin.flush()
    process.stdout.readline()  # it has the image open
    yield process
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_an_overlay_that_another_qemu_writes_to_is_refused(instance, base, writing_qemu):
    with pytest.raises(BusyError, match="another QEMU"), instance_disk.opened(instance, base):
        pass


def test_no_qemu_can_begin_to_write_while_it_is_read(instance, base):
    image = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{instance.overlay}"}}}}'
    with instance_disk.opened(instance, base):
        refused = subprocess.run(["qemu-io", "-c", "write 0 512", image], check=False, capture_output=True, text=True)
        assert "lock" in refused.stderr
        allowed = subprocess.run(["qemu-io", "-r", "-c", "read 0 512", image], check=False, capture_output=True)
        assert allowed.returncode == 0


def test_another_base_than_the_record_names_is_refused(instance):
    other = MemoryBase(bytes(SIZE - 512) + b"x" * 512)
    with pytest.raises(UsageError, match="was made on version"), instance_disk.opened(instance, other):
        pass
    assert other.closed


def test_an_overlay_of_another_size_is_refused(instance, base):
    with instance.overlay.open("r+b") as file:
        file.seek(24)
        file.write((SIZE * 2).to_bytes(8))
    with pytest.raises(DocumentRefusedError, match="cannot be used"), instance_disk.opened(instance, base):
        pass


def test_a_damaged_map_is_refused_before_anything_is_read(instance, base):
    write(instance, "write -P 7 0 4M")
    with instance.overlay.open("r+b") as file:
        file.seek(48)
        (refcounts,) = (int.from_bytes(file.read(8)),)
        file.seek(refcounts)
        file.write(bytes(8))
    with pytest.raises(DocumentRefusedError, match="damaged"), instance_disk.opened(instance, base):
        pass
    assert base.read_ranges == []


def test_a_missing_overlay_is_not_found(instance, base):
    instance.overlay.unlink()
    with pytest.raises(NotFoundError), instance_disk.opened(instance, base):
        pass


def test_an_overlay_that_changes_although_it_is_locked_is_noticed(instance, base):
    with instance_disk.opened(instance, base) as disk:
        disk.check_unchanged()
        with instance.overlay.open("ab") as file:
            file.write(b"x")
        with pytest.raises(DiskRefusedError, match="changed while"):
            disk.check_unchanged()


def test_the_overlay_itself_is_left_as_it_was(instance, base):
    write(instance, "write -P 7 1M 300k")
    before = hashlib.sha256(instance.overlay.read_bytes()).digest()
    with instance_disk.opened(instance, base) as disk:
        for extent in disk.changed():
            disk.read(extent.start, extent.size)
    assert hashlib.sha256(instance.overlay.read_bytes()).digest() == before
