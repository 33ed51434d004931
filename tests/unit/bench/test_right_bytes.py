"""What a disk, a cache and a server's log are judged by."""

import hashlib

import right_bytes
from right_bytes import Compared, Kept, Sent
from staging import BLOCK
from support.nginx import Asked

BUNDLE = "/accel/b0"


def part(start, stop, sent_bytes):
    return Asked(206, sent_bytes, f"bytes={start}-{stop - 1}", BUNDLE)


def test_a_disk_is_compared_to_its_last_byte(tmp_path):
    right, ours = tmp_path / "right", tmp_path / "ours"
    content = bytes([1]) * BLOCK + bytes(BLOCK) + bytes([2]) * 100
    right.write_bytes(content)
    ours.write_bytes(content)
    assert right_bytes.compare(ours, right) == Compared(2, 0)
    ours.write_bytes(content[:-1])
    assert right_bytes.compare(ours, right) == Compared(2, 1)
    ours.write_bytes(content[:BLOCK] + bytes([1]) + content[BLOCK + 1 :])
    assert right_bytes.compare(ours, right) == Compared(2, 1)


def test_a_disk_of_more_blocks_than_readers_is_compared_in_every_one(tmp_path):
    right, ours = tmp_path / "right", tmp_path / "ours"
    blocks = 3 * right_bytes.READERS + 1
    right.write_bytes(b"".join(bytes([1 + number]) * BLOCK for number in range(blocks)))
    ours.write_bytes(bytes(blocks * BLOCK))
    assert right_bytes.compare(ours, right) == Compared(blocks, blocks)
    ours.write_bytes(right.read_bytes())
    assert right_bytes.compare(ours, right) == Compared(blocks, 0)


def test_what_a_cache_keeps_is_hashed(tmp_path):
    for raw, name in ((b"one", b"one"), (b"two", b"two"), (b"three", b"four")):
        digest = hashlib.sha256(name).hexdigest()
        file = tmp_path / "oscirc" / "blocks" / digest[:2] / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw)
    assert right_bytes.check_cache(tmp_path) == Kept(3, 1)


def test_a_block_file_that_was_sent_twice_is_found():
    asked = [Asked(200, 9, "", f"/blocks/sha256/00/{name}.zst") for name in ("a", "b", "a")]
    asked.append(Asked(404, 9, "", "/blocks/sha256/00/b.zst"))
    assert right_bytes.sent(asked, BUNDLE) == Sent(2, 1, 0, 0)


def test_parts_of_the_bundle_side_by_side_are_no_repetition():
    asked = [part(100, 200, 100), Asked(200, 100, "", BUNDLE), Asked(200, 50, "", "/accel/other")]
    assert right_bytes.sent(asked, BUNDLE) == Sent(0, 0, 200, 0)


def test_bytes_of_the_bundle_that_were_sent_twice_are_counted():
    asked = [part(150, 300, 150), Asked(200, 200, "", BUNDLE), part(180, 190, 10)]
    assert right_bytes.sent(asked, BUNDLE) == Sent(0, 0, 360, 60)


def test_what_was_broken_off_counts_as_far_as_it_was_sent():
    asked = [part(0, 1000, 400), part(400, 1000, 600)]
    assert right_bytes.sent(asked, BUNDLE) == Sent(0, 0, 1000, 0)
