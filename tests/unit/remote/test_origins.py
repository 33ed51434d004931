from oscirc_remote import origins as origins_module
from oscirc_remote.origins import Origin, Origins

A, B = b"a" * 32, b"b" * 32


def test_what_was_fetched_ahead_and_then_read_is_a_hit_once():
    origins = Origins()
    origins.fetched(A, Origin.AHEAD)
    assert origins.unused(A)
    origins.used(A)
    origins.used(A)
    assert (origins.hits, origins.unused(A)) == (1, False)


def test_what_a_read_fetched_itself_is_no_hit():
    origins = Origins()
    origins.fetched(A, Origin.DEMAND)
    origins.used(A)
    origins.used(B)
    assert origins.hits == 0
    assert (origins.of(A), origins.of(B)) == (Origin.DEMAND, None)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(origins_module, "REMEMBERED", 3)
    origins = Origins()
    for number in range(10):
        origins.fetched(number.to_bytes(32, "big"), Origin.AHEAD)
    assert sum(origins.of(number.to_bytes(32, "big")) is not None for number in range(10)) == 3
    assert sum(origins.unused(number.to_bytes(32, "big")) for number in range(10)) == 3
