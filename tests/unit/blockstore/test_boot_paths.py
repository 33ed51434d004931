"""Patterns, and the files that they name on real file systems."""

import pytest
from support import ext4_images

from oscirc_blockstore import boot_paths
from oscirc_blockstore.boot_paths import WHOLE, Pattern
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE, Ext4

FILES = {
    "boot/vmlinuz-6.1.0-9-amd64": b"k" * 30_000,
    "boot/vmlinuz-6.1.0-10-amd64": b"K" * 40_000,
    "usr/lib/x86_64-linux-gnu/libc.so.6": b"c" * 200_000,
    "usr/lib/x86_64-linux-gnu/libm.so.6": b"m" * 100_000,
    "usr/lib/systemd/systemd": b"s" * 50_000,
    "usr/lib/systemd/system/a.service": b"a",
    "usr/lib/systemd/system/b.service": b"b",
    "usr/share/doc/readme": b"r" * 10_000,
}


def opened(path):
    return Ext4(ext4_images.reader(path), ByteRange(0, path.stat().st_size))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return opened(ext4_images.make(tmp_path_factory.mktemp("boot") / "disk", FILES))


def named(file_system, text):
    """The paths of the files to which the expanded ranges belong, in order, with the bytes of each."""
    owners = {}
    pending = [("", ROOT_INODE)]
    while pending:
        path, number = pending.pop()
        inode = file_system.inode(number)
        if inode.is_directory:
            pending += [(f"{path}/{name}".strip("/"), child) for name, child in file_system.entries(inode).items()]
        else:
            owners.update({piece.start: path for piece in file_system.ranges(inode)})
    places = boot_paths.expand(file_system, boot_paths.parse(text))
    return [(owners[place.range.start], place.range.size) for place in places]


def test_a_list_is_read_with_its_words_and_comments():
    assert boot_paths.parse("# nothing\n/a/b*.so 12K # why\n\nboot/vmlinuz-* newest\n") == [
        Pattern(("a", "b*.so"), 12 * 1024),
        Pattern(("boot", "vmlinuz-*"), WHOLE, newest=True),
    ]


def test_a_condition_is_the_path_of_a_program():
    assert boot_paths.parse("a/b 4K if /usr/sbin/ldconfig") == [Pattern(("a", "b"), 4096, program="usr/sbin/ldconfig")]


def test_a_word_that_nobody_knows_is_refused_with_its_line():
    with pytest.raises(DocumentRefusedError, match="line 2"):
        boot_paths.parse("a\nb soon\n")


def test_files_come_in_the_order_of_the_patterns(system):
    text = "usr/lib/systemd/systemd\nusr/lib/*-linux-gnu*/libc.so.*\nboot/vmlinuz-6.1.0-9-amd64\n"
    assert [path for path, _ in named(system, text)] == [
        "usr/lib/systemd/systemd",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "boot/vmlinuz-6.1.0-9-amd64",
    ]


def test_the_newest_is_the_last_by_its_numbers_not_its_letters(system):
    assert named(system, "boot/vmlinuz-* newest") == [("boot/vmlinuz-6.1.0-10-amd64", 40_000)]


def test_of_a_file_no_more_than_its_head_is_taken(system):
    assert named(system, "usr/lib/*/libc.so.* 64K") == [("usr/lib/x86_64-linux-gnu/libc.so.6", 65_536)]


def test_a_file_that_several_patterns_name_comes_once_where_the_first_has_it(system):
    text = "usr/lib/systemd/systemd\nusr/lib/systemd/*\n"
    assert [path for path, _ in named(system, text)] == ["usr/lib/systemd/systemd"]


def test_patterns_that_name_nothing_give_nothing(system):
    assert named(system, "opt/*/x\nusr/none\nboot/vmlinuz-6.1.0-9-amd64/below\n") == []


def test_a_file_system_that_is_mounted_on_boot_is_known_by_what_it_lacks(tmp_path):
    files = {"vmlinuz-6.1.0-10-amd64": b"K" * 40_000, "grub/grub.cfg": b"g" * 5_000}
    system = opened(ext4_images.make(tmp_path / "disk", files))
    assert [path for path, _ in named(system, "boot/grub/grub.cfg\nboot/vmlinuz-* newest\nusr/lib/x\n")] == [
        "grub/grub.cfg",
        "vmlinuz-6.1.0-10-amd64",
    ]


def test_what_will_be_read_is_said_before_it_is_read(tmp_path):
    path = ext4_images.make(tmp_path / "disk", FILES)
    raw, prepared, unprepared = path.read_bytes(), [], []

    def read(offset, size):
        if not any(piece.start <= offset and offset + size <= piece.stop for piece in prepared):
            unprepared.append((offset, size))
        return raw[offset : offset + size]

    system = Ext4(read, ByteRange(0, len(raw)))
    prepared += [system.descriptors]
    system.groups()
    unprepared.clear()
    text = "usr/lib/*-linux-gnu*/libc.so.*\nboot/vmlinuz-* newest"
    assert len(boot_paths.expand(system, boot_paths.parse(text), prepared.extend)) == 2
    assert unprepared == []


def test_a_directory_entry_that_leads_nowhere_ends_only_itself(tmp_path):
    path = ext4_images.make(tmp_path / "disk", FILES)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"systemd\x00", raw.index(b"x86_64-linux-gnu"))
    system = opened(path)
    raw[at - 8 : at - 4] = (1 << 31).to_bytes(4, "little")
    damaged = Ext4(lambda offset, size: bytes(raw[offset : offset + size]), ByteRange(0, len(raw)))
    text = "usr/lib/systemd/systemd\nusr/lib/*-linux-gnu*/libc.so.*\n"
    assert len(boot_paths.expand(system, boot_paths.parse(text))) == 2
    assert len(boot_paths.expand(damaged, boot_paths.parse(text))) == 1


def test_names_with_numbers_of_other_scripts_are_ordered_like_words(tmp_path):
    files = {"usr/x": b"x", "boot/vmlinuz-1\u00b22": b"a" * 5000, f"boot/vmlinuz-{'9' * 200}": b"b" * 5000}
    system = opened(ext4_images.make(tmp_path / "disk", files))
    assert len(boot_paths.expand(system, boot_paths.parse("boot/vmlinuz-* newest"))) == 1
