"""The page about scale: what stands between its markers comes from the results, the rest stays as it was written."""

import json

import pytest
from harness import RESULTS
from scaling_report import BEGIN, END, markdown, plot, put
from scaling_sizes import Growth, Prices, scale


def test_only_what_stands_between_the_markers_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert put(put(page, "new"), "new") == put(page, "new")


@pytest.mark.parametrize("page", ["no markers", f"{BEGIN} only", f"only {END}"])
def test_a_page_without_markers_is_not_written(page):
    with pytest.raises(SystemExit):
        put(page, "new")


def test_a_document_has_room_for_so_many_entries():
    assert Growth("snapshot", "publisher", 100, 300, 2_000_000).most_entries == 19_997


def test_costs_are_sums_of_what_is_stated():
    found = scale(10**12, 100_000, 150, Prices(stored_gb_month=0.02, put_million=5))
    assert (found.blocks, found.database_bytes) == (10**7, 1_500_000_000)
    assert (found.month_dollars, found.upload_dollars) == (20, 50)


def test_the_results_that_are_kept_make_a_page_and_the_same_plot_each_time(tmp_path):
    document = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
    text = markdown(document)
    assert all(f"### {name}" in text for name in ("The block lists", "Edge caches", "The whole fleet", "Rows", "Cost"))
    for name in ("one.svg", "two.svg"):
        plot(document, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
