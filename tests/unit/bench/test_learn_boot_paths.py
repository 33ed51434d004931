"""How much of a file is listed."""

import pytest
from learn_boot_paths import BLOCK, PAGE, _head_kib

IN_BLOCK = BLOCK // PAGE
SIZE = 20 * BLOCK


@pytest.mark.parametrize(
    ("touched", "size", "kib"),
    [
        (set(range(4)), SIZE, 16),  # its beginning
        (set(range(IN_BLOCK * 13)), SIZE, None),  # most of it
        ({at * IN_BLOCK for at in range(0, 16, 2)}, SIZE, None),  # scattered: 8 of 20 blocks
        ({at * IN_BLOCK for at in range(0, 14, 2)}, SIZE, 4),  # 7: too few
        ({at * IN_BLOCK for at in range(0, 16, 2)}, SIZE + BLOCK, 4),  # too small a part
    ],
)
def test_a_file_is_listed_whole_where_most_is_read_or_reads_are_scattered_over_much(touched, size, kib):
    # Reads a block and more apart are past the gap that a head passes over: two blocks are 128 pages.
    assert _head_kib(touched, size) == kib
