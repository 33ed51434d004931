"""Real mounts of scripted readers. Whatever a test does, its drivers are ended and its mounts taken away."""

import os
import random
from pathlib import Path

import pytest

from oscirc_blockstore.errors import OscircError
from oscirc_fusedriver import kernel, mountpoints
from oscirc_fusedriver.records import MountRecord

from .fuse_world import Drivers, Mounted

MIB = 1024 * 1024


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.fuse)


@pytest.fixture(scope="session", autouse=True)
def _can_mount():
    try:
        kernel.check_fuse()
    except OscircError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture
def drivers():
    running = Drivers()
    yield running
    running.end_all()


@pytest.fixture
def mountpoint(tmp_path):
    place = tmp_path / "mnt"
    place.mkdir()
    return place


@pytest.fixture(scope="session")
def disk_file(tmp_path_factory):
    """A sparse disk of an odd number of sectors: data, a hole, data to the last byte."""
    path = tmp_path_factory.mktemp("disk") / "source.raw"
    content = random.Random(7)
    with path.open("wb") as file:
        file.write(content.randbytes(3 * MIB + 100))
        file.seek(9 * MIB)
        file.write(content.randbytes(2 * MIB + 3 * 512))
    return path


@pytest.fixture
def mounted(drivers, mountpoint, disk_file):
    """Mounts the disk with this script; asserts that it becomes ready."""

    def mount_it(where: Path = mountpoint, **script) -> Mounted:
        if "size" not in script:
            script.setdefault("disk", str(disk_file))
        process = drivers.start(where, **script)
        said = drivers.said(process)
        assert "ready" in said, said
        return Mounted(process, MountRecord(**said["ready"]))

    return mount_it


@pytest.fixture
def refused(drivers, mountpoint, disk_file):
    """Mounts the disk with this script; asserts that it is refused and returns the failure. Nothing is left mounted."""

    def refuse(where: Path = mountpoint, **script) -> dict:
        process = drivers.start(where, **{"disk": str(disk_file), **script})
        said = drivers.said(process)
        assert "failure" in said, said
        assert process.wait(30) == said["failure"]["exit_code"]
        entry = mountpoints.entry_at(Path(os.path.realpath(where)))
        assert entry is None or entry.kind != mountpoints.KIND
        return said["failure"]

    return refuse
