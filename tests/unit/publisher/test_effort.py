"""Updates are compressed harder than first versions, as long as they are small."""

from oscirc_blockstore import frame
from oscirc_publisher.effort import UPDATE_LEVELS, Effort


def test_a_first_version_is_out_soon():
    effort = Effort()
    assert {effort.level(1 << 30) for _ in range(9)} == {frame.DEFAULT_LEVEL}


def test_what_an_update_adds_is_worth_more_the_less_it_is():
    effort = Effort(is_update=True)
    levels = [effort.level(64 << 20) for _ in range(80)]
    assert levels[:4] == [UPDATE_LEVELS[0][0]] * 4
    assert levels[4:64] == [UPDATE_LEVELS[1][0]] * 60
    assert set(levels[64:]) == {frame.DEFAULT_LEVEL}


def test_a_level_that_is_given_is_taken():
    assert Effort(7, is_update=True).level(1) == 7
