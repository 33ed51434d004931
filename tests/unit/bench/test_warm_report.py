"""The page's table of paired warm boots."""

import warm_report
from warm_boot import MOUNT, RAW, Boot, RandomReads, verdict


def figures(calls: int = 0) -> dict[str, object]:
    boots = {MOUNT: Boot(30.0, 0.9, 2700, 10**8), RAW: Boot(29.0, 0.6, 2700, 10**8)}
    return verdict([boots, boots], RandomReads(19_990, 10, calls, 1.44))[0]


def test_each_disk_has_a_column_and_each_file_a_row():
    table = warm_report.markdown({"debian13": figures(calls=3), "debian12": figures()}).splitlines()
    assert table[:3] == ["| | Debian 12 | Debian 13 |", "|---|---:|---:|", "| pairs | 2 | 2 |"]
    assert {line.count("|") for line in table} == {4}
    for kind in warm_report.BOOTED_FROM:
        assert sum(warm_report.BOOTED_FROM[kind] + " |" in line for line in table) == 2
    assert "| driver calls meanwhile (at most 0) | 0 | 3 |" in table
    assert table[-1] == "| both bounds | met | **missed** |"


def test_what_was_not_measured_has_no_row_and_a_remark_stands_below():
    old = figures() | {"remark": "measured earlier."}
    for key in ("boot_seconds", "read_seconds", "excess_share_of_boot", "median_excess_share_of_boot"):
        old[key] = {kind: found for kind, found in old[key].items() if kind != RAW}
    page = warm_report.markdown({"debian12": old})
    assert f"from {warm_report.BOOTED_FROM[RAW]} |" not in page
    assert page.endswith("\nDebian 12: measured earlier.\n")
