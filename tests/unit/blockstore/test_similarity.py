"""Equal pages have one fingerprint; pages that share most of their windows share most features."""

import random

import numpy as np
import pytest

from oscirc_blockstore import similarity
from oscirc_blockstore.delta import PAGE_SIZE
from oscirc_blockstore.similarity import FEATURES, NO_FEATURE, PageTable, look_at

RANDOM = random.Random(3)


def page():
    return RANDOM.randbytes(PAGE_SIZE)


def block(pages):
    return b"".join([*pages, *[bytes(PAGE_SIZE)] * (16 - len(pages))])


def agreements(one, two):
    return int((one == two).sum())


def test_equal_pages_have_one_fingerprint_wherever_they_stand():
    one, two = page(), page()
    looked = look_at(block([one, two, one]))
    other = look_at(block([two]))
    assert looked.fingerprints[0] == looked.fingerprints[2] != looked.fingerprints[1]
    assert looked.fingerprints[1] == other.fingerprints[0]
    assert looked.fingerprints[5] == 0


def test_the_top_bits_of_two_words_count():
    one = bytearray(page())
    two = bytearray(one)
    for at in (7, 15):
        two[at] ^= 0x80
    looked = look_at(block([bytes(one), bytes(two)]))
    assert looked.fingerprints[0] != looked.fingerprints[1]


@pytest.mark.parametrize("shift", [1, 3, 8, 100, 1000])
def test_content_that_moved_by_any_number_of_bytes_resembles_itself(shift):
    found = 0
    for _ in range(20):
        one = page()
        looked = look_at(block([one, RANDOM.randbytes(shift) + one[:-shift], page()]))
        found += agreements(looked.features[0], looked.features[1])
        assert agreements(looked.features[0], looked.features[2]) == 0
    share = (PAGE_SIZE - shift) / (PAGE_SIZE + shift)
    assert found / (20 * FEATURES) > share - 0.25


def test_zeros_resemble_nothing():
    assert (look_at(bytes(65536)).features == NO_FEATURE).all()


def test_windows_do_not_reach_into_the_next_page():
    one = page()
    alone, followed = look_at(block([one])), look_at(block([one, page()]))
    assert (alone.features[0] == followed.features[0]).all()


def test_a_look_without_features_costs_none():
    assert look_at(block([page()]), features=False).features.shape == (0, FEATURES)


def test_features_are_what_they_were():
    """A pack is the same file tomorrow: the arithmetic is not to change with the library."""
    looked = look_at(bytes(n * n % 251 for n in range(65536)))
    assert int(np.bitwise_xor.reduce(looked.fingerprints)) == 1349897814014130992
    assert looked.features[0].tolist() == [
        351872702236700736,
        1192263974538322916,
        374643443935242184,
        128760812482517131,
    ]


def test_a_table_finds_the_first_page_of_a_key_and_those_alike():
    keys = np.array([5, 3, 5, 9], np.uint64)
    table = PageTable(keys, np.array([10, 11, 12, 13], np.uint32))
    known, pages = table.first(np.array([5, 4, 9], np.uint64))
    assert known.tolist() == [True, False, True]
    assert (pages[0], pages[2]) == (10, 13)
    assert table.alike(np.array([5, 4, 3], np.uint64)) == [[10, 12], [], [11]]


def test_a_key_that_many_pages_have_says_nothing():
    many = similarity.MOST_ALIKE + 1
    table = PageTable(np.full(many, 5, np.uint64), np.arange(many, dtype=np.uint32))
    assert table.alike(np.array([5], np.uint64)) == [[]]


def test_an_empty_table_knows_nothing():
    table = PageTable(np.empty(0, np.uint64), np.empty(0, np.uint32))
    assert not table.first(np.array([5], np.uint64))[0].any()
    assert table.alike(np.array([5], np.uint64)) == [[]]
