"""Removals of blocks that one process begins and another ends: nobody removes what has been uploaded again since.

The one that began has lost its lock without knowing, and wakes up late; the other has taken its rows up.
"""

from types import SimpleNamespace

import pytest
from sqlalchemy import select, update

from oscirc_blockstore.digests import block_path, digest_of
from oscirc_server.collection import removing
from oscirc_server.errors import SupersededError
from oscirc_server.models import BlockRow
from oscirc_server.repository import CLOCK_SLACK_S

from .server_world import block

UNAWARE = SimpleNamespace(confirm=lambda: None)
"""A lock that its holder believes to hold."""


@pytest.fixture
def deleting(installation, world, api, alice):
    """Blocks that a process begins to remove now: their digests, and the disk that they are of."""
    disk = alice.build("debian", [block("a"), block("b"), block("c")])
    api.stage(alice, "debian", "1", disk)
    digests = sorted(record.digest for record in disk.records)
    assert len(digests) == 4
    with installation.database.write() as session:
        session.execute(update(BlockRow).values(state="deleting", condemned_s=int(world.clock())))
    return digests, disk


def rows(installation):
    with installation.database.read() as session:
        return {row.digest: row.state for row in session.scalars(select(BlockRow))}


def stored(installation, digests):
    return [digest for digest in digests if installation.storage.size(block_path(digest)) is not None]


def meanwhile(monkeypatch, installation, happen):
    """Do something once, just before the first file is removed."""
    real, done = installation.storage.remove, []

    def remove(path):
        if not done:
            done.append(path)
            happen()
        real(path)

    monkeypatch.setattr(installation.storage, "remove", remove)
    monkeypatch.setattr(removing, "REMOVERS", 1)


def test_files_go_and_then_their_rows(installation, world, deleting):
    digests, _ = deleting
    removing.remove(installation, UNAWARE, digests, int(world.clock()), removing.now_s())
    assert (stored(installation, digests), rows(installation)) == ([], {})


def test_who_wakes_up_too_late_removes_nothing_more(installation, world, deleting, monkeypatch):
    digests, _ = deleting
    late = removing.now_s() + removing.REMOVE_WITHIN_S + 1
    meanwhile(
        monkeypatch,
        installation,
        lambda: monkeypatch.setattr(removing, "now_s", lambda: late),
    )
    begun = removing.now_s()
    with pytest.raises(SupersededError, match="too long"):
        removing.remove(installation, UNAWARE, digests, int(world.clock()), begun)
    assert stored(installation, digests) == digests[1:]
    assert rows(installation) == dict.fromkeys(digests[1:], "deleting")
    world.clock.advance(removing.FINISH_AFTER_S)
    assert removing.finish(installation, UNAWARE) == 3
    assert (stored(installation, digests), rows(installation)) == ([], {})


@pytest.mark.usefixtures("deleting")
def test_others_wait_before_they_go_on_with_it_where_a_lock_can_be_lost(installation, world):
    world.clock.advance(removing.FINISH_AFTER_S - 1)
    at_once = installation.database.is_sqlite  # its locks end with their holder only
    assert removing.finish(installation, UNAWARE) == (4 if at_once else 0)
    world.clock.advance(1)
    assert removing.finish(installation, UNAWARE) == (0 if at_once else 4)


def test_a_removal_that_a_wrong_clock_dated_is_taken_up_and_one_that_is_a_little_ahead_is_not(installation, world):
    ahead_s = int(world.clock()) + CLOCK_SLACK_S
    with installation.database.write() as session:
        wrong, right = block("wrong"), block("right")
        for raw, condemned_s in ((wrong, ahead_s + 1), (right, ahead_s)):
            session.add(
                BlockRow(
                    digest=digest_of(raw),
                    raw_size=len(raw),
                    stored_length=1,
                    state="deleting",
                    created_s=0,
                    condemned_s=condemned_s,
                )
            )
    assert removing.finish(installation, UNAWARE) == 1
    assert rows(installation) == {digest_of(right): "deleting"}


def test_who_wakes_up_while_another_goes_on_with_it_does_not_let_those_blocks_be_uploaded(
    installation, world, api, deleting, monkeypatch
):
    """Their files would be removed right afterwards."""
    digests, disk = deleting
    began_s = int(world.clock())
    world.clock.advance(removing.FINISH_AFTER_S)
    draft = api.draft("alice", "debian", "1")

    def wake_up():
        monkeypatch.undo()
        removing.remove(installation, UNAWARE, digests, began_s, removing.now_s())
        assert rows(installation) == dict.fromkeys(digests, "deleting")
        assert api.upload(draft, disk.records).status_code == 409

    with world.open() as other:
        meanwhile(monkeypatch, other, wake_up)
        assert removing.finish(other, UNAWARE) == 4
    assert rows(installation) == {}
    assert api.upload(draft, disk.records).status_code == 200
    assert stored(installation, digests) == digests
