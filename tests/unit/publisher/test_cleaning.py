"""Finding and cleaning, against file systems that mke2fs made, debugfs changed and e2fsck judges."""

import contextlib
import random
import shutil

import pytest
from support import changed_images, ext4_images

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DiskRefusedError
from oscirc_blockstore.ext4_files import Ext4Files
from oscirc_publisher.cleaning import clean
from oscirc_publisher.private_data import Remedy, look

MIB = 1 << 20
SIZE = 16 * MIB
START = MIB
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ" * 20 + b"\n"
PASSWD = b"root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/var/www:/usr/sbin/nologin\n"
SHADOW = b"root:$y$j9T$basebasebase:19000:0:99999:7:::\nwww:*:19000:0:99999:7:::\n"
BASE = {
    "etc/passwd": PASSWD,
    "etc/shadow": SHADOW,
    "etc/machine-id": b"uninitialized\n",
    "etc/ssh/ssh_host_rsa_key": KEY.replace(b"AAAA", b"BASE"),
    "etc/hostname": b"here\n",
    "var/log/dpkg.log": b"the base's own log\n" * 2000,
    "root/.bash_history": b"what the publisher typed\n",
    "usr/bin/tool": b"\x7fELF" + bytes(9000),
    **{f"usr/share/doc/{number}": b"text %d\n" % number for number in range(300)},
}
CHANGES = {
    "etc/passwd": PASSWD
    + b"alice:x:1000:1000::/home/alice:/bin/bash\nredis:x:106:106::/var/lib/redis:/usr/sbin/nologin\n",
    "etc/shadow": SHADOW.replace(b"basebasebase", b"mine")
    + b"alice:$y$j9T$alices:19001:0:99999:7:::\nredis:!:19001::::::\n",
    "etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": KEY,
    "etc/app/server.pem": b"a certificate\n" * 400 + KEY,
    "etc/hostname": b"there\n",
    "var/log/dpkg.log": b"the base's own log\n" * 2000 + b"SECRET-LOG\n" * 4000,
    "var/log/journal/0123/system.journal": b"SECRET-JOURNAL" * 30000,
    "home/alice/.bash_history": b"mysql -pSECRET-HISTORY\n",
    "home/alice/.aws/credentials": b"aws_secret_access_key = SECRET-AWS\n",
    "home/alice/notes.txt": b"to be published\n",
    "usr/share/doc/test.pem": KEY,
    "usr/local/key.pem": KEY,
    "srv/data": random.Random(1).randbytes(300_000),
}


FORMS = {
    "plain": ("-b", "4096"),
    "no checksums": ("-b", "4096", "-O", "^64bit,^metadata_csum"),
    "1k blocks": ("-b", "1024"),
    "given seed": ("-b", "4096", "-O", "metadata_csum_seed"),
}


def make_images(folder, form):
    """(base, changed): files with one ext4 at `START`, marked by an MBR."""
    base = ext4_images.make(folder / "base.raw", BASE, start=START, size=SIZE, options=FORMS[form])
    mark_partition(base)
    changed = folder / "changed.raw"
    shutil.copyfile(base, changed)
    changed_images.put(changed, {"tmp/gone": b"SECRET-DELETED" * 5000}, start=START)
    changed_images.edit(changed, ["rm /tmp/gone"], start=START)
    changed_images.put(changed, CHANGES, start=START)
    changed_images.check(changed.read_bytes(), folder, start=START, size=SIZE)
    return base, changed


@pytest.fixture(scope="module", params=FORMS)
def any_disk(request, tmp_path_factory):
    return changed_images.DiffDisk(*make_images(tmp_path_factory.mktemp("any"), request.param))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"), "plain")


@pytest.fixture(scope="module")
def disk(images):
    return changed_images.DiffDisk(*images)


