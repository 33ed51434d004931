"""`make bench`'s arguments, and the page that it writes into."""

import json

import pytest
import run
from revisions import revision


def test_a_new_section_goes_to_the_end_and_a_known_one_stays_where_it_is():
    page = run.put("# Page\n\nby hand\n", "one", "first\n")
    page = run.put(page, "two", "second\n") + "\nalso by hand\n"
    again = run.put(page, "one", "changed\n")
    assert again == page.replace("first", "changed")
    assert again.startswith("# Page\n\nby hand\n\n<!-- begin one -->\nchanged\n<!-- end one -->\n")
    assert again.endswith("also by hand\n")


def test_nothing_means_everything():
    assert run.split([]) == (list(run.BENCHMARKS), [])


def test_options_alone_mean_the_boot_benchmark():
    assert run.split(["--link", "100:20"]) == (["boot_cold"], ["--link", "100:20"])


def test_names_come_before_options():
    assert run.split(["quick", "--only", "rclone"]) == (["quick"], ["--only", "rclone"])


def test_survival_has_options_of_its_own_where_it_is_named_alone():
    assert run.split(["survival", "--only", "kill"]) == (["survival"], ["--only", "kill"])


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["publish", "--link", "100:20"], ["survival", "publish", "--only", "kill"]]
)
def test_what_no_benchmark_understands_is_refused(arguments):
    with pytest.raises(SystemExit):
        run.split(arguments)


def test_each_benchmark_says_what_it_must_show_or_measures():
    for name in run.BENCHMARKS:
        assert len(run.purpose(name)) > 100
        assert "python bench/" not in run.purpose(name)


def test_figures_of_other_code_than_the_present_are_named():
    now = revision("boot_cold")
    assert run.older("boot_cold", {"Debian 12": now, "Debian 13": now}) == "\nMeasured with the present code.\n"
    assert run.older("boot_cold", {}) == ""
    assert run.older("boot_cold", {"Debian 12": now, "Debian 13": "old"}) == (
        "\nOlder than the present code: Debian 13.\n"
    )
    assert run.older("boot_cold", {"Debian 12": "", "Debian 13": "old"}) == "\nOlder than the present code.\n"


def test_a_section_says_that_its_figures_are_older_until_they_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    machine = {"processor": "p", "cores": 2, "memory_gib": 4, "kernel": "k"}
    figures = {"measured": "2026-01-01", "machine": machine, "megabytes": 7}
    (tmp_path / "publish.json").write_text(json.dumps(figures))
    assert run.section("publish").endswith("Linux k.\n\nOlder than the present code.\n")
    (tmp_path / "publish.json").write_text(json.dumps({**figures, "code": revision("publish")}))
    text = run.section("publish")
    assert "Older" not in text
    assert "| megabytes | 7 |" in text
    assert "| code |" not in text
