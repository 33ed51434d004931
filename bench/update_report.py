"""The comparison of updates for readers: Markdown tables and one SVG plot. Values in, text out; no clock."""

from __future__ import annotations

import textwrap
from pathlib import Path

import update_must_show
from must_show import Check
from update_nights import NO_CHANGE
from update_results import Pair, Results

PLOT = "update.svg"
_SHOWN_PACKAGES = 40
COLOURS = {
    "oscirc-packs": "#0b6e4f",
    "oscirc-blocks": "#3fa34d",
    "oscirc-strong": "#70b558",
    "oscirc-fresh": "#9bc53d",
    "casync": "#d1495b",
    "zsync": "#e08e45",
    "xdelta3": "#7b5ea7",
    "zstd-patch": "#355070",
    "download": "#6c757d",
}


GROWTH = (
    ("changed blocks", "new_block_bytes", "#3fa34d"),
    ("pack", "pack_bytes", "#0b6e4f"),
    ("table", "table_bytes", "#d1495b"),
    ("all else", "other_bytes", "#6c757d"),
)
"""What a store grows by: label, field, colour."""


def markdown(results: Results) -> str:
    """The section's tables, checks and notes."""
    what = "Bytes of an update per contender; bytes and store growth night by night"
    what += "; store growth of each pair" if any(pair.growth for pair in results.pairs.values()) else ""
    parts = [f"![{what}](../bench/results/{PLOT})\n"]
    parts += [_pair(results, pair) for pair in results.pairs.values()]
    parts += [_booted(results), _nights(results), _checks(results), _notes(results)]
    return "\n".join(part for part in parts if part)


def _pair(results: Results, pair: Pair) -> str:
    casync = pair.updates.get("casync")
    rate, trip = results.link
    sizes = f"{pair.used_bytes / 1e6:.0f} MB of blocks with data, {pair.block_file_bytes / 1e6:.1f} MB as block files"
    changed = f"those that changed {pair.changed_block_file_bytes / 1e6:.1f} MB"
    over = f"update over {rate} Mbit/s, {trip} ms: s"
    columns = f"kept by the publisher, MB | moved, MB | / casync's chunks | requests | {over} | MB | making: s | MB"
    lines = [
        f"**{pair.title}**: {sizes}; {changed}. Packages: {_packages(pair)}.\n",
        f"| | {columns} |",
        "|---|" + "---:|" * 8,
    ]
    for name, contender in results.contenders.items():
        update = pair.updates.get(name)
        if update is None:
            continue
        old = "" if update.key == pair.key else "†"
        share = f"{update.moved_bytes / casync.made_bytes:.2f}" if casync else ""
        lines.append(
            f"| {contender['label']}{old} | {update.made_bytes / 1e6:.2f} | {update.moved_bytes / 1e6:.2f} | {share} |"
            f" {update.requests} | {update.update_s:.1f} | {update.update_peak_mb:.0f} | {update.make_s:.1f} |"
            f" {update.make_peak_mb:.0f} |"
        )
    return "\n".join([*lines, *_growth(pair)]) + "\n"


def _growth(pair: Pair) -> list[str]:
    """A line below the pair's table; none where results are older than that figure."""
    grown = pair.growth
    if grown is None:
        return []
    parts = ", ".join(f"{what} {getattr(grown, name) / 1e3:,.1f}" for what, name, _ in GROWTH)
    old = "" if grown.key == pair.key else "†"
    return [f"\nWhat the store grew by{old}, kB: {grown.kept_bytes / 1e3:,.1f} in all: {parts}."]


def _packages(pair: Pair) -> str:
    names = [line.split()[0] for line in pair.packages]
    if len(names) > _SHOWN_PACKAGES:
        return f"{len(names)} of them (`bench/results/update.json` has the list)"
    return ", ".join(names) or "not known"


def _booted(results: Results) -> str:
    lines = [
        "After version 1 was only *booted*, mounting version 2 and replaying its boot; bytes in MB:\n",
        "| | blocks touched | not there | frames | least | records | moved | / least | index | untouched | requests |",
        "|---|" + "---:|" * 10,
    ]
    for pair in results.pairs.values():
        for name, booted in pair.booted.items():
            who = f"{pair.title}, {results.contenders[name]['label']}" + ("" if booted.key == pair.key else "†")
            least = f"{booted.frame_bytes / 1e6:.2f} | {booted.least_bytes / 1e6:.2f} | {booted.usable_records}"
            moved = f"{booted.moved_bytes / 1e6:.2f} | {booted.moved_bytes / booted.least_bytes:.2f}"
            counts = f"{booted.touched_blocks} | {booted.missing_blocks}"
            beyond = f"{booted.index_bytes / 1e6:.2f} | {booted.untouched_bytes / 1e6:.2f}"
            lines.append(f"| {who} | {counts} | {least} | {moved} | {beyond} | {booted.requests} |")
    return "\n".join(lines) + "\n" if len(lines) > 3 else ""


def _nights(results: Results) -> str:
    if not results.nights:
        return ""
    columns = "update with packs | without | store: block files | its table | pack | all else | casync adds | brings"
    lines = [
        "Ten successive nights of Debian 12 (`guests/nights.py` says what they are), published with packs against",
        "the night before, and the last one once more without a change. All in kB:\n",
        f"| night | {columns} |",
        "|---|" + "---:|" * 7 + "---|",
    ]
    for night in results.nights:
        figures = (
            night.moved_with_packs, night.moved_without, night.new_block_bytes, night.table_bytes, night.pack_bytes,
            night.other_bytes, night.casync_bytes,
        )  # fmt: skip
        brings = ", ".join(each.partition("=")[0] for each in night.brings) or "nothing but logs"
        brings = "" if night.name == NO_CHANGE else brings
        lines.append(f"| {night.name} | " + " | ".join(f"{each / 1e3:,.1f}" for each in figures) + f" | {brings} |")
    return "\n".join(lines) + "\n"


