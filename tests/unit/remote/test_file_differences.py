"""Looking into two versions: what has to be fetched for that is asked for first, whatever a file system claims."""

from types import SimpleNamespace

import pytest
from support import ext4_images

from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import file_differences
from oscirc_remote.file_differences import TooMuchToFetchError, VersionDisk
from tests.unit.blockstore.versions import BLOCK, Store

STATUS = b"Package: %s\nStatus: install ok installed\nVersion: %d\nArchitecture: amd64\n\n"
FILES = {
    "etc/os-release": b'PRETTY_NAME="A system"\n',
    "var/lib/dpkg/status": b"".join(STATUS % (b"p%d" % number, number) for number in range(3000)),
    **{f"etc/many-files-with-names-of-some-length-{number:05}": b"" for number in range(4000)},
}


class Source:
    """What is not here is fetched, and counted."""

    def __init__(self, store):
        self.store, self.fetched = store, set()

    def resident(self, digest, raw_size):
        return self.store.held[digest] if raw_size == NODE_SIZE or digest in self.fetched else None

    def has(self, digest):
        return digest in self.fetched

    def prefetch(self, digest, _raw_size, _deadline):
        self.fetched.add(digest)
        return SimpleNamespace(wait=lambda _: self.store.held[digest])


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    path = ext4_images.make(
        tmp_path_factory.mktemp("files") / "disk", FILES, options=("-b", "4096", "-O", "^has_journal")
    )
    raw, store = path.read_bytes(), Store()
    return store, store.version([raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)])


def opened(version):
    store, made = version
    resolved = SimpleNamespace(manifest=made.manifest)
    return VersionDisk(resolved, Source(store), lambda _digest: 1)


def test_directories_and_descriptors_are_asked_for_before_they_are_fetched(version):
    disk, asked = opened(version), []

    def allow(what, blocks):
        asked.append((what, blocks))
        return True

    found = file_differences.system_packages(disk, allow)
    assert (found.name, len(found.installed)) == ("A system", 3000)
    inodes_and_superblock = 4
    assert len(disk.source.fetched) <= sum(blocks for _, blocks in asked) + inodes_and_superblock
    assert sum(blocks for what, blocks in asked if "directories" in what) >= 4


def test_nothing_more_is_fetched_once_that_was_too_much(version):
    disk = opened(version)

    def allow(what, _blocks):
        return "directories" not in what

    for look in (file_differences.system_packages, file_differences.system_packages):
        with pytest.raises(TooMuchToFetchError, match="directories on the way"):
            look(disk, allow)
    assert len(disk.source.fetched) <= 4


def test_who_was_refused_once_may_be_asked_again(version):
    disk = opened(version)
    with pytest.raises(TooMuchToFetchError):
        file_differences.changed_files(disk, disk, lambda _what, _blocks: False)
    (found,) = file_differences.changed_files(disk, disk, lambda _what, _blocks: True)
    assert (found.number, found.changes) == (1, ())
    assert found.files > 4000
