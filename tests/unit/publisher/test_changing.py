"""Saying what an image is: merged into what is said, signed once, kept by whoever releases meanwhile."""

from dataclasses import replace

import pytest

from oscirc_blockstore import image_index
from oscirc_blockstore.about import NOTHING_SAID, About
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_publisher import changing
from oscirc_publisher.publishing import publish

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes


def release(signatory, version, seed=1, **options):
    return publish(MemoryDisk(mixed_bytes(MIB, seed)), signatory, "debian", version, block_size=64 * KIB, **options)


def titled(title):
    return lambda said: replace(said, title=title)


def test_what_is_said_is_signed_into_the_index_and_said_again_changes_nothing(repository, signatory):
    release(signatory, "1")
    released = changing.describe(signatory, "debian", titled("Debian"))
    assert (released.changed, released.role_version) == (True, 2)
    assert repository.index("alice", "debian").about == About("Debian")
    again = changing.describe(signatory, "debian", titled("Debian"))
    assert (again.changed, again.role_version) == (False, 2)


def test_what_is_said_stays_when_a_version_is_released_withdrawn_or_a_channel_moves(repository, signatory):
    release(signatory, "1", say=titled("Debian"))
    release(signatory, "2", seed=2)
    changing.yank(signatory, "debian", "1", "old")
    changing.set_channel(signatory, "debian", "old", "1")
    assert repository.index("alice", "debian").about == About("Debian")
    changing.describe(signatory, "debian", lambda _said: NOTHING_SAID)
    assert repository.index("alice", "debian").about == NOTHING_SAID


def test_a_release_says_something_of_the_image_and_keeps_the_rest(repository, signatory):
    release(signatory, "1", say=lambda _said: About("Debian", "A system."))
    assert repository.publishers["alice"].role_version == 1  # with the release, not after it
    release(signatory, "2", seed=2, say=titled("Debian 12"))
    assert repository.index("alice", "debian").about == About("Debian 12", "A system.")


def test_publishing_a_released_disk_again_says_what_is_new_of_the_image(repository, signatory):
    release(signatory, "1")
    again = release(signatory, "1", say=titled("Debian"))
    assert (again.changed, again.role_version) == (False, 2)
    assert repository.index("alice", "debian").about == About("Debian")
    assert release(signatory, "1", say=titled("Debian")).role_version == 2


def test_what_nobody_could_read_is_not_signed(repository, signatory):
    release(signatory, "1")
    with pytest.raises(DocumentRefusedError):
        changing.describe(signatory, "debian", titled("\u202e"))
    assert repository.publishers["alice"].role_version == 1


def test_of_an_image_that_is_not_there_nothing_is_said(signatory):
    with pytest.raises(NotFoundError):
        changing.describe(signatory, "debian", titled("Debian"))


def test_an_index_that_lost_to_another_is_described_as_it_now_is(repository, signatory):
    """Somebody else's release comes between reading and signing: the sentence is made of what stands there then."""
    release(signatory, "1")
    seen = []

    def say(said):
        seen.append(said)
        if len(seen) == 1:
            changing.set_channel(signatory, "debian", "beta", "1")
        return replace(said, title="Debian")

    changing.describe(signatory, "debian", say)
    index = repository.index("alice", "debian")
    assert (index.about.title, index.channels) == ("Debian", {"stable": "1", "beta": "1"})
    assert image_index.parse(index.serialise(), "alice", "debian") == index
    assert len(seen) == 2
