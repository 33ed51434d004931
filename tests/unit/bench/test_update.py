"""Which figures a run measures, and its verdict."""

from dataclasses import replace
from pathlib import Path

import update
from update_pairs import DiskPair

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
