"""What `publish instance:NAME` is told, and how finds are listed."""

import pytest

from oscirc.instance_publishing import Wish, listed, named
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import UsageError
from oscirc_publisher.private_data import Find, Remedy

NO_WISH = Wish()


def find(kind, where, words="", size=0):
    return Find(kind, where, words, size, Remedy.EMPTIED, ByteRange(0, 0))


def test_an_instance_is_named_by_its_prefix_and_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named("instance:web", NO_WISH, recorded=False) == "web"
    assert named("disk.raw", NO_WISH, recorded=False) is None
    (tmp_path / "instance:web").write_bytes(b"")
    assert named("instance:web", NO_WISH, recorded=False) is None


@pytest.mark.parametrize("wish", [Wish(clean=True), Wish(keep_secrets=True), Wish(dry_run=True)])
def test_wishes_about_instances_are_refused_for_disks(wish):
    with pytest.raises(UsageError, match="instance:NAME"):
        named("disk.raw", wish, recorded=False)


def test_wishes_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match="either"):
        named("instance:web", Wish(clean=True, keep_secrets=True), recorded=False)


def test_recording_is_for_disks():
    with pytest.raises(UsageError, match="--profile auto"):
        named("instance:web", NO_WISH, recorded=True)


def test_finds_are_listed_by_kind_the_first_few_by_name():
    found = [find("log", f"/var/log/{number}", size=512) for number in range(5)]
    found.insert(1, find("account", "/etc/passwd", "the account bob was added"))
    assert list(listed(found)) == [
        "log: /var/log/0, /var/log/1, /var/log/2 and 2 more, 2.5 KiB",
        "account: /etc/passwd (the account bob was added)",
    ]


def test_names_from_the_disk_bring_nothing_that_a_terminal_obeys():
    (line,) = listed([find("log", "/var/log/\x1b[2Jevil\n", "a\x07b")])
    assert "\x1b" not in line
    assert "\n" not in line
    assert "\x07" not in line
