"""Repositories that several tests share: one of 64 incompressible blocks, and one whose boot is 16 MB in one bundle."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile

BLOCK = 65536


def content(salt: str, blocks: int = 64) -> bytes:
    """Blocks that cannot be compressed, the same for the same salt."""
    return b"".join(
        b"".join(hashlib.sha256(f"{salt}:{i}:{j}".encode()).digest() for j in range(BLOCK // 32)) for i in range(blocks)
    )


class Published:
    """A repository with `alice/tiny@1` in it, not running; `disk` is what was published, `boot` what its profile names."""

    def __init__(self, base: Path, blocks: int = 64, boot: Sequence[int] = ()) -> None:
        self.publisher = Workstation(base / "publisher")
        self.repository = initialise(self.publisher, base / "repository")
        self.disk = content("one", blocks)
        self.boot = tuple(boot)
        options: list[object] = []
        if boot:
            (base / "boot.json").write_bytes(Profile(digest_of(b"any"), "boot", 1, self.boot).serialise())
            options = ["--profile", base / "boot.json"]
        (base / "disk.raw").write_bytes(self.disk)
        with serving(self.publisher, self.repository):
            add_publisher(self.publisher, self.repository, "alice")
            self.publisher.run(
                "publish", base / "disk.raw", "test:alice/tiny@1", "--key", "alice", "--block-size", BLOCK, *options
            )

    @property
    def bundle(self) -> tuple[str, int]:
        """Path and length of its bundle."""
        files = [file for file in (self.repository.tree / "accel").iterdir() if file.is_file()]
        (bundle,) = (file for file in files if file.read_bytes().startswith(b"OSCBNDL1"))
        return f"accel/{bundle.name}", bundle.stat().st_size

    @property
    def pin(self) -> str:
        return self.repository.url.partition("#")[2]


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return Published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """An image of 288 blocks of which a boot reads 256 (16 MiB), here and there."""
    positions = list(range(288))
    random.Random(5).shuffle(positions)
    return Published(tmp_path_factory.mktemp("recorded"), 288, positions[:256])


@pytest.fixture
def reader(tmp_path):
    """A workstation with nothing; what it leaves mounted is unmounted."""
    station = Workstation(tmp_path / "reader")
    yield station
    for mount in station.json("status")["mounts"]:
        station.attempt("umount", mount["mountpoint"])
