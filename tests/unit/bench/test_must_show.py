"""The bounds: what passes, what fails, what stays open."""

from dataclasses import replace

import must_show
from cells import Cell, Disk, Place, Results, Run

LIMIT_S = 5.0
RUN = Run(1.0 * LIMIT_S, 0.5, 1.0 * LIMIT_S, 62_500_000, 15, 0, 0.1)


def results(**seconds: float) -> Results:
    """A disk with a limit of 5 s at 100 Mbit/s; at 20 ms these contenders' multiples of it."""
    found = Results(disks={"debian12": Disk("Debian 12", "k", 400, 400 << 18, 62_500_000)})
    for name, multiple in seconds.items():
        place = Place("debian12", 100, 20, name.replace("_", "-"))
        run = replace(RUN, whole_s=multiple * LIMIT_S, replay_s=multiple * LIMIT_S)
        found.cells[place] = Cell(place, "k", (run,))
    return found


def verdict(found: Results, words: str) -> bool | None:
    [check] = [each for each in must_show.checks(found) if words in each.what]
    return check.passed


def test_what_was_not_measured_stays_open():
    assert {check.passed for check in must_show.checks(results())} == {None}


def test_what_earlier_code_measured_stays_open():
    found = results(oscirc_profile=9.0)
    found.disks["debian12"] = replace(found.disks["debian12"], key="newer")
    assert {check.passed for check in must_show.checks(found)} == {None}


def test_a_replay_at_the_bound_passes_and_above_it_fails():
    words = "with profile, 100 Mbit/s 20 ms: replay"
    assert verdict(results(oscirc_profile=1.05), words) is True
    assert verdict(results(oscirc_profile=1.06), words) is False


def test_the_whole_way_has_a_bound_of_its_own():
    words = "with profile, 100 Mbit/s 20 ms: whole way"
    assert verdict(results(oscirc_profile=1.15), words) is True
    assert verdict(results(oscirc_profile=1.16), words) is False


def test_bytes_and_requests_are_bounded():
    found = results(oscirc_profile=1.0)
    place = Place("debian12", 100, 20, "oscirc-profile")
    found.cells[place] = Cell(place, "k", (replace(RUN, bytes_down=70_000_000, requests=25),))
    assert verdict(found, "with profile, 100 Mbit/s 20 ms: bytes") is False
    assert verdict(found, "with profile, 100 Mbit/s 20 ms: requests") is False


def test_the_share_is_of_the_faster_peer_and_needs_both():
    words = "no profile, 100 Mbit/s 20 ms: replay / best"
    assert verdict(results(oscirc_plain=1.5, qemu_http=9.0), words) is None
    assert verdict(results(oscirc_plain=1.5, qemu_http=9.0, nbdkit_curl=5.0), words) is True
    assert verdict(results(oscirc_plain=1.6, qemu_http=9.0, nbdkit_curl=5.0), words) is False


def test_one_wrong_read_anywhere_fails():
    found = results(oscirc_profile=1.0)
    assert verdict(found, "differ") is True
    place = Place("debian12", 20, 200, "oscirc-warm")
    found.cells[place] = Cell(place, "k", (replace(RUN, wrong_reads=1),))
    assert verdict(found, "differ") is False


def test_a_line_says_verdict_value_and_bound():
    [line] = [each.line() for each in must_show.checks(results(oscirc_profile=1.5)) if "20 ms: replay" in each.what][:1]
    assert line == "FAIL  debian12: with profile, 100 Mbit/s 20 ms: replay / limit: 1.500 (at most 1.05)"


def test_a_system_that_the_list_was_not_learnt_from_is_told_beside_the_bounds():
    found = results(oscirc_unlearnt=2.5)
    assert not any("not learnt" in check.what for check in must_show.checks(found))
    [replay] = [check for check in must_show.beyond(found) if check.what.endswith("20 ms: replay / limit")]
    assert (replay.value, replay.bound) == (2.5, 2.0)
