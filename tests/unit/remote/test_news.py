"""News of a version: what the index says, which receipts hear of it, and that to ask is not to resolve."""

from dataclasses import replace

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotFoundError, UnreachableError, WithdrawnError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_remote import news
from oscirc_remote.deadlines import Deadline
from oscirc_remote.news import News

YANK = Yank("it eats files", "2026-03-02T00:00:00Z")


def version(label, **changes):
    return ImageVersion(label, digest_of(label.encode()), "2026-03-01T00:00:00Z", **changes)


ONE, TWO = version("1"), version("2")
INDEX = ImageIndex("alice", "debian", (ONE, TWO), {"stable": "2", "old": "1"})


def test_what_the_channel_means_now_is_newer_than_anything_else():
    assert news.judge(INDEX, ONE.manifest, "stable") == News("1", None, TWO)
    assert news.judge(INDEX, TWO.manifest, "stable") == News("2", None, None)


def test_a_channel_that_was_moved_back_is_behind():
    assert news.judge(INDEX, TWO.manifest, "old") == News("2", None, ONE, is_behind=True)


def test_who_follows_no_channel_or_one_that_is_gone_hears_of_yanks_only():
    index = INDEX.with_yank("1", YANK)
    for channel in ("", "gone"):
        assert news.judge(index, ONE.manifest, channel) == News("1", YANK, None)


def test_a_disk_that_the_index_does_not_have_is_compared_all_the_same():
    assert news.judge(INDEX, digest_of(b"other"), "stable") == News("", None, TWO)


def test_a_deleted_version_is_known_by_its_disk():
    index = INDEX.with_channel("old", "2").without_versions(["1"], date="2026-03-03T00:00:00Z")
    assert news.judge(index, ONE.manifest, "stable") == News("1", None, TWO, deleted=index.deleted[0])


def ask(world):
    remote = world.remotes.load("home")
    return news.ask(remote, "alice", "debian", Deadline.after(10), open_documents=world.open)


def test_to_ask_moves_no_channel_but_tells_the_receipts_of_yanks(world):
    first = world.resolver().resolve("alice/debian")
    world.repository.publish("alice", "debian", "2", b"new".ljust(512))
    index = world.repository.indexes["alice/debian.json"]
    world.repository.put_index(index.with_yank("1", replace(YANK, security=True)))
    assert ask(world).channel("stable").label == "2"
    assert news.kept(world.remotes.load("home"), "alice", "debian").channel("stable").label == "2"
    with pytest.raises(WithdrawnError, match="eats files"):
        world.resolver().resolve("alice/debian", offline=True)
    allowed = world.resolver().resolve("alice/debian", offline=True, allow_revoked=True)
    assert allowed.manifest_digest == first.manifest_digest


def test_an_image_that_is_gone_is_withdrawn_and_one_that_cannot_be_asked_for_is_not(world):
    world.home.down = world.mirror.down = True
    with pytest.raises(UnreachableError):
        ask(world)
    assert news.kept(world.remotes.load("home"), "alice", "debian") is None
    world.home.down = False
    remote = world.remotes.load("home")
    with pytest.raises(NotFoundError, match="alice/gone"):  # a name that was never here is a typing error
        news.ask(remote, "alice", "gone", Deadline.after(10), open_documents=world.open)
    place = remote.directory / "indexes" / "alice" / "gone.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(replace(INDEX, image="gone").serialise())
    with pytest.raises(WithdrawnError, match="alice/gone"):
        news.ask(remote, "alice", "gone", Deadline.after(10), open_documents=world.open)


def test_a_kept_index_that_is_damaged_is_none(world):
    ask(world)
    remote = world.remotes.load("home")
    (remote.directory / "indexes" / "alice" / "debian.json").write_bytes(b"{}")
    assert news.kept(remote, "alice", "debian") is None
