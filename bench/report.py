"""The boot benchmark's results for readers: Markdown tables and one SVG plot. Values in, text out; no clock.

Tables: for each disk every contender's whole way over the limit on every link, then seconds, bytes and requests on the
two links that most bounds hang on. `>12` was stopped there; a dagger marks a cell that other code than the newest gave
(whether the newest is the present code, `run.py` says).
The plot has the same ratios, one panel per rate, one row per disk, logarithmic, with the limit as a line.
"""

from __future__ import annotations

from pathlib import Path

import must_show
from cells import Cell, Place, Results

DETAILED = ((100, 20), (100, 100))
PLOT = "boot_cold.svg"
COLOURS = {
    "oscirc-profile": "#0b6e4f",
    "oscirc-plain": "#3fa34d",
    "oscirc-unlearnt": "#7fb685",
    "oscirc-warm": "#9bc53d",
    "download": "#6c757d",
    "qemu-http": "#d1495b",
    "nbdkit-curl": "#e08e45",
    "rclone": "#7b5ea7",
}

_LEARNT = """\
The list of what boots read that oscirc ships was learnt from boots of these releases, too. With one that was learnt
from the other releases only (`bench/unlearnt.py`; for Debian 12 from Debian 13 and 14, for Debian 13 from Debian 12
and 14), which is how a boot goes of a system that it never saw:
"""


def markdown(results: Results) -> str:
    """The section's tables, checks and notes."""
    parts = [f"![Boot time over the link's own limit, per contender and link](../bench/results/{PLOT})\n"]
    for name in sorted(results.disks):
        parts += [_ratios(results, name), _details(results, name)]
    parts += [_checks(results), _beyond(results), _notes(results)]
    return "\n".join(parts)


def _links(results: Results, disk: str) -> list[tuple[int, int]]:
    return sorted({(place.rate_mbit, place.round_trip_ms) for place in results.cells if place.disk == disk})


def _ratios(results: Results, disk: str) -> str:
    facts, links = results.disks[disk], _links(results, disk)
    limits = ", ".join(f"{facts.limit_s(rate):.2f} s at {rate} Mbit/s" for rate in sorted({rate for rate, _ in links}))
    touched = f"{facts.blocks} blocks, {facts.frame_bytes / 1e6:.1f} MB as frames"
    lines = [
        f"**{facts.title}**, whole way over the limit. The boot touches {touched}: the limit is {limits}.\n",
        "| Mbit/s, round trip | " + " | ".join(f"{rate}, {trip} ms" for rate, trip in links) + " |",
        "|---|" + "---:|" * len(links),
    ]
    for name, contender in results.contenders.items():
        cells = [results.cells.get(Place(disk, *link, name)) for link in links]
        lines.append(f"| {contender['label']} | " + " | ".join(ratio_text(results, cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def ratio_text(results: Results, cell: Cell | None) -> str:
    """A cell of the table of ratios."""
    if cell is None:
        return ""
    ratio = results.ratio(cell)
    digits = 2 if ratio < 10 else 0
    return (">" if cell.stopped else "") + f"{ratio:.{digits}f}" + ("†" if results.is_old(cell) else "")


def _details(results: Results, disk: str) -> str:
    facts = results.disks[disk]
    lines = [
        "| link | contender | whole way, s | replay / limit | MB moved | / touched | requests | worst read, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rate, trip in DETAILED:
        for name, contender in results.contenders.items():
            cell = results.cells.get(Place(disk, rate, trip, name))
            if cell is None:
                continue
            more = ">" if cell.stopped else ""
            lines.append(
                f"| {rate} Mbit/s, {trip} ms | {contender['label']} | {more}{cell.whole_s:.2f}"
                f" | {more}{results.ratio(cell, replay=True):.2f} | {cell.bytes_down / 1e6:.1f}"
                f" | {cell.bytes_down / facts.frame_bytes:.2f} | {cell.requests:.0f}"
                f" | {max(run.worst_read_s for run in cell.runs):.2f} |"
            )
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _checks(results: Results) -> str:
    lines = ["| must show | measured | at most | |", "|---|---:|---:|---|"]
    for check in must_show.checks(results):
        verdict = {True: "pass", False: "**missed**", None: "not measured"}[check.passed]
        value = "" if check.value is None else f"{check.value:.3g}"
        lines.append(f"| {results.disks[check.disk].title}, {check.what} | {value} | {check.bound:g} | {verdict} |")
    return "\n".join(lines) + "\n"


def _beyond(results: Results) -> str:
    """What the bounds without a profile come to on a system that the list was not learnt from."""
    known = [check for check in must_show.beyond(results) if check.value is not None]
    if not known:
        return ""
    lines = [_LEARNT, "| beside the bound, not required | measured | the bound |", "|---|---:|---:|"]
    lines += [
        f"| {results.disks[each.disk].title}, {each.what} | {each.value:.3g} | {each.bound:g} |" for each in known
    ]
    return "\n".join(lines) + "\n"


def _notes(results: Results) -> str:
    notes = "\n".join(f"- {each['label']}: {each['note']}." for each in results.contenders.values())
    old = any(results.is_old(cell) for cell in results.cells.values())
    return notes + ("\n- †: measured with earlier code.\n" if old else "\n")


def plot(results: Results, path: Path) -> None:
    """Write the SVG; the same results give the same file."""
    import matplotlib as mpl  # noqa: PLC0415  # the extra `bench`; tables do without

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "oscirc", "font.size": 8})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    disks = sorted(results.disks)
    rates = sorted({place.rate_mbit for place in results.cells})
    figure, grid = plt.subplots(
        len(disks), len(rates), figsize=(8.4, 0.6 + 2.3 * len(disks)), sharex=True, sharey=True, squeeze=False
    )
    for row, disk in zip(grid, disks, strict=True):
        for axes, rate in zip(row, rates, strict=True):
            _panel(results, disk, rate, axes)
    for axes in grid[-1]:
        axes.set_xlabel("round trip, ms")
    for axes in grid[:, 0]:
        axes.set_ylabel("whole way / limit")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.32 / (0.6 + 2.3 * len(disks)) * 1.4, 1, 1))
    figure.savefig(path, metadata={"Date": None, "Creator": "bench/report.py"})
    plt.close(figure)


def _panel(results: Results, disk: str, rate: int, axes) -> None:  # noqa: ANN001  # matplotlib is optional
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    trips = sorted({place.round_trip_ms for place in results.cells})
    for name, contender in results.contenders.items():
        cells = [(at, results.cells.get(Place(disk, rate, trip, name))) for at, trip in enumerate(trips)]
        known = [(at, cell) for at, cell in cells if cell is not None]
        colour = COLOURS.get(name, "#000000")
        ours = name.startswith("oscirc")
        axes.plot(
            [at for at, _ in known],
            [results.ratio(cell) for _, cell in known],
            color=colour, marker="o", markersize=3, linewidth=1.8 if ours else 1.0, label=contender["label"],
        )  # fmt: skip
        stopped = [(at, cell) for at, cell in known if cell.stopped]
        axes.plot([at for at, _ in stopped], [results.ratio(c) for _, c in stopped], "^", color=colour, markersize=6)
    axes.axhline(1, color="#000000", linewidth=0.7, linestyle=":")
    axes.set_yscale("log")
    axes.set_xticks(range(len(trips)), [str(trip) for trip in trips])
    axes.set_title(f"{results.disks[disk].title}, {rate} Mbit/s", fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.grid(visible=True, which="major", linewidth=0.3)
