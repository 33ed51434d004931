import random

from oscirc_server.services.version_order import natural


def test_numbers_count_by_value_and_candidates_come_before_what_they_became():
    ordered = ["1.0-alpha", "1.0-rc1", "1.0-rc2", "1.0", "1.0+deb12u1", "1.2", "1.9", "1.10", "2", "12.1", "sid"]
    shuffled = random.Random(6).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural) == ordered
