"""Every peer comes to version 2 of a small disk, and what it moves is counted by what its publisher keeps."""

import random
import shutil

import pytest
import update_peers
from staging import static_files
from update_pairs import BLOCK, DiskPair

PROGRAMS = ("casync", "zsyncmake", "zsync", "xdelta3", "zstd", "nginx", "curl")
missing = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f"not installed: {', '.join(missing)} (make bench-update does it)"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """2 MiB of noise and a hole, and the same with 64 KiB changed and the noise moved by a page."""
    place = tmp_path_factory.mktemp("pair")
    chance = random.Random(4)
    noise, change = chance.randbytes(8 * BLOCK), chance.randbytes(64 << 10)
    old, new = place / "old.raw", place / "new.raw"
    old.write_bytes(noise + bytes(4 * BLOCK))
    new.write_bytes(
        bytes(4096) + noise[: 5 * BLOCK] + change + noise[5 * BLOCK + len(change) : -4096] + bytes(4 * BLOCK)
    )
    return DiskPair("small", "a small disk", old, new, place / "packages")


@pytest.mark.parametrize("peer", update_peers.peers(), ids=lambda peer: peer.name)
def test_a_peer_comes_to_version_2_for_less_than_the_disk(peer, pair, tmp_path):
    files, work = tmp_path / "files", tmp_path / "work"
    files.mkdir()
    work.mkdir()
    with static_files(tmp_path, files, tmp_path / "nginx") as port:
        place = update_peers.Place(files, f"http://127.0.0.1:{port}/files", work)
        made = peer.make(pair, place)
        peer.prepare(pair, place)
        assert not peer.is_right(pair, place)
        peer.update(pair, place)
        assert peer.is_right(pair, place)
    least, most = (7 * BLOCK, 13 * BLOCK) if peer.name in {"download", "zsync"} else (64 << 10, 4 * BLOCK)
    assert least < made.kept_bytes < most
