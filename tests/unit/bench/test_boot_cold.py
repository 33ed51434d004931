"""Which cells are measured, how often, beside what; nothing is measured here."""

import boot_cold
import must_show
from contenders import wait_until
from peers import all_contenders

LINKS = [(100, 20), (20, 100), (1000, 1)]


def test_every_link_disk_and_contender_is_measured():
    names = list(all_contenders())
    cells = boot_cold.wanted(["debian12", "debian13"], boot_cold.LINKS, names, quick=False)
    assert len({place for place, _ in cells}) == 2 * 12 * len(names) == len(cells)


def test_a_bound_hangs_on_three_runs_and_a_quick_look_on_one():
    cells = dict(boot_cold.wanted(["debian12"], LINKS, ["oscirc-profile", "rclone"], quick=False))
    often = {(place.contender, place.rate_mbit) for place, runs in cells.items() if runs == 3}
    assert often == {("oscirc-profile", 100), ("oscirc-profile", 1000)}
    assert {runs for _, runs in boot_cold.wanted(["debian12"], LINKS, ["oscirc-profile"], quick=True)} == {1}


def test_each_cell_is_in_one_batch_and_what_bounds_compare_runs_alone():
    cells = boot_cold.wanted(["debian12"], boot_cold.LINKS, list(all_contenders()), quick=False)
    batches = list(boot_cold.batches(cells))
    assert sorted(cell for _, batch in batches for cell in batch) == sorted(cells)
    alone = {(place.contender, place.rate_mbit, place.round_trip_ms) for place, _ in batches[0][1]}
    assert batches[0][0] == 1
    for link in must_show.PLAIN_BOUNDS:
        assert {(name, *link) for name in (*must_show.BLOCK_PEERS, must_show.PLAIN, must_show.PROFILE)} <= alone


def test_a_link_of_another_rate_is_measured_too():
    cells = boot_cold.wanted(["debian12"], [(50, 10)], ["rclone"], quick=False)
    assert [cell for _, batch in boot_cold.batches(cells) for cell in batch] == cells


def test_contenders_have_names_labels_and_notes_of_their_own():
    found = all_contenders()
    assert all(each.name == name and each.label and each.note for name, each in found.items())
    assert len({each.label for each in found.values()}) == len(found)


def test_the_code_that_is_measured_has_a_stable_digest():
    assert boot_cold.revision() == boot_cold.revision()


def test_waiting_ends_when_the_condition_holds():
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), float("inf"), "anything", [])
