"""Which cells are measured, how often, beside what; nothing is measured here."""

import boot_cold
import must_show
from cells import Disk, Place, Results, Run, load
from contenders import Failed, wait_until
from peers import all_contenders

LINKS = [(100, 20), (20, 100), (1000, 1)]


def test_every_link_disk_and_contender_is_measured():
    names = list(all_contenders())
    cells = boot_cold.wanted(["debian12", "debian13"], boot_cold.LINKS, names, quick=False)
    everywhere = [name for name in names if name != must_show.UNLEARNT]
    bounded = 2 * len(must_show.PLAIN_BOUNDS)  # where a bound says something of it
    assert len({place for place, _ in cells}) == 2 * 12 * len(everywhere) + bounded == len(cells)


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


def test_waiting_ends_when_the_condition_holds():
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), float("inf"), "anything", [])


def test_nobody_is_stopped_before_ten_times_the_limit_nor_in_the_first_seconds():
    assert boot_cold.cutoff_s(5.0) >= boot_cold.STOP_AT * 5.0
    assert boot_cold.cutoff_s(0.001) >= 10


def test_a_contender_that_breaks_is_told_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    places = [Place("debian12", 1000, 1, name) for name in ("download", "rclone")]

    def measure(contender, *_):
        if contender.name == "rclone":
            raise Failed("rclone: it fell over")
        return Run(1.0, 0.5, 0.5, 100, 1, 0, 0.1)

    monkeypatch.setattr(boot_cold, "measure", measure)
    results = Results(disks={"debian12": Disk("Debian 12", "k", 1, 1, 50_000_000)})
    bench = boot_cold.Bench(results, tmp_path / "boot.json", {}, tmp_path)
    bench.stages = {"debian12": None}
    bench.run([(place, 1) for place in places])
    assert bench.failed == [places[1]]
    assert list(load(tmp_path / "boot.json").cells) == [places[0]]
    assert "it fell over" in capsys.readouterr().err
