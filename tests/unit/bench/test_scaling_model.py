"""The simulated fleet: what is asked for is what real block lists say, caches forget in order, a seed decides all."""

import numpy as np
import pytest
from scaling_model import COLD, DAY_S, UPDATE, ByteLru, Fleet, Version, events, parts, popularity, simulate


def digest(number):
    return number.to_bytes(2, "big") * 16


def version(numbers, boot, *, bundle=0, pack=0):
    return Version({digest(n): 100 + n for n in numbers}, frozenset(map(digest, boot)), bundle, pack)


CHAIN = (version(range(10), (0, 1, 2), bundle=250), version(range(1, 12), (1, 2, 10), bundle=260, pack=40))


def total(found, numbers):
    return sum(found.sizes[number] for number in numbers), sum(found.counts[number] for number in numbers)


def test_without_accelerators_parts_add_up_to_the_frames_that_are_asked_for():
    found = parts(CHAIN, accelerated=False, used_share=1.0)
    assert total(found, found.cold[0]) == (sum(100 + n for n in range(10)), 10)
    assert total(found, found.cold[1]) == (sum(100 + n for n in range(1, 12)), 11)
    assert total(found, found.update[1]) == (110 + 111, 2)
    assert found.update[0] == ()
    assert set(found.cold[0]) & set(found.cold[1])  # what both versions have is the same part


def test_with_accelerators_a_boot_asks_for_a_bundle_and_an_update_for_a_pack():
    found = parts(CHAIN, accelerated=True, used_share=0.0)
    assert total(found, found.cold[0]) == (250, 1)
    assert total(found, found.cold[1]) == (260, 1)
    assert total(found, found.update[1]) == (40, 1)
    assert not set(found.cold[0]) & set(found.cold[1])


def test_a_share_of_the_rest_is_read_after_a_cold_boot():
    some = parts(CHAIN, accelerated=True, used_share=5 / 65_536)
    assert total(some, some.cold[0]) == (250 + 103 + 104, 3)  # of digests 3 to 9 those below 5


def test_a_cache_forgets_what_was_used_longest_ago_and_keeps_nothing_that_is_too_long():
    cache = ByteLru(100)
    assert [cache.asked(key, 40) for key in (1, 2, 1, 3, 1, 2)] == [False, False, True, False, True, False]
    assert not cache.asked(9, 101)
    assert cache.asked(2, 40)
    assert cache.used_bytes == 80


def test_popularity_is_zipfs():
    shares = popularity(4, 1.0)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[3] == pytest.approx(4)


FLEET = Fleet(edges=3, workstations_per_edge=200, images=5, exponent=1.0, days=30, warm_days=5)


def test_everybody_follows_each_release_once_most_on_the_next_morning():
    found = events(FLEET, 3, seed=1)
    assert (np.diff(found.at_s) >= 0).all()
    updates = found.kind == UPDATE
    assert np.bincount(found.version[updates]).tolist() == [0, 600, 600]
    first = found.at_s[updates & (found.version == 1) & (found.image == 0)]
    day = first.min() // DAY_S
    assert 0.5 < ((first // DAY_S) == day).mean() < 0.75
    cold = found.kind == COLD
    assert cold.sum() == 600 * 30 // 100
    assert found.version[cold].max() == 2


def test_the_same_seed_gives_the_same_and_another_one_something_else():
    found = parts(CHAIN, accelerated=False, used_share=0.5)
    one, two, other = (simulate(FLEET, events(FLEET, 2, seed), found, 2000, 4000) for seed in (1, 1, 2))
    assert (one.edge, one.origin, one.store_bins) == (two.edge, two.origin, two.store_bins)
    assert one.edge != other.edge


def test_larger_caches_have_more_and_tiers_add_up():
    found = parts(CHAIN, accelerated=False, used_share=1.0)
    happening = events(FLEET, 2, seed=3)
    rates = []
    for size in (500, 2000, 100_000):
        outcome = simulate(FLEET, happening, found, size, 100_000)
        rates.append(outcome.edge.byte_hit_rate)
        assert outcome.edge.asked_bytes - outcome.edge.hit_bytes == outcome.origin.asked_bytes
        assert sum(outcome.clients_bins.values()) == outcome.edge.asked_bytes
        assert sum(outcome.store_bins.values()) == outcome.origin.asked_bytes - outcome.origin.hit_bytes
        assert outcome.peak_bits(outcome.clients_bins) > 0
    assert rates == sorted(rates)
    assert rates[-1] > 0.9


def test_a_cache_that_holds_all_asks_the_store_for_each_part_once():
    found = parts(CHAIN, accelerated=True, used_share=0.0)
    fleet = Fleet(edges=1, workstations_per_edge=50, images=1, exponent=1.0, days=30, warm_days=0)
    outcome = simulate(fleet, events(fleet, 2, seed=4), found, 10_000, 10_000)
    assert outcome.origin.hits == 0
    assert outcome.origin.asked_bytes <= 250 + 260 + 40