def _checks(results: Results) -> str:
    lines = ["| must show | measured | at most | |", "|---|---:|---:|---|"]
    lines += [_check(results, check, "**missed**") for check in update_must_show.checks(results)]
    lines += [_check(results, check, "not reached") for check in update_must_show.moonshots(results)]
    return "\n".join(lines) + "\n"


def _check(results: Results, check: Check, missed: str) -> str:
    verdict = {True: "pass", False: missed, None: "not measured"}[check.passed]
    value = "" if check.value is None else f"{check.value:.3g}" if check.value < 1000 else f"{check.value:.0f}"
    title = results.pairs[check.disk].title if check.disk in results.pairs else "Nights"
    return f"| {title}: {check.what} | {value} | {check.bound:g} | {verdict} |"


def _notes(results: Results) -> str:
    notes = "\n".join(f"- {each['label']}: {each['note']}." for each in results.contenders.values())
    old = any(
        figure.key != pair.key
        for pair in results.pairs.values()
        for figure in (*pair.updates.values(), *pair.booted.values())
    )
    return notes + ("\n- †: measured with earlier code.\n" if old else "\n")


def plot(results: Results, path: Path) -> None:
    """Write the SVG; the same results give the same file."""
    import matplotlib as mpl  # noqa: PLC0415  # the extra `bench`; tables do without

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "oscirc", "font.size": 8})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    count = max(1, len(results.pairs))
    figure = plt.figure(figsize=(8.4, 5.6))
    rows = figure.add_gridspec(2, 1, height_ratios=(1, 1.1))
    grown = [pair for pair in results.pairs.values() if pair.growth is not None]
    above, below = rows[0].subgridspec(1, count), rows[1].subgridspec(1, 3 if grown else 2, wspace=0.25)
    for place, pair in enumerate(results.pairs.values()):
        _bars(results, pair, figure.add_subplot(above[place]), named=place == 0)
    _night_panels(results, figure.add_subplot(below[0]), figure.add_subplot(below[1]))
    if grown:
        _growth_panel(grown, figure.add_subplot(below[2]))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": "bench/update_report.py"})
    plt.close(figure)


def _bars(results: Results, pair: Pair, axes, *, named: bool) -> None:  # noqa: ANN001  # matplotlib is optional
    names = [name for name in results.contenders if name in pair.updates][::-1]
    moved = [pair.updates[name].moved_bytes / 1e6 for name in names]
    axes.barh(names, moved, color=[COLOURS.get(name, "#000000") for name in names])
    for place, value in enumerate(moved):
        axes.text(value, place, f" {value:.1f}", va="center", fontsize=7)
    axes.set_yticks(
        range(len(names)), [results.contenders[name]["label"] for name in names] if named else [""] * len(names)
    )
    axes.set_xscale("log")
    axes.set_xlim(1, 2000)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(pair.title.replace("`", ""), fontsize=8)
    axes.set_xlabel("MB moved")


def _night_panels(results: Results, updates, growth) -> None:  # noqa: ANN001  # matplotlib is optional
    nights, places = results.nights, range(len(results.nights))
    series = (
        ("with packs", [night.moved_with_packs for night in nights], COLOURS["oscirc-packs"]),
        ("without", [night.moved_without for night in nights], COLOURS["oscirc-blocks"]),
        ("casync adds", [night.casync_bytes for night in nights], COLOURS["casync"]),
    )
    for label, values, colour in series:
        updates.plot(
            places, [max(each, 1) / 1e6 for each in values], color=colour, marker="o", markersize=3, label=label
        )
    updates.set_title("update bytes, night by night", fontsize=8)
    updates.set_ylim(0.001, 1000)
    bottom = [0.0] * len(nights)
    for label, field, colour in GROWTH:
        values = [getattr(night, field) / 1e6 for night in nights]
        growth.plot(places, [max(each, 1e-6) for each in values], color=colour, marker="o", markersize=3, label=label)
        bottom = [one + other for one, other in zip(bottom, values, strict=True)]
    growth.set_title("store growth, night by night", fontsize=8)
    growth.set_ylim(0.001, 1000)
    for axes in (updates, growth):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xticks(places, ["=" if night.name == NO_CHANGE else night.name.lstrip("0") for night in nights])
        axes.set_xlabel("night (=: without a change)")
        axes.grid(visible=True, which="major", linewidth=0.3)
        axes.legend(frameon=False, fontsize=7)
    updates.set_ylabel("MB")


def _growth_panel(pairs: list[Pair], axes) -> None:  # noqa: ANN001  # matplotlib is optional
    width = 0.8 / len(GROWTH)
    for number, (label, field, colour) in enumerate(GROWTH):
        places = [place + (number - (len(GROWTH) - 1) / 2) * width for place in range(len(pairs))]
        values = [max(getattr(pair.growth, field), 1) / 1e6 for pair in pairs]
        axes.bar(places, values, width, color=colour, label=label)
    axes.set_title("store growth of each pair", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylim(0.001, 1000)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    titles = [pair.title.replace("`", "").removeprefix("Debian 12").strip(" ,") for pair in pairs]
    axes.set_xticks(range(len(pairs)), [textwrap.fill(title, 14) for title in titles], fontsize=6)
    axes.grid(visible=True, which="major", axis="y", linewidth=0.3)
    axes.set_axisbelow(True)
