from hypothesis import given
from hypothesis import strategies as st

from oscirc_remote import readahead
from oscirc_remote.readahead import GRACE, LONG_RUN, LONG_RUN_AHEAD, LONGEST, START, ReadAhead

COUNT = 10_000


def guesser(has_data=lambda _position: True):
    return ReadAhead(COUNT, has_data)


def test_a_new_place_asks_for_a_few_of_the_next():
    assert list(guesser().on_access(100, 100)) == [101, 102][:START]


def test_a_run_asks_for_more_the_longer_it_is_up_to_a_limit():
    ahead = guesser()
    furthest = [max([0, *ahead.on_access(position, position)]) - position for position in range(100, 300)]
    assert furthest[3] > furthest[0]
    assert max(furthest) == LONGEST


def test_nothing_is_asked_for_twice():
    ahead = guesser()
    asked = [guess for position in range(100, 200) for guess in ahead.on_access(position, position)]
    assert len(asked) == len(set(asked))


def test_zeros_and_what_is_here_are_passed_over():
    assert list(guesser(lambda position: position % 3 == 0).on_access(99, 99)) == [102, 105][:START]


def test_the_end_of_the_disk_is_the_end():
    assert list(guesser().on_access(COUNT - 2, COUNT - 1)) == []


def test_reads_here_and_there_are_soon_left_alone():
    ahead = guesser()
    guesses = [len(ahead.on_access(position, position)) for position in range(0, COUNT, 50)]
    assert sum(guesses) < GRACE + START + len(guesses) * ahead.waste_share + 1
    assert guesses[0] == START
    assert 0 in guesses[:40]


def test_hits_pay_for_waste():
    ahead = guesser()
    position = 5_000
    guesses = []
    while found := ahead.on_access(position, position):
        guesses += found
        position += 40
    assert any(ahead.on_access(guess, guess) for guess in guesses)


def test_a_long_run_goes_on_in_spite_of_waste():
    ahead = guesser()
    ahead.waste_share = -1000.0
    guesses = [len(ahead.on_access(position, position)) for position in range(100, 100 + LONG_RUN + 1)]
    assert guesses == [0] * LONG_RUN + [LONG_RUN_AHEAD]


def test_what_is_foreseen_starts_nothing_and_continues_runs():
    ahead = guesser()
    for position in range(100, 110):
        ahead.foresee(position)
    assert not ahead.on_access(105, 105)
    assert len(ahead.on_access(110, 110)) == min(2 * 10, LONGEST)


def test_a_read_that_did_not_wait_starts_no_run():
    ahead = guesser()
    assert not ahead.on_access(100, 100, waited=False)


def test_a_guess_that_had_arrived_continues_its_run():
    ahead = guesser()
    (first, *_) = ahead.on_access(100, 100)
    assert ahead.on_access(first, first, waited=False)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(readahead, "REMEMBERED", 50)
    ahead = ReadAhead(COUNT, lambda _position: True)
    for position in range(0, COUNT, 3):
        ahead.on_access(position, position)
    assert len(ahead._touched) <= 50
    assert len(ahead._guessed) <= 50


@given(st.lists(st.tuples(st.integers(0, 299), st.integers(0, 5), st.booleans()), max_size=200))
def test_guesses_are_data_beyond_the_read_and_never_repeat(reads):
    data = {position for position in range(300) if position % 7}
    ahead = ReadAhead(300, data.__contains__)
    asked, touched = set(), set()
    for first, more, waited in reads:
        last = min(299, first + more)
        guesses = list(ahead.on_access(first, last, waited=waited))
        touched.update(range(first, last + 1))
        assert all(guess > last and guess in data for guess in guesses)
        assert not asked.intersection(guesses)
        assert not touched.intersection(guesses)
        asked.update(guesses)
