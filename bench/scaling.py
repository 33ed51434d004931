"""A million workstations and a petabyte, computed: caches by simulation, documents and rows by measuring, costs by sum.

    python bench/scaling.py [--quick] [--page]    --page only writes docs/scaling.md from the results that there are

The simulation (`scaling_model.py`) stands on the block lists of a published Debian 12 and of ten nights of its fixes,
which `bench/boot_cold.py` and `bench/update.py` left. Writes bench/results/scaling.json, scaling.svg, and what stands
between the markers of docs/scaling.md. The same disks and seed give the same figures; `--quick` simulates a tenth.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import scaling_lists
import scaling_report
from harness import DISKS, RESULTS, ROOT, machine
from scaling_model import Events, Fleet, Outcome, Parts, Version, events, parts, simulate
from scaling_sizes import growths, row_bytes
from update_pairs import night_disks

SEED = 20_261_125
USED_SHARE = 0.2
GB = 10**9
FLEET = Fleet(edges=200, workstations_per_edge=5000, images=5000, exponent=1.0)
SAMPLE_EDGES = 20
EDGE_GB = (3, 10, 30, 100, 300)
EXPONENTS = (0.8, 1.0, 1.2)
ORIGIN_GB = (100, 300, 1000, 3000)
USUAL_EDGE_GB, USUAL_ORIGIN_GB = 30, 1000
PAGE = ROOT / "docs" / "scaling.md"


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation's outcome: rates are shares, amounts GB a day, peaks Gbit/s in ten minutes."""

    name: str
    workstations: int
    edges: int
    exponent: float
    accelerated: bool
    edge_gb: int
    origin_gb: int
    edge_byte_hits: float
    edge_request_hits: float
    origin_byte_hits: float
    origin_request_hits: float
    clients_gb_day: float
    origin_gb_day: float
    store_gb_day: float
    clients_requests_day: float
    origin_requests_day: float
    store_requests_day: float
    clients_peak_gbit: float
    origin_peak_gbit: float
    store_peak_gbit: float


def run_of(name: str, fleet: Fleet, outcome: Outcome, edge_gb: int, origin_gb: int, *, accelerated: bool) -> Run:
    """An outcome in the units of the tables."""
    days = fleet.days - fleet.warm_days
    edge, origin = outcome.edge, outcome.origin
    return Run(
        name, fleet.workstations, fleet.edges, fleet.exponent, accelerated, edge_gb, origin_gb,
        edge.byte_hit_rate, edge.request_hit_rate, origin.byte_hit_rate, origin.request_hit_rate,
        edge.asked_bytes / GB / days, origin.asked_bytes / GB / days,
        (origin.asked_bytes - origin.hit_bytes) / GB / days,
        edge.asked / days, origin.asked / days, (origin.asked - origin.hits) / days,
        *(outcome.peak_bits(bins) / 1e9 for bins in (outcome.clients_bins, outcome.origin_bins, outcome.store_bins)),
    )  # fmt: skip


def runs(versions: Sequence[Version], fleet: Fleet) -> Iterator[Run]:
    """The whole fleet once; samples of its edges for what depends on the size of caches and on popularity."""
    packed, plain = (parts(versions, accelerated=how, used_share=USED_SHARE) for how in (True, False))
    few = replace(fleet, edges=max(1, fleet.edges * SAMPLE_EDGES // FLEET.edges))

    def one(name: str, whom: Fleet, happening: Events, edge_gb: int, origin_gb: int, what: Parts) -> Run:
        began = time.monotonic()
        outcome = simulate(whom, happening, what, edge_gb * GB, origin_gb * GB)
        print(f"{name} {whom.exponent} {edge_gb} {origin_gb}: {time.monotonic() - began:.0f} s", flush=True)
        return run_of(name, whom, outcome, edge_gb, origin_gb, accelerated=what is packed)

    for exponent in EXPONENTS:
        whom = replace(few, exponent=exponent)
        happening = events(whom, len(versions), SEED)
        for edge_gb in EDGE_GB:
            yield one("edges", whom, happening, edge_gb, USUAL_ORIGIN_GB, packed)
    happening = events(few, len(versions), SEED)
    for edge_gb in EDGE_GB:
        yield one("edges", few, happening, edge_gb, USUAL_ORIGIN_GB, plain)
    happening = events(fleet, len(versions), SEED)
    for origin_gb in ORIGIN_GB:
        yield one("all", fleet, happening, USUAL_EDGE_GB, origin_gb, packed)


def listed(versions: Sequence[Version]) -> list[dict[str, int]]:
    """The block lists in numbers."""
    return [
        {
            "blocks": len(version.frames),
            "frame_bytes": version.frame_bytes,
            "boot_blocks": len(version.boot),
            "boot_frame_bytes": sum(version.frames[digest] for digest in version.boot),
            "bundle_bytes": version.bundle_bytes,
            "pack_bytes": version.pack_bytes,
            "changed_frame_bytes": sum(
                size for digest, size in version.frames.items() if number and digest not in versions[number - 1].frames
            ),
        }
        for number, version in enumerate(versions)
    ]


def measure(*, quick: bool) -> dict[str, object]:
    """Everything, as it is written to the results."""
    first = scaling_lists.published(DISKS / "stages" / "debian12" / "repository" / "tree")
    packs = scaling_lists.night_packs(RESULTS / "update.json")
    versions = scaling_lists.successive(first, night_disks(DISKS), packs)
    print("block lists are read", flush=True)
    fleet = replace(FLEET, edges=FLEET.edges // 10) if quick else FLEET
    with tempfile.TemporaryDirectory() as place:
        rows = row_bytes(Path(place))
    others = {
        name: listed([scaling_lists.published(DISKS / "stages" / name / "repository" / "tree").version])[0]
        for name in ("debian13", "forky")
        if (DISKS / "stages" / name / "stage.json").exists()
    }
    return {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": asdict(machine()),
        "seed": SEED,
        "fleet": asdict(fleet),
        "used_share": USED_SHARE,
        "versions": listed(versions),
        "other_images": others,
        "runs": [asdict(run) for run in runs(versions, fleet)],
        "documents": [{**asdict(each), "most_entries": each.most_entries} for each in growths()],
        "row_bytes": rows,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, write the results, the plot and the page."""
    results = RESULTS / "scaling.json"
    if "--page" not in arguments:
        document = measure(quick="--quick" in arguments)
        if "--quick" in arguments:
            print(scaling_report.markdown(document))
            return 0
        results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    document = json.loads(results.read_text(encoding="utf-8"))
    scaling_report.plot(document, RESULTS / scaling_report.PLOT)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(scaling_report.put(page, scaling_report.markdown(document)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
