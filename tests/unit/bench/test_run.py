"""`make bench`'s arguments, and the page that it writes into."""

import pytest
import run


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
