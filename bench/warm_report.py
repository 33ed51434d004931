"""The paired warm boots for readers: one Markdown table with a column per disk. Values in, text out; no clock."""

from __future__ import annotations

TITLES = {"debian12": "Debian 12", "debian13": "Debian 13"}
BOOTED_FROM = {
    "mount": "the mount",
    "raw_by_name": "the raw file",
}
Figures = dict[str, object]


def markdown(disks: dict[str, Figures]) -> str:
    """The table, and below it what there is to say of a disk's figures."""
    names = sorted(disks)
    lines = [
        "| | " + " | ".join(TITLES.get(name, name) for name in names) + " |",
        "|---|" + "---:|" * len(names),
        _line("pairs", [str(disks[name]["pairs"]) for name in names]),
    ]
    for key, what in (("boot_seconds", "boot, s"), ("read_seconds", "the guest's reads, summed, s")):
        lines += _of_each(f"{what}, from", key, disks)
    lines.append(_line("read by the guest, MB", [str(disks[name]["read_MB"]) for name in names]))
    lines += _of_each("excess over", "excess_share_of_boot", disks, ", share of its boot's time")
    lines += _of_each("median excess over", "median_excess_share_of_boot", disks, f" (at most {_bound(disks)})")
    for key, what in (
        ("random_reads", "random 4 KiB reads of held pages"),
        ("random_reads_left_out", "left out: not held"),
        ("driver_calls_during_random_reads", "driver calls meanwhile (at most 0)"),
        ("random_read_median_us", "the median of these reads, µs"),
    ):
        lines.append(_line(what, [_text(disks[name].get(key)) for name in names]))
    lines.append(_line("both bounds", ["met" if disks[name]["passed"] else "**missed**" for name in names]))
    remarks = [f"\n{TITLES.get(name, name)}: {disks[name]['remark']}\n" for name in names if "remark" in disks[name]]
    return "\n".join(lines) + "\n" + "".join(remarks)


def _bound(disks: dict[str, Figures]) -> object:
    return next(iter(disks.values()))["must_be_at_most"]


def _of_each(what: str, key: str, disks: dict[str, Figures], unit: str = "") -> list[str]:
    """A row for each file that was booted from, where any disk has figures of it."""
    lines = []
    for kind, title in BOOTED_FROM.items():
        found = [_of(figures, key).get(kind) for _, figures in sorted(disks.items())]
        if any(each is not None for each in found):
            lines.append(_line(f"{what} {title}{unit}", [_text(each) for each in found]))
    return lines


def _of(figures: Figures, key: str) -> Figures:
    found = figures[key]
    assert isinstance(found, dict)
    return found


def _text(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(what: str, cells: list[str]) -> str:
    return f"| {what} | " + " | ".join(cells) + " |"
