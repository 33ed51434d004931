from oscirc_blockstore.errors import IntegrityError, NotServedError, ServerRefusedError, UnreachableError
from oscirc_remote.bundle_tries import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_IN_VAIN, REFUSALS, Tries

GONE, MISSING, LIE = UnreachableError("gone"), NotServedError("404"), IntegrityError("lie")
BUSY = ServerRefusedError("busy", status=503)


def fail(tries, *errors, brought=False, received=False):
    for number, error in enumerate(errors):
        tries.failed(f"mirror {number}", error, brought=brought, received=received)


def test_who_failed_is_skipped_until_the_next_round():
    tries = Tries()
    fail(tries, GONE, LIE)
    assert tries.skip == {"mirror 0", "mirror 1"}
    assert tries.next_round()
    assert tries.skip == set()


def test_a_network_that_is_gone_is_waited_for_with_growing_pauses():
    tries, pauses = Tries(), []
    for _ in range(3 * MOST_IN_VAIN):
        fail(tries, GONE)
        assert tries.next_round()
        pauses.append(tries.pause_s)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_what_no_mirror_has_or_all_lie_about_is_not_asked_for_again():
    tries = Tries()
    fail(tries, MISSING, LIE)
    assert not tries.next_round()


def test_whether_a_mirror_may_heal_does_not_depend_on_the_order():
    for order in ([GONE, MISSING], [MISSING, GONE]):
        tries = Tries()
        fail(tries, *order)
        assert tries.next_round()


def test_servers_that_refuse_are_left_after_some_rounds():
    tries, rounds = Tries(), 0
    fail(tries, BUSY)
    while tries.next_round():
        rounds += 1
        fail(tries, BUSY)
    assert rounds == REFUSALS


def test_bytes_that_never_make_a_block_are_not_asked_for_for_ever():
    tries, rounds = Tries(), 0
    fail(tries, GONE, received=True)
    while tries.next_round():
        rounds += 1
        fail(tries, GONE, received=True)
    assert rounds == MOST_IN_VAIN - 1


def test_a_block_that_came_begins_all_anew():
    tries = Tries()
    for _ in range(MOST_IN_VAIN):
        fail(tries, GONE, received=True)
    tries.failed("other", GONE, brought=True, received=True)
    assert tries.skip == {"other"}
    assert tries.next_round()
    assert tries.pause_s == FIRST_PAUSE_S
