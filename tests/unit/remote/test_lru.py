from hypothesis import given
from hypothesis import strategies as st

from oscirc_remote.lru import ByteBoundedCache

operations = st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.integers(0, 60)), max_size=60)


@given(operations)
def test_it_holds_what_was_used_last_within_its_bound(steps):
    cache = ByteBoundedCache(100)
    model: dict[bytes, bytes] = {}
    for is_put, number, size in steps:
        key = bytes([number]) * 32
        if is_put:
            model.pop(key, None)
            model[key] = bytes(size)
            cache.put(key, bytes(size))
            while sum(map(len, model.values())) > 100:
                del model[next(iter(model))]
        else:
            expected = model.pop(key, None)
            if expected is not None:
                model[key] = expected
            assert cache.get(key) == expected
        assert cache.held_bytes == sum(map(len, model.values())) <= 100


def test_a_value_larger_than_all_of_it_is_not_kept():
    cache = ByteBoundedCache(10)
    cache.put(b"small", bytes(10))
    cache.put(b"large", bytes(11))
    assert cache.get(b"large") is None
    assert cache.get(b"small") == bytes(10)
    cache.clear()
    assert cache.held_bytes == 0
    assert cache.get(b"small") is None
