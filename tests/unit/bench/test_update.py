"""Which figures a run measures, and its verdict."""

from dataclasses import replace
from pathlib import Path

import update
from update_ours import Stored
from update_pairs import DiskPair
from update_results import Growth

from .update_figures import results

PAIR = DiskPair("upgrade", "Debian 12, upgraded", Path("old"), Path("new"), Path("packages"))


def test_what_was_measured_with_this_code_is_not_measured_again():
    found = results()
    found.pairs["upgrade"].updates["zsync"] = replace(found.pairs["upgrade"].updates["zsync"], key="older")
    comparison = update.Comparison(found, PAIR, "k", Path())
    assert comparison.missing(["casync", "zsync", "new one"], fresh=False) == ["zsync", "new one"]
    assert comparison.missing(["casync", "zsync"], fresh=True) == ["casync", "zsync"]


def test_a_pair_without_results_is_measured_whole():
    comparison = update.Comparison(results(), replace(PAIR, name="release"), "k", Path())
    assert comparison.missing(["casync"], fresh=False) == ["casync"]


def test_a_missed_bound_is_the_exit_code(capsys):
    assert update.judge(results()) == 0
    assert update.judge(results(oscirc_packs=15_000_000)) == 1
    assert "FAIL  upgrade: with packs, bytes moved / what casync adds: 0.750 (at most 0.5)" in capsys.readouterr().out


def test_the_growth_has_block_files_once_and_the_metadata_of_the_image_with_the_pack():
    before = Stored(10, 1000, 100, 50, 500)
    plain = Stored(14, 1400, 130, 57, 520)
    after = Stored(14, 1400, 130, 357, 545)
    assert update.growth_of("k", before, plain, after, 300) == Growth("k", 400, 30, 300, 25 + 7)
