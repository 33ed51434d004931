"""What `scaling.py` found, for readers: Markdown tables and one SVG plot. Values in, text out; no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scaling_sizes import Prices, scale

PLOT = "scaling.svg"
BEGIN, END = "<!-- begin scaling -->", "<!-- end scaling -->"
TERA, GIGA, MEGA = 1e12, 1e9, 1e6
SCALES = (10 * TERA, 100 * TERA, 1000 * TERA)
COLOURS = {0.8: "#e08e45", 1.0: "#0b6e4f", 1.2: "#7b5ea7"}

Document = Mapping[str, object]
Row = Mapping[str, float]


def put(page: str, text: str) -> str:
    """The page with this between its markers; `SystemExit` where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("the page has no markers")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def markdown(document: Document) -> str:
    """All tables."""
    return "\n".join(
        [_lists(document), _edges(document), _whole(document), _documents(document), _rows(document), _costs(document)]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    line = "|---" * text_columns + "|---:" * (len(head) - text_columns) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", line, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _lists(document: Document) -> str:
    versions: Sequence[Row] = document["versions"]  # type: ignore[assignment]
    rows = [
        (
            "as released" if not number else f"night {number}",
            f"{version['blocks']:,}",
            f"{version['frame_bytes'] / MEGA:.0f}",
            f"{version['changed_frame_bytes'] / MEGA:.1f}" if number else "",
            f"{version['pack_bytes'] / MEGA:.1f}" if number else "",
            f"{version['bundle_bytes'] / MEGA:.0f}",
        )
        for number, version in enumerate(versions)
    ]
    others: Mapping[str, Row] = document["other_images"]  # type: ignore[assignment]
    rows += [
        (name, f"{each['blocks']:,}", f"{each['frame_bytes'] / MEGA:.0f}", "", "", f"{each['bundle_bytes'] / MEGA:.0f}")
        for name, each in others.items()
    ]
    head = ("version", "distinct blocks", "block files, MB", "new block files, MB", "delta pack, MB", "bundle, MB")
    return f"### The block lists\n\n{_table(head, rows)}"


def _runs(document: Document, name: str) -> list[Row]:
    found: Sequence[Row] = document["runs"]  # type: ignore[assignment]
    return [run for run in found if run["name"] == name]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _edges(document: Document) -> str:
    found = _runs(document, "edges")
    packed = [run for run in found if run["accelerated"]]
    sizes = sorted({run["edge_gb"] for run in packed})
    exponents = sorted({run["exponent"] for run in packed})
    by_place = {(run["exponent"], run["edge_gb"]): run for run in packed}
    rows = [
        (f"Zipf {exponent}", *(_percent(by_place[exponent, size]["edge_byte_hits"]) for size in sizes))
        for exponent in exponents
    ]
    plain = {run["edge_gb"]: run for run in found if not run["accelerated"]}
    usual = min(exponents, key=lambda exponent: abs(exponent - 1.0))
    rows.append(("Zipf 1.0, no packs or bundles", *(_percent(plain[size]["edge_byte_hits"]) for size in sizes)))
    table = _table(("bytes that the edge had, %", *(f"{size} GB" for size in sizes)), rows)
    amounts = [
        (
            "packs and bundles" if run["accelerated"] else "block files",
            f"{run['clients_gb_day'] / run['workstations'] * 1000:.2f}",
            f"{run['clients_requests_day'] / run['workstations']:.1f}",
            f"{run['origin_gb_day'] / run['edges']:.1f}",
        )
        for run in (by_place[usual, sizes[len(sizes) // 2]], plain[sizes[len(sizes) // 2]])
    ]
    head = ("", "MB a workstation and day", "requests", f"GB a day into an edge of {sizes[len(sizes) // 2]} GB")
    edges, each = int(packed[0]["edges"]), int(packed[0]["workstations"] // packed[0]["edges"])
    return (
        f"### Edge caches\n\n![Hit rates by the size of an edge cache](../bench/results/{PLOT})\n\n"
        f"A sample of {edges} edges of {each:,} workstations each.\n\n{table}\n{_table(head, amounts)}"
    )


def _whole(document: Document) -> str:
    found = _runs(document, "all")
    rows = [
        (
            f"{run['origin_gb']:,} GB",
            _percent(run["edge_byte_hits"]),
            _percent(run["origin_byte_hits"]),
            f"{run['clients_gb_day'] / 1000:.1f}",
            f"{run['origin_gb_day'] / 1000:.2f}",
            f"{run['store_gb_day']:.0f}",
            f"{run['clients_peak_gbit']:.0f}",
            f"{run['origin_peak_gbit']:.1f}",
            f"{run['store_peak_gbit']:.2f}",
            f"{run['store_requests_day']:,.0f}",
        )
        for run in found
    ]
    head = (
        "origin's cache", "edges had, %", "origin had, %", "clients, TB/day", "edges, TB/day", "store, GB/day",
        "peak to clients, Gbit/s", "to edges", "from the store", "reads of the store a day",
    )  # fmt: skip
    run = found[0]
    return (
        f"### The whole fleet\n\n{int(run['workstations']):,} workstations at {int(run['edges'])} edges with "
        f"{run['edge_gb']} GB each, Zipf {run['exponent']}; peaks over ten minutes.\n\n{_table(head, rows)}"
    )


def _documents(document: Document) -> str:
    found: Sequence[Mapping[str, object]] = document["documents"]  # type: ignore[assignment]
    rows = [
        (
            str(each["document"]),
            str(each["entry"]),
            f"{float(str(each['entry_bytes'])):.0f}",
            f"{float(str(each['empty_bytes'])):.0f}",
            f"{float(str(each['limit_bytes'])) / MEGA:.1f}",
            f"{int(str(each['most_entries'])):,}",
        )
        for each in found
    ]
    head = ("document", "grows with each", "bytes each", "bytes besides", "most that clients read, MB", "hence at most")
    return f"### Signed documents\n\n{_table(head, rows, 2)}"


def _rows(document: Document) -> str:
    found: Mapping[str, Row] = document["row_bytes"]  # type: ignore[assignment]
    tables = list(next(iter(found.values())))
    rows = [(name, *(f"{sizes[table]:.0f}" for table in tables)) for name, sizes in found.items()]
    return f"### Rows\n\nBytes a row, indexes included.\n\n{_table(('', *tables), rows)}"


def _costs(document: Document) -> str:
    versions: Sequence[Row] = document["versions"]  # type: ignore[assignment]
    sizes: Mapping[str, Row] = document["row_bytes"]  # type: ignore[assignment]
    mean = versions[0]["frame_bytes"] / versions[0]["blocks"]
    prices = Prices()
    rows = []
    for stored in SCALES:
        each = scale(int(stored), mean, sizes["PostgreSQL"]["blocks"], prices)
        rows.append(
            (
                f"{stored / TERA:,.0f} TB",
                f"{each.blocks / 1e9:.2f}",
                f"{each.database_bytes / GIGA:,.0f}",
                f"{each.month_dollars:,.0f}",
                f"{each.upload_dollars:,.0f}",
            )
        )
    head = ("stored", "block files, 10^9", "PostgreSQL, GB", "storage, $ a month", "uploads, $ once")
    run = next(run for run in _runs(document, "all") if run["origin_gb"] == 1000)
    egress = run["clients_gb_day"] * 30 * prices.egress_gb
    behind = run["origin_gb_day"] * 30 * prices.egress_gb
    reads = run["store_requests_day"] * 30 / 1e6 * prices.get_million
    return (
        f"### Cost\n\nA block file has {mean / 1000:.0f} kB on average (Debian 12 as released). Assumed prices, in the "
        f"order of large clouds' lists: ${prices.stored_gb_month} a GB and month, ${prices.put_million} a million "
        f"writes, ${prices.get_million} a million reads, ${prices.egress_gb} a GB of a CDN's traffic.\n\n"
        f"{_table(head, rows)}\nTraffic of the fleet above in a month: ${egress:,.0f} where a CDN is the edge, "
        f"${behind:,.0f} where edges are the sites' own and only these are served; reads of the store ${reads:,.2f}.\n"
    )


def plot(document: Document, path: Path) -> None:
    """Write the SVG; the same results give the same file."""
    import matplotlib as mpl  # noqa: PLC0415  # the extra `bench`; tables do without

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "oscirc", "font.size": 8})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.0))
    found = _runs(document, "edges")
    for exponent in sorted({run["exponent"] for run in found}):
        for accelerated, style in ((True, "o-"), (False, "s--")):
            line = [run for run in found if (run["exponent"], run["accelerated"]) == (exponent, accelerated)]
            if line:
                label = f"Zipf {exponent}" + ("" if accelerated else ", block files")
                sizes, rates = [run["edge_gb"] for run in line], [100 * run["edge_byte_hits"] for run in line]
                left.plot(sizes, rates, style, label=label, color=COLOURS.get(exponent, "#6c757d"), markersize=4)
    left.set_xscale("log")
    left.set_xlabel("edge cache, GB")
    left.set_ylabel("bytes that the edge had, %")
    left.legend(frameon=False)
    whole = _runs(document, "all")
    sizes = [run["origin_gb"] for run in whole]
    right.plot(sizes, [100 * run["origin_byte_hits"] for run in whole], "o-", color="#0b6e4f", markersize=4)
    right.set_xscale("log")
    right.set_xlabel("origin's cache, GB")
    right.set_ylabel("bytes that the origin had, %")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": "bench/scaling_report.py"})
    plt.close(figure)
