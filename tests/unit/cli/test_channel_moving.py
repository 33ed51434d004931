"""Which channel `publish` moves, and when, whatever moment it was interrupted in."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from oscirc.channel_moving import planned
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_publisher.publishing import PublishResult
from oscirc_publisher.releasing import Released

WANTED = SimpleNamespace(publisher="alice", image="debian", version="2")


class Repository:
    """What a signatory reads and signs, without keys and server."""

    def __init__(self):
        self.rest = SimpleNamespace(url="https://host/repo")
        self.index = ImageIndex("alice", "debian").with_version(version("1")).with_channel("stable", "1")

    def change(self, _image, merge):
        old, self.index = self.index, merge(self.index)
        return Released(1, self.index, changed=old != self.index)


def version(label):
    return ImageVersion(label, Digest(label.encode() * 32), "2026-11-25T12:00:00Z")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return Repository()


def begin(repository, channel="stable", *, named=False, is_last=True):
    return planned(repository, WANTED, repository.index, channel, named=named, is_last=is_last)


def release(repository, move):
    """What `publish_disk` does and says."""
    changed = all(known.label != "2" for known in repository.index.versions)
    if changed:
        repository.index = repository.index.with_version(version("2"))
        if move.with_release is not None:
            repository.index = repository.index.with_channel(move.with_release, "2")
    numbers = dict.fromkeys(
        [
            "role_version",
            "disk_size",
            "block_size",
            "data_blocks",
            "read_bytes",
            "blocks",
            "new_blocks",
            "nodes",
            "new_nodes",
            "uploaded_bytes",
        ],
        0,
    )
    channels = [name for name, at in repository.index.channels.items() if at == "2"]
    return PublishResult(
        publisher="alice",
        image="debian",
        version="2",
        manifest=Digest(b"2" * 32),
        changed=changed,
        channels=channels,
        seconds=0.0,
        **numbers,
    )


def run(repository, channel="stable", **options):
    move = begin(repository, channel, **options)
    return move.finish(repository, release(repository, move))


@pytest.mark.parametrize("is_last", [True, False])
def test_a_new_version_gets_its_channel(repository, is_last):
    assert list(run(repository, is_last=is_last).channels) == ["stable"]
    assert repository.index.channels == {"stable": "2"}


@pytest.mark.parametrize("is_last", [True, False])
def test_who_was_interrupted_just_before_the_channel_moved_gets_it_moved(repository, is_last):
    """On the rerun everything else is there: nothing is uploaded, made or changed."""
    release(repository, begin(repository))
    assert repository.index.channels == {"stable": "1"}
    assert list(run(repository, is_last=is_last).channels) == ["stable"]
    assert repository.index.channels == {"stable": "2"}


def test_once_it_was_moved_a_rerun_does_not_undo_that_it_was_moved_back(repository, capsys):
    run(repository)
    repository.index = repository.index.with_channel("stable", "1")
    assert not run(repository).channels
    assert repository.index.channels == {"stable": "1"}
    assert "oscirc channel set alice/debian@2 stable" in capsys.readouterr().err


def test_a_version_that_was_published_without_a_channel_stays_without(repository):
    run(repository, None)
    run(repository)
    assert repository.index.channels == {"stable": "1"}


def test_no_channel_on_the_rerun_takes_the_intent_back(repository):
    release(repository, begin(repository))
    run(repository, None)
    run(repository)
    assert repository.index.channels == {"stable": "1"}


def test_a_channel_that_somebody_moved_meanwhile_stays_there(repository, capsys):
    """While this one was uploading its packs another one released the next version."""
    move = begin(repository, named=True)
    result = release(repository, move)
    repository.index = repository.index.with_version(version("3")).with_channel("stable", "3")
    assert not move.finish(repository, result).channels
    assert repository.index.channels == {"stable": "3"}
    assert "was moved to 3" in capsys.readouterr().err
    run(repository)
    assert repository.index.channels == {"stable": "3"}  # and later, too


def test_a_channel_that_the_user_names_is_moved_for_a_version_that_was_released_before(repository):
    run(repository)
    repository.index = repository.index.with_channel("stable", "1")
    run(repository, named=True)
    assert repository.index.channels == {"stable": "2"}


def test_another_channels_intent_moves_nothing(repository):
    release(repository, begin(repository, "testing", named=True))
    run(repository)
    assert repository.index.channels == {"stable": "1"}
    run(repository, "testing", named=True)
    assert repository.index.channels == {"stable": "1", "testing": "2"}


def test_a_channel_that_is_new_is_made(repository):
    repository.index = replace(repository.index, channels={})
    run(repository)
    assert repository.index.channels == {"stable": "2"}
