"""What a boot tells of its instance's version, and when: never later than it would matter, never twice."""

import threading

import pytest

from oscirc.notices import Notice
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import UnreachableError, WithdrawnError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_remote import news, references
from oscirc_remote.remotes import Remotes

ONE = ImageVersion("1", digest_of(b"1"), "2026-03-01T00:00:00Z")
TWO = ImageVersion("2", digest_of(b"2"), "2026-03-02T00:00:00Z")
INDEX = ImageIndex("alice", "debian", (ONE, TWO), {"stable": "2"})


def yanked(*, security):
    return INDEX.with_yank("1", Yank("it eats files", "2026-03-02T00:00:00Z", security))


@pytest.fixture
def world(monkeypatch):
    """What the repository answers (None: nothing), and what is kept of it."""

    class World:
        asked: ImageIndex | None = INDEX
        kept: ImageIndex | None = None
        gone = False

    def ask(*_, **__):
        if World.gone:
            raise WithdrawnError("alice/debian was withdrawn")
        if World.asked is None:
            raise UnreachableError("no connection")
        return World.asked

    monkeypatch.setattr(Remotes, "load", lambda *_: None)
    monkeypatch.setattr(news, "ask", ask)
    monkeypatch.setattr(news, "kept", lambda *_: World.kept)
    return World


def notice(reference="home:alice/debian#stable", **changes):
    facts = {"allow_revoked": False, "tells_of_newer": True, "until": 0.0, "digest": ONE.manifest}
    return Notice(name="web", reference=references.parse(reference), **(facts | changes))


def told(one, known=()):
    one.look()
    one.check(known)
    lines = []
    one.tell(lines.append)
    return lines


def test_a_newer_version_is_one_line_that_says_what_to_do(world):
    one = notice()
    (line,) = told(one)
    assert "#stable means 2 now" in line
    assert "oscirc update web" in line
    assert one.newer == "2"


def test_nothing_is_told_of_newer_versions_to_who_is_pinned_or_does_not_want_it(world):
    assert told(notice("home:alice/debian@1")) == []
    assert told(notice(tells_of_newer=False)) == []
    assert told(notice(digest=TWO.manifest)) == []


@pytest.mark.parametrize("online", [True, False])
def test_a_yank_warns_and_one_for_security_refuses_also_from_what_is_kept(world, online):
    for security in (False, True):
        world.asked, world.kept = (yanked(security=security), None) if online else (None, yanked(security=security))
        one = notice("home:alice/debian@1", tells_of_newer=False)
        if security:
            with pytest.raises(WithdrawnError, match="it eats files"):
                told(one)
            allowed = notice("home:alice/debian@1", allow_revoked=True)
            assert "it eats files" in told(allowed)[0]
        else:
            assert "it eats files" in told(one)[0]


def test_what_was_warned_of_already_is_not_told_again(world):
    world.asked = yanked(security=False)
    (line,) = told(notice("home:alice/debian@1"))
    assert told(notice("home:alice/debian@1"), known=(line.removeprefix("warning: "),)) == []


def test_an_image_that_is_gone_is_refused_unless_it_is_allowed(world):
    world.gone = True
    with pytest.raises(WithdrawnError):
        told(notice())
    assert "withdrawn" in told(notice(allow_revoked=True))[0]


def test_a_security_yank_of_the_newer_version_is_no_reason_to_move(world):
    world.asked = INDEX.with_yank("2", Yank("a hole", "2026-03-02T00:00:00Z", security=True))
    assert told(notice()) == []


def test_who_cannot_be_asked_and_left_nothing_is_no_news(world):
    world.asked = None
    assert told(notice()) == []


def test_an_answer_that_comes_late_does_not_hold_up_the_boot_and_is_told_when_it_comes(world, monkeypatch):
    arrived = threading.Event()
    answer = yanked(security=True)
    monkeypatch.setattr(news, "ask", lambda *_, **__: arrived.wait(30) and answer)
    one = notice()
    thread = threading.Thread(target=one.look)
    thread.start()
    one.check(())  # its time is over: it waits for nothing
    lines = []
    one.tell(lines.append)
    assert lines == []
    arrived.set()
    thread.join(30)
    assert "the next boot of it is refused" in lines[0]
