from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.range_set import RangeSet

edges = st.lists(st.integers(0, 60), unique=True).map(sorted)


@given(edges=edges, start=st.integers(0, 60), size=st.integers(0, 60))
def test_what_is_within_a_place_is_what_both_hold(edges, start, size):
    ranges = [ByteRange(low, high) for low, high in zip(edges[::2], edges[1::2], strict=False)]
    held = {at for one in ranges for at in range(one.start, one.stop)}
    place = ByteRange(start, start + size)
    found = list(RangeSet(ranges).within(place))
    assert {at for one in found for at in range(one.start, one.stop)} == held & set(range(start, start + size))
    assert all(one.size for one in found)
    assert RangeSet(ranges).touches(place) == bool(found)
    assert RangeSet(ranges).total_bytes == len(held)
