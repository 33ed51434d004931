"""The bounds of the comparison of updates: what passes, what fails, what stays open."""

from dataclasses import replace

import pytest
import update_must_show
from update_results import Results

from .update_figures import booted, night, ours, results


def verdict(found: Results, words: str) -> bool | None:
    [check] = [each for each in update_must_show.checks(found) if words in each.what]
    return check.passed


def test_what_was_not_measured_stays_open():
    found = results()
    found.pairs["upgrade"].updates.clear()
    found.pairs["upgrade"].booted.clear()
    found.nights.clear()
    assert {check.passed for check in update_must_show.checks(found)} == {None}


def test_what_is_compared_was_measured_with_the_same_code():
    found = results()
    for name in ("casync", "zstd-patch", "oscirc-packs"):
        pair = replace(found.pairs["upgrade"], updates=dict(found.pairs["upgrade"].updates))
        pair.updates[name] = replace(pair.updates[name], key="older")
        words = "zstd -9" if name == "zstd-patch" else "with packs, bytes moved / what casync"
        assert verdict(Results(pairs={"upgrade": pair}), words) is None


@pytest.mark.parametrize(("packs", "passes"), [(9_500_000, True), (9_600_000, False)])
def test_packs_move_no_more_than_patch_from(packs, passes):
    assert verdict(results(oscirc_packs=packs), "with packs, bytes moved / zstd") is passes


@pytest.mark.parametrize(("packs", "passes"), [(10_000_000, True), (10_100_000, False)])
def test_packs_move_half_of_what_casync_adds_and_its_headers_do_not_count(packs, passes):
    assert verdict(results(oscirc_packs=packs), "with packs, bytes moved / what casync") is passes


@pytest.mark.parametrize(("blocks", "passes"), [(20_000_000, True), (20_100_000, False)])
def test_block_files_alone_move_no_more_than_casync_adds(blocks, passes):
    assert verdict(results(oscirc_blocks=blocks), "without packs: bytes") is passes


def test_the_moonshot_is_told_apart_from_the_bounds():
    found = results(oscirc_packs=9_500_000)
    assert [check.passed for check in update_must_show.moonshots(found)] == [False]
    assert verdict(found, "with packs, bytes moved / what casync") is True


def test_the_major_pair_has_no_bound_on_its_bytes():
    found = results(oscirc_packs=90_000_000)
    found.pairs = {"release": found.pairs["upgrade"]}
    bounded = [check.what for check in update_must_show.checks(found)]
    assert not any("casync" in what or "seconds" in what for what in bounded)
    assert "making the pack, MB of memory" in bounded
    assert not any("moved / least" in what for what in bounded)


def test_what_was_not_measured_of_the_major_pair_is_not_asked_for_but_wrong_reads_are():
    found = results()
    found.pairs = {"release": found.pairs["upgrade"]}
    booted_ones = found.pairs["release"].booted
    booted_ones["oscirc-packs"] = replace(booted_ones["oscirc-packs"], wrong_reads=1)
    assert verdict(found, "no profile: reads that differ") is False
    booted_ones.clear()
    assert not any("after a boot" in check.what for check in update_must_show.checks(found))


def test_a_pack_is_made_in_half_a_minute():
    found = results()
    assert verdict(found, "making the pack, seconds") is True
    found.pairs["upgrade"].updates["oscirc-packs"] = ours(9_000_000, make_s=31.0)
    assert verdict(found, "making the pack, seconds") is False


def test_a_boot_after_a_boot_moves_little_beyond_the_least():
    found = results()
    assert verdict(found, "no profile: moved") is True
    found.pairs["upgrade"].booted["oscirc-packs"] = booted(1_110_000)
    assert verdict(found, "no profile: moved") is False


def test_a_version_without_a_change_costs_little_to_move_and_to_keep():
    found = results()
    assert verdict(found, "without a change, bytes moved") is True
    assert verdict(found, "store grows by") is True
    found.nights[-1] = night("no change", 20_001, kept=16_001)
    assert verdict(found, "without a change, bytes moved") is False
    assert verdict(found, "store grows by") is False
