"""The list of packages of a disk at hand: names and versions of what is installed, and nothing of other disks."""

import pytest
from support import ext4_images

from oscirc_publisher.installed_packages import installed

STATUS = b"Package: %s\nStatus: %s\nVersion: %s\nArchitecture: amd64\n\n"


class DiskOf:
    def __init__(self, raw):
        self.raw, self.size = raw, len(raw)

    def read(self, offset, size):
        assert offset >= 0
        assert offset + size <= self.size
        return self.raw[offset : offset + size]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    status = STATUS % (b"bash", b"install ok installed", b"5.2") + STATUS % (
        b"gone",
        b"deinstall ok config-files",
        b"1",
    )
    path = tmp_path_factory.mktemp("disk") / "disk"
    return ext4_images.make(path, {"var/lib/dpkg/status": status, "etc/shadow": b"root:x"}).read_bytes()


def test_what_dpkg_notes_as_installed_is_found(raw):
    assert installed(DiskOf(raw)) == {"bash": "5.2"}


def test_a_disk_without_a_note_says_nothing(tmp_path):
    empty = ext4_images.make(tmp_path / "empty", {"etc/hostname": b"x"}).read_bytes()
    assert installed(DiskOf(empty)) is None
    assert installed(DiskOf(bytes(1 << 20))) is None
    assert installed(DiskOf(b"\xff" * 4096)) is None


def test_a_file_system_that_is_cut_short_ends_in_none(raw):
    assert installed(DiskOf(raw[: 1 << 16])) is None
