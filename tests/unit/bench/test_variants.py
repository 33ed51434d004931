"""What the peers are tried with."""

from peers import Programs
from variants import is_used, variants


def test_of_each_peer_one_variant_is_what_the_benchmark_uses():
    used = [contender.name for _, contender in variants() if is_used(contender)]
    assert sorted(used) == sorted({contender.name for _, contender in variants()})


def test_every_variant_is_another():
    found = list(variants())
    assert len({words + contender.name for words, contender in found}) == len(found)
    assert all(isinstance(contender, Programs) for _, contender in found)
