"""Two versions of file systems that mke2fs made and debugfs changed: what is told is what was done to them."""

import os
import random
import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ext4_images

from oscirc_blockstore import file_tree
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE, Ext4
from oscirc_blockstore.file_tree import FileTree, compare

FILES = {
    "etc/hostname": b"here\n",
    "usr/lib/large": random.Random(1).randbytes(300_000),
    "usr/lib/other": random.Random(2).randbytes(50_000),
    "usr/bin/true": b"\x7fELF" + bytes(1000),
    **{f"many/file-{number:04}": b"%d" % number for number in range(700)},
}
FEATURES = [
    ("-b", "4096"),
    ("-b", "1024", "-O", "^64bit,^metadata_csum"),
    ("-b", "4096", "-I", "256", "-O", "inline_data"),
]


def links(folder):
    (folder / "etc" / "short").symlink_to("hostname")
    (folder / "etc" / "long").symlink_to("x" * 200)
    os.link(folder / "usr" / "lib" / "other", folder / "usr" / "lib" / "linked")
    (folder / "few" / "below").mkdir(parents=True)
    for name in ("a-name-of-some-length", "another-one-of-them", "the-third-of-these", "so-that-it-overflows"):
        (folder / "few" / name).write_bytes(b"x")


@pytest.fixture(scope="module", params=FEATURES, ids=["usual", "small", "inline"])
def image(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "disk"
    return ext4_images.make(path, FILES, options=request.param, also=links)


@pytest.fixture
def changed(image, tmp_path):
    """A copy, and a function that changes it with debugfs."""
    copy = tmp_path / "changed"
    shutil.copy(image, copy)

    def change(*commands):
        for command in commands:
            ext4_images.debugfs_write(copy, command)
        return tree_of(copy)

    return change


def opened(path):
    read = ext4_images.reader(path)
    layout = Ext4(read, ByteRange(0, path.stat().st_size), max_steps=file_tree.MAX_STEPS)
    return FileTree(layout, read)


def tree_of(path):
    return opened(path).walk()


def told(old, new):
    return {(change.kind, change.path) for change in compare(old, new)}


def test_every_file_is_found_with_its_kind_and_size(image):
    tree = tree_of(image)
    for name, raw in FILES.items():
        assert (tree[f"/{name}"].kind, tree[f"/{name}"].size) == ("file", len(raw))
    assert (tree["/etc/short"].kind, tree["/etc/long"].kind) == ("symlink", "symlink")
    assert tree["/usr/lib/linked"].inode == tree["/usr/lib/other"].inode
    assert tree["/few/below"].kind == "directory"
    folder = image.parent / "disk.files"
    expected = {f"/{path.relative_to(folder)}" for path in folder.rglob("*")}
    assert set(tree) == expected | {"/lost+found"}


def test_the_same_file_system_twice_differs_in_nothing(image):
    assert compare(tree_of(image), tree_of(image)) == []


def test_what_was_removed_added_and_overwritten_is_told_largest_first(image, changed, tmp_path):
    written = tmp_path / "new"
    written.write_bytes(random.Random(3).randbytes(200_000))
    new = changed(
        "rm /usr/lib/large", f"write {written} /usr/lib/fresh", "rm /etc/hostname", f"write {written} /etc/hostname"
    )
    found = compare(tree_of(image), new)
    assert [(change.kind, change.path, change.old_size, change.new_size) for change in found] == [
        ("removed", "/usr/lib/large", 300_000, 0),
        ("changed", "/etc/hostname", 5, 200_000),
        ("added", "/usr/lib/fresh", 0, 200_000),
    ]


def test_a_file_under_another_name_was_renamed(image, changed):
    new = changed("ln /usr/lib/large /many/moved", "unlink /usr/lib/large")
    (found,) = compare(tree_of(image), new)
    assert (found.kind, found.path, found.source, found.size) == ("renamed", "/many/moved", "/usr/lib/large", 300_000)


def test_another_name_for_a_file_is_added_without_the_first_being_changed(image, changed):
    assert told(tree_of(image), changed("ln /usr/lib/large /many/again")) == {("added", "/many/again")}


def test_a_file_written_anew_as_it_was_is_told_apart(image, changed, tmp_path):
    same = tmp_path / "same"
    same.write_bytes(FILES["usr/lib/large"])
    before = tree_of(image)
    changed("rm /usr/lib/large", f"write {same} /usr/lib/large")
    new = changed("sif /usr/lib/large mtime 20200101", "sif /usr/lib/large mtime_extra 0")
    assert told(before, new) <= {("changed", "/usr/lib/large")}
    old = changed("sif /usr/lib/large generation 77")
    assert told(new, old) == {("rewritten", "/usr/lib/large")}


def test_a_link_that_leads_elsewhere_and_a_mode_are_told(image, changed):
    new = changed("rm /etc/short", "symlink /etc/short elsewhere", "sif /usr/bin/true mode 0100700")
    assert told(tree_of(image), new) == {("changed", "/etc/short"), ("attributes", "/usr/bin/true")}


def test_a_directory_with_a_hashed_index_is_read_whole(image, changed):
    """700 names take several blocks; e2fsck makes the index that a kernel would have made."""
    import subprocess

    copy = image.parent / "hashed"
    shutil.copy(image, copy)
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(["e2fsck", "-fyD", copy], env=environment, capture_output=True, check=False)
    assert done.returncode in {0, 1}
    tree = tree_of(copy)
    assert sum(1 for path in tree if path.startswith("/many/")) == 700
    assert told(tree_of(image), tree) == set()
    assert told(tree, changed("rm /many/file-0500")) == {("removed", "/many/file-0500")}


def test_content_is_read_wherever_it_stands(image):
    tree = opened(image)
    for name in ("etc/hostname", "usr/lib/other", "usr/bin/true", "many/file-0007"):
        assert tree.content(tree.find(name), 1 << 20) == FILES[name]
    assert tree.find("etc/nothing") is None
    assert tree.find("etc/hostname/below") is None
    assert tree.content(tree.find("etc/short"), 100) is None
    with pytest.raises(DocumentRefusedError, match="small one"):
        tree.content(tree.find("usr/lib/large"), 1000)


def test_directories_are_known_from_the_inode_tables_before_they_are_read(image):
    tree = opened(image)
    known = set(tree.directory_ranges())
    read = []
    tree.walk(read.extend)
    assert set(read) <= known


def test_a_directory_that_is_its_own_child_is_gone_through_once(changed):
    tree = changed("ln /many /many/loop")
    assert tree["/many/loop"].kind == "directory"
    assert not any(path.startswith("/many/loop/") for path in tree)


def entry_in(path, name):
    """Where in the image the entry of that name begins."""
    raw = path.read_bytes()
    at = raw.index(name)
    return raw, at - 8


def test_inodes_that_there_are_not_are_refused(image, tmp_path):
    raw, at = entry_in(image, b"file-0001")
    damaged = tmp_path / "damaged"
    for number in (0xFFFFFFFF, 1 << 20):
        damaged.write_bytes(raw[:at] + struct.pack("<I", number) + raw[at + 4 :])
        with pytest.raises(DocumentRefusedError):
            tree_of(damaged)


@pytest.mark.parametrize(("limit", "value"), [("MAX_ENTRIES", 100), ("MAX_ALL_PATH_CHARS", 1000)])
def test_more_files_than_can_be_compared_are_refused(image, monkeypatch, limit, value):
    monkeypatch.setattr(file_tree, limit, value)
    with pytest.raises(DocumentRefusedError, match="more files"):
        tree_of(image)


def test_paths_longer_than_any_program_opens_end(image, monkeypatch):
    monkeypatch.setattr(file_tree, "MAX_PATH_CHARS", 4)
    assert "/usr/lib" in tree_of(image)
    assert "/usr/lib/large" not in tree_of(image)


def test_directories_in_more_pieces_than_can_be_kept_are_refused(image, monkeypatch):
    monkeypatch.setattr(file_tree, "MAX_PIECES", 3)
    with pytest.raises(DocumentRefusedError, match="too many pieces"):
        list(opened(image).directory_ranges())


def test_a_file_system_as_ext3_keeps_it_is_refused_and_not_taken_for_empty(tmp_path):
    path = ext4_images.make(tmp_path / "disk", FILES, options=("-b", "4096", "-O", "^extents,^64bit"))
    tree = opened(path)
    for look in (tree.walk, lambda: tree.find("etc/hostname"), lambda: list(tree.directory_ranges())):
        with pytest.raises(DocumentRefusedError, match="ext3"):
            look()


def test_it_takes_a_bounded_number_of_steps(image):
    read = ext4_images.reader(image)
    tree = FileTree(Ext4(read, ByteRange(0, image.stat().st_size), max_steps=500), read)
    with pytest.raises(DocumentRefusedError, match="too long"):
        tree.walk()
    with pytest.raises(DocumentRefusedError, match="too long"):
        FileTree(Ext4(read, ByteRange(0, image.stat().st_size), max_steps=5), read).find("usr/lib/large")


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(data=st.data())
def test_whatever_is_damaged_is_read_or_refused(image, data):
    raw = bytearray(image.read_bytes())
    layout = Ext4(ext4_images.reader(image), ByteRange(0, len(raw)))
    places = [ByteRange(1024, 2048), layout.descriptors, layout.inode_place(ROOT_INODE), *layout.inode_tables()]
    places += list(opened(image).directory_ranges())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.sampled_from(places))
        at = data.draw(st.integers(place.start, place.stop - 4))
        raw[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))

    def read(offset, size):
        return bytes(raw[offset : offset + size])

    try:
        tree = FileTree(Ext4(read, ByteRange(0, len(raw)), max_steps=20_000), read)
        compare(tree.walk(), {})
        list(tree.directory_ranges())
        found = tree.find("etc/hostname")
        if found is not None:
            tree.content(found, 1 << 20)
    except DocumentRefusedError:
        pass


def test_a_large_table_of_inodes_is_read_in_pieces(tmp_path):
    """How large it is the file system says, up to gigabytes for a group."""
    options = ("-b", "4096", "-N", "20000", "-O", "^metadata_csum,^uninit_bg")
    path = ext4_images.make(tmp_path / "disk", {"etc/hostname": b"here\n"}, options=options)
    sizes, read = [], ext4_images.reader(path)

    def counted(offset, size):
        sizes.append(size)
        return read(offset, size)

    layout = Ext4(counted, ByteRange(0, path.stat().st_size))
    assert sum(table.size for table in layout.inode_tables()) > 4 << 20
    tree = FileTree(layout, counted)
    assert len(list(tree.directory_ranges())) >= 3
    assert max(sizes) <= 1 << 20
