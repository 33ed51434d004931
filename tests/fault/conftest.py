"""A small repository that several tests share: one publisher, one image of 64 incompressible blocks."""

import hashlib
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

BLOCK = 65536


def content(salt: str, blocks: int = 64) -> bytes:
    """Blocks that cannot be compressed, the same for the same salt."""
    return b"".join(
        b"".join(hashlib.sha256(f"{salt}:{i}:{j}".encode()).digest() for j in range(BLOCK // 32)) for i in range(blocks)
    )


class Published:
    """A repository with `alice/tiny@1` in it, not running; `disk` is what was published."""

    def __init__(self, base: Path) -> None:
        self.publisher = Workstation(base / "publisher")
        self.repository = initialise(self.publisher, base / "repository")
        self.disk = content("one")
        (base / "disk.raw").write_bytes(self.disk)
        with serving(self.publisher, self.repository):
            add_publisher(self.publisher, self.repository, "alice")
            self.publisher.run(
                "publish", base / "disk.raw", "test:alice/tiny@1", "--key", "alice", "--block-size", BLOCK
            )

    @property
    def pin(self) -> str:
        return self.repository.url.partition("#")[2]


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return Published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def reader(published, tmp_path):
    """A workstation with nothing; what it leaves mounted is unmounted."""
    station = Workstation(tmp_path / "reader")
    yield station
    for mount in station.json("status")["mounts"]:
        station.attempt("umount", mount["mountpoint"])
