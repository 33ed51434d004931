"""Directories, contents and inodes of file systems that mke2fs made."""

import pytest
from support import changed_images, ext4_images

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE
from oscirc_blockstore.ext4_files import MAX_CONTENT_BYTES, Ext4Files
from oscirc_blockstore.range_set import RangeSet

MIB = 1 << 20
FILES = {
    "etc/passwd": b"root:x:0:0\n",
    "etc/app/deep/er/file": b"x" * 5000,
    "large": b"y" * (MAX_CONTENT_BYTES + 1),
    **{f"many/file-{number:04}": b"%d" % number for number in range(700)},
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = ext4_images.make(tmp_path_factory.mktemp("ext4") / "disk", FILES, start=MIB)
    changed_images.edit(path, ["symlink /etc/link /etc/passwd"], start=MIB)
    return path


@pytest.fixture
def files(image):
    return Ext4Files(ext4_images.reader(image), ByteRange(MIB, image.stat().st_size))


def test_files_are_found_by_path_with_their_content(files):
    assert files.content(files.find("etc/passwd")) == FILES["etc/passwd"]
    assert files.content(files.find("etc/app/deep/er/file")) == FILES["etc/app/deep/er/file"]
    assert files.find("etc/nothing") is None
    assert files.find("etc/passwd/below") is None
    assert not files.needs_recovery


def test_a_directory_lists_names_with_their_kinds(files):
    root = {entry.name: entry for entry in files.directory(files.layout.inode(ROOT_INODE))}
    assert root["etc"].is_directory
    assert root["large"].is_regular
    etc = {entry.name: entry for entry in files.directory(files.find("etc"))}
    assert not etc["link"].is_regular
    assert not etc["link"].is_directory
    assert len(files.directory(files.find("many"))) == 700


def test_a_directory_knows_the_one_above_it(files):
    deep = files.find("etc/app/deep")
    assert files.parent(deep) == files.find("etc/app").number
    assert files.parent(files.layout.inode(ROOT_INODE)) == ROOT_INODE


def test_a_file_that_should_be_small_and_is_not_is_refused(files):
    with pytest.raises(DocumentRefusedError, match="small one was expected"):
        files.content(files.find("large"))


def test_the_inodes_of_a_place_are_those_that_stand_there_in_part(files):
    wanted = files.find("many/file-0300")
    place = files.layout.inode_place(wanted.number)
    for part in (ByteRange(place.start, place.start + 1), ByteRange(place.stop - 1, place.stop), place):
        assert [inode.number for inode in files.inodes_in(RangeSet([part]))] == [wanted.number]
    everything = {
        inode.number for inode in files.inodes_in(RangeSet([ByteRange(0, files.layout.descriptors.stop + 64 * MIB)]))
    }
    assert {files.find(name).number for name in FILES} <= everything


@pytest.mark.parametrize("features", ["inline_data", "^extents", "^filetype"])
def test_features_that_are_not_read_here_are_refused(tmp_path, features):
    path = ext4_images.make(tmp_path / "disk", {"a": b"b"}, options=("-b", "4096", "-O", f"^64bit,{features}"))
    with pytest.raises(DocumentRefusedError, match="features"):
        Ext4Files(ext4_images.reader(path), ByteRange(0, path.stat().st_size))


def test_a_journal_that_was_not_replayed_is_told(image, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(image.read_bytes())
    changed_images.edit(path, ["feature needs_recovery"], start=MIB)
    assert Ext4Files(ext4_images.reader(path), ByteRange(MIB, path.stat().st_size)).needs_recovery
