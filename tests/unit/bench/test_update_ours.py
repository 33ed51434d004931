"""How a repository's growth is told by kind, and the lengths of a disk's block files."""

import hashlib
from pathlib import Path

import zstandard
from update_ours import NODE, Publication, Stored, frame_lengths, same
from update_pairs import BLOCK


def put(tree: Path, name: str, content: bytes) -> int:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return len(content)


def block_file(tree: Path, content: bytes) -> int:
    digest = hashlib.sha256(content).hexdigest()
    return put(tree, f"blocks/sha256/{digest[:2]}/{digest}.zst", zstandard.compress(content))


def test_growth_is_told_by_what_the_files_are(tmp_path):
    put(tmp_path, "metadata/1.root.json", b"root")
    block_file(tmp_path, b"a" * BLOCK)
    before = Stored.of(tmp_path)
    blocks = block_file(tmp_path, b"b" * BLOCK) + block_file(tmp_path, b"c" * BLOCK)
    table = block_file(tmp_path, b"d" * NODE)
    pack = put(tmp_path, "accel/" + "5" * 64, b"a pack")
    other = put(tmp_path, "accel/" + "5" * 64 + ".json", b"a listing") + put(tmp_path, "manifests/x.json", b"{}")
    grown = Stored.of(tmp_path, before).since(before)
    assert (grown.blocks, grown.block_bytes, grown.table_bytes) == (2, blocks, table)
    assert (grown.pack_bytes, grown.other_bytes) == (pack, other)


def test_nothing_new_is_no_growth(tmp_path):
    block_file(tmp_path, b"a" * BLOCK)
    before = Stored.of(tmp_path)
    assert Stored.of(tmp_path, before).since(before) == Stored()


def test_lengths_are_those_of_the_block_files_and_zeros_have_none(tmp_path):
    disk = tmp_path / "disk"
    content = [b"a" * BLOCK, bytes(BLOCK), b"b" * 100]
    disk.write_bytes(b"".join(content))
    first, last = block_file(tmp_path, content[0]), block_file(tmp_path, content[2].ljust(BLOCK, b"\0"))
    found = frame_lengths(tmp_path, disk)
    assert {position: length for position, (_, length) in found.items()} == {0: first, 2: last}


def test_a_version_without_a_pack_has_none(tmp_path):
    listing = '{"accelerators":[{"index_length":0,"kind":"profile","length":9,"name":"boot","sha256":"77"}]}'
    put(tmp_path, "tree/accel/aa.json", listing.encode())
    published = Publication(None, None, 0, tmp_path)
    published.repository = type("Repository", (), {"tree": tmp_path / "tree"})
    assert published.pack("aa") is None
    assert published.pack("bb") is None
    packed = listing.replace("profile", "delta").replace('"index_length":0', '"index_length":5')
    put(tmp_path, "tree/accel/aa.json", packed.encode())
    assert published.pack("aa") == (tmp_path / "tree" / "accel" / "77", 5)


def test_files_are_compared_with_their_holes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(10000) + b"x")
    with other.open("wb") as file:
        file.truncate(10000)
        file.seek(10000)
        file.write(b"x")
    assert same(one, other)
    other.write_bytes(bytes(10001))
    assert not same(one, other)
