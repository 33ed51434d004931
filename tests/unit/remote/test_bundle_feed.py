import pytest

from oscirc_blockstore.errors import NotServedError, UnreachableError
from oscirc_remote.bundle_feed import BundleFeed, NobodyLeft

from .bundles import Image, Mirrors, ScriptedDownload, breaking_off, honest

IMAGE = Image()
NOBODY = frozenset()


def feed_of(early=None, **mirrors):
    made = Mirrors(**mirrors)
    return BundleFeed(IMAGE.accelerator, made, early), made


def test_bytes_are_cut_to_what_is_asked_for_and_none_is_lost():
    feed, _ = feed_of(one=honest(IMAGE.raw))
    feed.aim(10, 500, NOBODY)
    assert feed.take(3) + feed.read(1) + feed.take(400) == IMAGE.raw[10:414]
    assert feed.received_bytes == 490


def test_aiming_elsewhere_begins_anew_and_reports_what_was():
    feed, mirrors = feed_of(one=honest(IMAGE.raw))
    feed.aim(0, 500, NOBODY)
    feed.take(10)
    feed.aim(600, 700, NOBODY)
    assert feed.take(100) == IMAGE.raw[600:700]
    assert mirrors.reports == [("one", None, 500)]
    assert mirrors.opened == [("one", 0, 500), ("one", 600, 700)]


def test_it_knows_how_far_the_download_goes():
    feed, _ = feed_of(one=honest(IMAGE.raw))
    assert not feed.reaches(1)
    feed.aim(0, 500, NOBODY)
    assert feed.reaches(500)
    assert not feed.reaches(501)


def test_an_end_that_comes_too_soon_is_an_error():
    feed, _ = feed_of(one=breaking_off(IMAGE.raw, 100))
    feed.aim(0, 500, NOBODY)
    with pytest.raises(UnreachableError):
        feed.take(500)


def test_a_file_that_ends_too_soon_is_not_waited_for():
    for raw in (b"", IMAGE.raw[:100]):
        feed, _ = feed_of(one=honest(raw))
        feed.aim(0, 500, NOBODY)
        with pytest.raises(NotServedError):
            feed.take(500)


def test_an_early_download_goes_first():
    early = ScriptedDownload("hinted", IMAGE.raw, 0, len(IMAGE.raw))
    feed, mirrors = feed_of(early)
    assert (feed.is_open, feed.source) == (True, "hinted")
    assert feed.take(100) == IMAGE.raw[:100]
    feed.end(UnreachableError("broke off"))
    assert early.closed
    assert mirrors.blamed() == ["hinted"]


def test_when_all_are_skipped_nobody_is_left():
    feed, _ = feed_of(one=honest(IMAGE.raw))
    with pytest.raises(NobodyLeft):
        feed.aim(0, 10, frozenset({"one"}))
    with pytest.raises(UnreachableError):
        feed.read(1)


def test_once_closed_nothing_is_begun():
    feed, mirrors = feed_of(one=honest(IMAGE.raw))
    feed.close()
    feed.aim(0, 10, NOBODY)
    assert mirrors.opened == []
    with pytest.raises(UnreachableError):
        feed.read(1)
