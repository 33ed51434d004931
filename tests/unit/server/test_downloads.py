"""Disks as files: raw and qcow2, whole and by range, from the table alone; judged by QEMU's own tools."""

import random
import shutil
import subprocess

import pytest

from oscirc_blockstore.digests import block_digest, block_path
from oscirc_blockstore.disk_files import CLUSTER, Qcow2File
from oscirc_blockstore.image_index import Yank
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_server.services.downloads import Turns

from .server_world import BLOCK, block
from .test_app import is_problem

PATH = "/api/v1/images/alice/debian/versions/1.0"
CONTENTS = [None, block("a"), None, None, block("b"), block("a"), *[None] * 40, block("c"), None]
DISK = b"".join(each or bytes(BLOCK) for each in CONTENTS)


@pytest.fixture
def published(api, alice):
    disk = alice.build("debian", CONTENTS)
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    return disk


def qemu_img(*arguments):
    return subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_the_raw_disk_is_the_disk(http, published):
    answer = http.get(f"{PATH}/disk.raw")
    assert (answer.status_code, answer.content == DISK) == (200, True)
    assert answer.headers["content-length"] == str(len(DISK))
    assert answer.headers["content-disposition"] == 'attachment; filename="debian-1.0.raw"'


def test_the_qcow2_is_sound_and_holds_the_disk_without_its_zeros(http, published, tmp_path):
    answer = http.get(f"{PATH}/disk.qcow2")
    assert answer.status_code == 200
    made, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    made.write_bytes(answer.content)
    raw.write_bytes(DISK)
    assert "No errors were found" in qemu_img("check", made)
    assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", made, raw)
    assert len(answer.content) == (6 + 4) * CLUSTER - CLUSTER  # header, refcounts, L1, L2: five; data: four
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_any_range_is_that_part_of_the_file(http, published, form):
    path = f"{PATH}/disk.{form}"
    whole = http.get(path)
    size, content = len(whole.content), whole.content
    picker = random.Random(7)
    ranges = [(0, 0), (size - 1, size - 1), (0, size - 1), (CLUSTER - 1, CLUSTER)]
    ranges += [tuple(sorted(picker.sample(range(size), 2))) for _ in range(25)]
    for first, last in ranges:
        answer = http.get(path, headers={"Range": f"bytes={first}-{last}"})
        assert answer.content == content[first : last + 1], (first, last)
        assert answer.status_code == (200 if (first, last) == (0, size - 1) else 206)
        if answer.status_code == 206:
            assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_download_is_resumed_only_where_it_is_the_same_file(http, published, form):
    path = f"{PATH}/disk.{form}"
    tag = http.get(path, headers={"Range": "bytes=0-9"}).headers["etag"]
    resumed = http.get(path, headers={"Range": "bytes=10-19", "If-Range": tag})
    assert (resumed.status_code, len(resumed.content)) == (206, 10)
    assert http.get(path, headers={"Range": "bytes=10-19", "If-Range": '"other"'}).status_code == 200
    assert http.get(path, headers={"If-None-Match": tag}).status_code == 304
    head = http.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)
    assert int(head.headers["content-length"]) > 0
    is_problem(http.get(path, headers={"Range": f"bytes={1 << 40}-"}), 416)


def test_what_was_withdrawn_for_security_is_served_only_to_whom_it_matters(http, api, alice, published):
    index = alice.indexes["debian"].with_yank("1.0", Yank("a hole", "2027-01-16T08:00:00Z", security=True))
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    assert is_problem(http.get(f"{PATH}/disk.raw"), 403)["type"] == "WithdrawnError"
    assert http.get(f"{PATH}/disk.raw?allow_revoked=true").status_code == 200


def test_a_block_that_is_damaged_ends_the_download(http, world, published):
    place = world.tree / block_path(block_digest(block("c")))
    place.unlink()
    place.write_bytes(b"nonsense")
    answer = http.get(f"{PATH}/disk.raw", headers={"Range": "bytes=0-99"})
    assert answer.content == bytes(100)
    whole = http.get(f"{PATH}/disk.raw")  # a real server closes the connection: fewer bytes than were promised
    assert len(whole.content) < int(whole.headers["content-length"])
    assert DISK.startswith(whole.content)


def test_so_many_at_a_time(installation, http, published):
    turns = Turns(1)
    give_back = turns.take()
    with pytest.raises(Exception, match="too many disks"):
        turns.take()
    give_back()
    turns.take()
    for _ in range(20):
        assert http.get(f"{PATH}/disk.raw", headers={"Range": "bytes=0-9"}).status_code == 206


@pytest.mark.parametrize("block_size", [1 << 16, 1 << 18, 1 << 20])
def test_layouts_of_every_block_size_are_sound(tmp_path, block_size):
    """A sparse disk over several L2 tables whose last block ends in its midst, written out sparsely."""
    disk_size = (1 << 30) + (1 << 29) + 3 * CLUSTER + 512
    geometry = Geometry(disk_size, block_size)
    nodes, blocks = {}, {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    last = geometry.block_count - 1
    for position in sorted({0, 1, 511, 512, 513, last // 2, last - 1, last} & set(range(last + 1))):
        raw = block(str(position), block_size)
        if position == last:
            kept = disk_size - last * block_size
            raw = raw[:kept] + bytes(block_size - kept)
        blocks[block_digest(raw)] = (position, raw)
        builder.add(position, block_digest(raw))
    root = builder.finish()
    layout = Qcow2File(geometry, root, nodes.__getitem__)
    made, raw_file = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    with made.open("wb") as file:
        for piece in layout.pieces(nodes.__getitem__, 0, layout.size):
            file.write(piece if isinstance(piece, bytes) else blocks[piece.digest][1][piece.start : piece.stop])
    with raw_file.open("wb") as file:
        for position, raw in blocks.values():
            file.seek(position * block_size)
            file.write(raw)
        file.truncate(disk_size)
    assert made.stat().st_size == layout.size
    assert "No errors were found" in qemu_img("check", made)
    assert "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", made, raw_file)


def test_a_disk_of_zeros_is_a_header(tmp_path):
    geometry = Geometry(64 << 40, 1 << 16)
    root = TableBuilder(geometry, lambda _digest, _node: None).finish()
    layout = Qcow2File(geometry, root, {}.__getitem__)
    made = tmp_path / "disk.qcow2"
    made.write_bytes(b"".join(layout.pieces({}.__getitem__, 0, layout.size)))
    assert "No errors were found" in qemu_img("check", made)
    assert layout.size < 2 << 20
    assert shutil.which("qemu-img")
