"""Which old pages go into a dictionary."""

import numpy as np

from oscirc_blockstore.delta import PAGE_SIZE, Run
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.old_pages import OldPages
from oscirc_blockstore.similarity import FEATURES, Pages

ONE, TWO = digest_of(b"one"), digest_of(b"two")
_serial = iter(range(1, 10_000))


def pages(*alike):
    """A block's pages, of which each has all features of that number, where one is given."""
    fingerprints = np.array([next(_serial) for _ in alike], np.uint64)
    features = np.array(
        [[each or next(_serial) << 20] * FEATURES for each in alike],
        np.uint64,
    )
    return Pages(fingerprints, features)


def test_of_equals_that_one_is_taken_whose_block_other_pages_resemble_too():
    old = OldPages(8 * PAGE_SIZE)
    old.add(ONE, pages(11, 0, 0, 0, 0, 0, 0, 0))  # the first that would be found
    old.add(TWO, pages(0, 11, 12, 13, 0, 0, 0, 0))
    found = old.matcher().dictionary(pages(11, 12, 13).features, 0)
    assert found == (Run(TWO, 0, 5),)  # with their neighbours


def test_a_page_that_resembles_nothing_brings_nothing():
    old = OldPages(4 * PAGE_SIZE)
    old.add(ONE, pages(11, 12, 13, 14))
    assert old.matcher().dictionary(pages(77).features, 0) == ()
