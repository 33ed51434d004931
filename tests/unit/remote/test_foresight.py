"""Plans made on real file systems, and on disks that want to make planning expensive."""

import random
import struct
import tracemalloc

import pytest
from support import ext4_images

from oscirc_blockstore.boot_paths import Place, expand, parse
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError, UnreachableError
from oscirc_blockstore.ext4 import Ext4
from oscirc_remote import foresight

BLOCK = 1 << 16
MIB = 1 << 20
READ = {
    "boot/vmlinuz-6.1.0-10-amd64": 3 * MIB,
    "boot/initrd.img-6.1.0-10-amd64": 4 * MIB,
    "usr/lib/systemd/systemd": MIB,
    "usr/lib/x86_64-linux-gnu/libc.so.6": 2 * MIB,
}
UNREAD = {"usr/share/doc/book": 3 * MIB, "home/me/film": 4 * MIB, "boot/vmlinuz-6.1.0-9-amd64": 3 * MIB}


class DiskBlocks:
    """`foresight.Blocks` over a file; counts."""

    block_size = BLOCK

    def __init__(self, path):
        self.raw = path.read_bytes()
        self.disk_size = len(self.raw)
        self.prepared = set()
        self.rounds = 0
        self.alone = []

    def fetch_all(self, positions):
        self.prepared.update(positions)
        self.rounds += 1

    def block(self, position):
        if position not in self.prepared:
            self.alone.append(position)
            self.prepared.add(position)
        return self.raw[position * BLOCK : (position + 1) * BLOCK]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    source = random.Random(3)
    files = {name: source.randbytes(size) for name, size in {**UNREAD, **READ}.items()}
    path = tmp_path_factory.mktemp("foresight") / "disk"
    start = MIB
    ext4_images.make(path, files, start=start, size=48 * MIB)
    raw = bytearray(path.read_bytes())
    raw[510:512], raw[450] = b"\x55\xaa", 0x83
    struct.pack_into("<II", raw, 454, start // 512, 48 * MIB // 512)
    path.write_bytes(raw)
    return path


def positions_of(path, *names):
    read = ext4_images.reader(path)
    file_system = Ext4(read, ByteRange(MIB, path.stat().st_size))
    places = expand(file_system, parse("\n".join(names)))
    return [at for place in places for at in range(place.range.start // BLOCK, (place.range.stop - 1) // BLOCK + 1)]


def test_the_files_that_boots_read_are_foreseen_in_order_and_no_others(system):
    blocks = DiskBlocks(system)
    plan = foresight.plan(blocks)
    looked_at, foreseen = plan.looked_at, plan.foreseen
    wanted = positions_of(system, *READ)
    assert set(wanted) <= {*looked_at, *foreseen}
    unread = set(positions_of(system, *UNREAD)) - set(wanted)
    assert len(unread.intersection(foreseen)) <= 2 * len(READ)  # where files share a block
    kernel = positions_of(system, "boot/vmlinuz-6.1.0-10-amd64")[1:-1]
    libc = positions_of(system, "usr/lib/x86_64-linux-gnu/libc.so.6")[1:-1]
    assert max(map(foreseen.index, kernel)) < min(map(foreseen.index, libc))


def test_what_only_some_systems_read_waits_for_the_sign_of_it(system, monkeypatch):
    text = "usr/lib/systemd/systemd\nusr/share/doc/book if home/me/film\n"
    patterns = [*parse(text), *parse("home/me/film")]
    monkeypatch.setattr(foresight, "_patterns", lambda: (patterns, {2: "home/me/film"}))
    plan = foresight.plan(DiskBlocks(system))
    (conditional,) = plan.conditional
    book, film = positions_of(system, "usr/share/doc/book"), positions_of(system, "home/me/film")
    assert set(book) <= {*conditional.positions, *plan.foreseen, *plan.looked_at}
    assert len(conditional.positions) >= len(book) - 2  # where files share a block
    assert not set(conditional.positions) & set(plan.foreseen)
    assert conditional.signs <= set(film)
    assert len(conditional.signs) >= len(film) - 2


def test_the_list_that_comes_with_it_names_programs_for_its_conditions():
    patterns, programs = foresight._patterns()
    named = {pattern.program for pattern in patterns if pattern.program}
    assert named == set(programs.values())
    assert len(patterns) > 500


def test_planning_asks_in_a_few_rounds_and_for_nothing_alone(system):
    """On a link with a long round trip every block that is asked for alone costs one."""
    blocks = DiskBlocks(system)
    foresight.plan(blocks)
    assert blocks.alone == []
    assert blocks.rounds < 20


def test_what_was_looked_at_is_little(system):
    plan = foresight.plan(DiskBlocks(system))
    looked_at, foreseen = plan.looked_at, plan.foreseen
    assert len(looked_at) < len(foreseen) / 2


def test_a_disk_without_a_file_system_that_is_known_gives_no_plan(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(random.Random(4).randbytes(MIB))
    plan = foresight.plan(DiskBlocks(path))
    assert (len(plan.looked_at), plan.foreseen, plan.conditional) == (1, (), ())


def test_an_empty_disk_gives_no_plan(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"")
    assert foresight.plan(DiskBlocks(path)) == foresight.Plan()


def test_looking_has_an_end(system, monkeypatch):
    monkeypatch.setattr(foresight, "MAX_LOOKED_AT_BYTES", 3 * BLOCK)
    blocks = DiskBlocks(system)
    assert foresight.plan(blocks).foreseen == ()
    assert len(blocks.prepared) <= 3


def test_a_plan_has_an_end(system, monkeypatch):
    monkeypatch.setattr(foresight, "MAX_POSITIONS", 5)
    assert len(foresight.plan(DiskBlocks(system)).foreseen) == 5


def test_a_file_system_of_huge_files_makes_no_huge_plan(system, monkeypatch):
    """As signed by somebody hostile: a handful of extents that cover terabytes."""
    blocks = DiskBlocks(system)
    blocks.disk_size = 1 << 44
    places = [Place(0, ByteRange(at << 30, (at + 1) << 30)) for at in range(2000)]
    monkeypatch.setattr(foresight, "_files", lambda _disk, _partition: places)
    tracemalloc.start()
    foreseen = foresight.plan(blocks).foreseen
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(foreseen) == foresight.MAX_POSITIONS
    assert peak < 32 << 20
    with pytest.raises(DocumentRefusedError):
        foresight.Disk(blocks).prepare([ByteRange(0, 1 << 44)])


def test_the_network_s_errors_are_the_caller_s(system):
    class Dead(DiskBlocks):
        def block(self, position):
            raise UnreachableError("nobody is there")

    with pytest.raises(UnreachableError):
        foresight.plan(Dead(system))