def mark_partition(path):
    """An MBR with one partition at `START`."""
    entry = (
        bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (START // 512).to_bytes(4, "little") + (SIZE // 512).to_bytes(4, "little")
    )
    with path.open("r+b") as file:
        file.seek(446)
        file.write(entry.ljust(64, b"\0") + b"\x55\xaa")


def by_path(found):
    return {find.where: find for find in found}


def test_what_the_machine_gathered_is_found_and_what_the_base_had_is_not(any_disk):
    found = by_path(look(any_disk))
    assert set(found) == {
        "/etc/passwd",
        "/etc/shadow",
        "/etc/machine-id",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/app/server.pem",
        "/var/log/dpkg.log",
        "/var/log/journal/0123/system.journal",
        "/home/alice/.bash_history",
        "/home/alice/.aws/credentials",
        "/usr/local/key.pem",
    }
    assert found["/etc/machine-id"].kind == "machine identity"
    assert found["/etc/ssh/ssh_host_ed25519_key"].kind == "host key"
    assert found["/etc/app/server.pem"].words == "a private key is in it"
    assert found["/var/log/journal/0123/system.journal"].size == len(CHANGES["var/log/journal/0123/system.journal"])


def test_accounts_and_passwords_are_told_one_by_one(disk):
    words = [find.words for find in look(disk) if find.where in {"/etc/passwd", "/etc/shadow"}]
    assert words == ["the account alice was added", "the password of root was set", "the password of alice was set"]


def test_a_cleaned_disk_is_sound_and_holds_none_of_it(any_disk, tmp_path):
    cleaned = clean(any_disk, look(any_disk))
    raw = cleaned.read(0, any_disk.size)
    changed_images.check(raw, tmp_path, start=START, size=SIZE)
    for secret in (b"SECRET", b"alices", b"0123456789abcdef0123"):
        assert secret in any_disk.new
        assert secret not in raw
    assert raw.count(b"PRIVATE KEY-----\nb3Blbn") == 2  # the base's own host key, and what a package brought


def test_what_is_no_secret_stays_as_the_machine_has_it(disk, tmp_path):
    raw = clean(disk, look(disk)).read(0, disk.size)
    part = changed_images.check(raw, tmp_path, start=START, size=SIZE)
    assert changed_images.cat(part, "home/alice/notes.txt") == "to be published\n"
    assert changed_images.cat(part, "etc/hostname") == "there\n"
    assert changed_images.cat(part, "etc/machine-id") == ""
    assert changed_images.cat(part, "root/.bash_history") == "what the publisher typed\n"
    assert changed_images.cat(part, "etc/passwd").encode() == CHANGES["etc/passwd"]
    at = disk.new.index(CHANGES["srv/data"][:64])
    assert raw[at : at + 4096] == disk.new[at : at + 4096]


def test_passwords_become_those_of_the_base_and_new_accounts_are_locked(disk, tmp_path):
    raw = clean(disk, look(disk)).read(0, disk.size)
    part = changed_images.check(raw, tmp_path, start=START, size=SIZE)
    shadow = changed_images.cat(part, "etc/shadow").encode()
    assert shadow == SHADOW + b"alice:!:19001:0:99999:7:::\nredis:!:19001::::::\n"


def test_a_cleaned_disk_is_looked_at_again_and_only_what_stays_is_left(disk):
    again = look(clean(disk, look(disk)))
    assert [(find.where, find.remedy) for find in again] == [("/etc/passwd", Remedy.STAYS)]


def test_what_is_laid_over_the_disk_is_in_its_changes(disk):
    cleaned = clean(disk, look(disk))
    before = {at for extent in disk.changed() for at in range(extent.start, extent.stop, 512)}
    after = {at for extent in cleaned.changed() for at in range(extent.start // 512 * 512, extent.stop, 512)}
    raw = cleaned.read(0, disk.size)
    assert before <= after
    for at in range(0, disk.size, 512):
        if at not in after:
            assert raw[at : at + 512] == disk.old[at : at + 512]


def test_any_part_of_a_cleaned_disk_is_that_part_of_the_whole(disk):
    cleaned = clean(disk, look(disk))
    raw = cleaned.read(0, disk.size)
    dice = random.Random(2)
    for extent in list(cleaned.changed()):
        start = max(0, extent.start - dice.randrange(700))
        size = dice.randrange(1, 5000)
        assert cleaned.read(start, size) == raw[start : start + size]


def test_what_is_said_to_be_zeros_is_zeros(disk):
    cleaned = clean(disk, look(disk))
    said = 0
    for extent in cleaned.changed():
        for start in range(extent.start, extent.stop, 4096):
            size = min(4096, extent.stop - start)
            if cleaned.reads_as_zeros(start, size):
                said += 1
                assert not any(cleaned.read(start, size))
    assert said > 10


def test_the_instance_below_is_left_as_it_is(disk):
    before = bytes(disk.new)
    clean(disk, look(disk)).read(0, disk.size)
    assert disk.new == before


def remade(images, tmp_path, edit):
    path = tmp_path / "again.raw"
    shutil.copyfile(images[1], path)
    edit(path)
    return changed_images.DiffDisk(images[0], path)


def test_a_file_system_that_was_not_unmounted_is_told_and_not_cleaned(images, tmp_path):
    disk = remade(images, tmp_path, lambda path: changed_images.edit(path, ["feature needs_recovery"], start=START))
    found = look(disk)
    assert (found[0].kind, found[0].remedy) == ("not looked at", Remedy.NONE)
    assert "/etc/machine-id" in by_path(found)  # what can be seen is told all the same
    with pytest.raises(DiskRefusedError, match="not unmounted") as caught:
        clean(disk, found)
    assert "oscirc boot" in caught.value.hint


def test_a_changed_partition_that_cannot_be_looked_into_is_a_find(images, tmp_path):
    def other(path):
        with path.open("r+b") as file:
            file.seek(START + 1024)
            file.write(b"XFSB" * 256)

    found = look(remade(images, tmp_path, other))
    assert [(find.kind, find.where, find.remedy) for find in found] == [("not looked at", "partition 1", Remedy.NONE)]


def test_files_as_ext3_keeps_them_are_told_and_not_cleaned(images, tmp_path):
    """As in a file system that was ext3 once: new files have extents, old ones maps of blocks."""

    def older(path):
        for name in ("/etc/machine-id", "/srv/data"):
            changed_images.edit(path, [f"set_inode_field {name} flags 0"], start=START)

    found = look(remade(images, tmp_path, older))
    told = {find.where: find.remedy for find in found if find.remedy is Remedy.NONE}
    assert told.pop("/etc/machine-id") is Remedy.NONE
    assert [where.startswith("inode ") for where in told] == [True]
    with pytest.raises(DiskRefusedError, match="ext3"):
        clean(remade(images, tmp_path, older), found)


def test_swap_is_found_and_zeroed_but_for_its_first_page(images, tmp_path):
    def swap(path):
        with path.open("r+b") as file:
            file.seek(START)
            file.write(bytes(4086) + b"SWAPSPACE2" + b"SECRET-IN-MEMORY" * 10000)

    disk = remade(images, tmp_path, swap)
    found = look(disk)
    assert [find.kind for find in found] == ["memory of the machine"]
    raw = clean(disk, found).read(0, disk.size)
    assert raw[START : START + 4096] == disk.new[START : START + 4096]
    assert b"SECRET" not in raw


def test_a_little_change_of_a_fat_partition_is_told_and_stays(images, tmp_path):
    def fat(path):
        with path.open("r+b") as file:
            file.seek(START)
            file.write(bytes(82) + b"FAT32   " + bytes(4000))
        changed_images_size = path.stat().st_size
        raw = bytearray(images[0].read_bytes())
        raw[START : START + 4090] = path.read_bytes()[START : START + 4090]
        path.write_bytes(raw)
        assert path.stat().st_size == changed_images_size

    found = look(remade(images, tmp_path, fat))
    assert [(find.kind, find.remedy) for find in found] == [("boot files", Remedy.STAYS)]


def test_an_unchanged_partition_is_not_looked_at(images):
    assert look(changed_images.DiffDisk(images[0], images[0])) == []


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_a_find_or_a_refusal_never_a_crash(images, tmp_path, seed):
    dice = random.Random(seed)
    disk = changed_images.DiffDisk(*images)
    raw = bytearray(disk.new)
    pages = [at for at in disk.pages if START <= at < START + SIZE]
    for _ in range(200):
        at = dice.choice([dice.choice(pages) + dice.randrange(4096), START + 1024 + dice.randrange(1024)])
        raw[at] = dice.randrange(256)
    disk.new = bytes(raw)
    with contextlib.suppress(DiskRefusedError):
        clean(disk, look(disk)).read(0, disk.size)


def test_nothing_beyond_the_partition_is_laid_over(disk):
    partition = ByteRange(START, START + SIZE)
    assert all(
        partition.start <= extent.start and extent.stop <= partition.stop
        for extent in clean(disk, look(disk)).changed()
    )


def test_what_stands_where_a_file_has_room_and_wrote_nothing_yet_is_zeroed(images, tmp_path):
    """A journal that reserves its room is given the blocks of deleted files, and reads as zeros."""
    path = tmp_path / "again.raw"
    shutil.copyfile(images[1], path)
    empty = tmp_path / "empty"
    empty.touch()
    for name in ("/srv/reserved", "/var/log/reserved"):
        changed_images.edit(path, [f"write {empty} {name}", f"fallocate {name} 0 9"], start=START)
    files = Ext4Files(ext4_images.reader(path), ByteRange(START, START + SIZE))
    places = [
        place
        for name in ("srv/reserved", "var/log/reserved")
        for place in files.layout.ranges(files.find(name), unwritten=True)
    ]
    assert sum(place.size for place in places) == 2 * 10 * 4096
    with path.open("r+b") as file:
        for place in places:
            file.seek(place.start)
            file.write((b"SECRET-ONCE-DELETED" * 4096)[: place.size])
    disk = changed_images.DiffDisk(images[0], path)
    raw = clean(disk, look(disk)).read(0, disk.size)
    changed_images.check(raw, tmp_path, start=START, size=SIZE)
    assert b"SECRET-ONCE-DELETED" in disk.new
    assert b"SECRET" not in raw


def test_what_no_partition_holds_is_a_find_and_not_cleaned(images, tmp_path):
    """A partition that was deleted leaves its content where it was."""
    folder = [tmp_path / "base.raw", tmp_path / "changed.raw"]
    for source, path in zip(images, folder, strict=True):
        path.write_bytes(source.read_bytes() + bytes(3 * MIB))
    with folder[1].open("r+b") as file:
        file.seek(START + SIZE + MIB)
        file.write(b"SECRET" * 1000)
        file.seek(-512, 2)
        file.write(b"EFI PART")  # the copy of a partition table
        file.seek(512)
        file.write(b"a boot loader")
    disk = changed_images.DiffDisk(*folder)
    outside = [find for find in look(disk) if find.kind == "not looked at"]
    assert [(find.remedy, find.size) for find in outside] == [(Remedy.NONE, 8192)]
    with pytest.raises(DiskRefusedError, match="no partition"):
        clean(disk, outside)


def test_directories_that_are_nested_too_deep_are_told(images, tmp_path):
    deep = "/".join(["var/log", *("d" * 40), "SECRET.log"])
    disk = remade(images, tmp_path, lambda path: changed_images.put(path, {deep: b"SECRET"}, start=START))
    assert any("nested too deep" in find.words and find.remedy is Remedy.NONE for find in look(disk))


def test_swap_is_found_by_content_wherever_it_stands(images, tmp_path):
    swap = bytes(4086) + b"SWAPSPACE2" + b"SECRET-IN-MEMORY" * 5000
    disk = remade(images, tmp_path, lambda path: changed_images.put(path, {"srv/more-room": swap}, start=START))
    found = look(disk)
    assert by_path(found)["/srv/more-room"].kind == "memory of the machine"
    raw = clean(disk, found).read(0, disk.size)
    changed_images.check(raw, tmp_path, start=START, size=SIZE)
    assert b"SECRET" not in raw
    assert raw.count(b"SWAPSPACE2") == 1


def test_a_journal_that_is_in_use_is_not_cleaned_whatever_the_superblock_says(images, tmp_path):
    def busy(path):
        files = Ext4Files(ext4_images.reader(path), ByteRange(START, START + SIZE))
        at = files.layout.ranges(files.layout.inode(8))[0].start
        with path.open("r+b") as file:
            file.seek(at + 0x1C)
            file.write(b"\0\0\0\1")

    disk = remade(images, tmp_path, busy)
    with pytest.raises(DiskRefusedError, match="journal is not idle"):
        clean(disk, look(disk))
