"""Results of the boot benchmark: one cell per disk, link and contender, in one JSON document that outlives its runs.

A cell carries a key: the code that was measured, the stage it was measured on, the machine. A run measures only cells
whose key is another, so that an interrupted run goes on where it was; cells that a run did not select stay, and tables
mark those with another key than the newest. Nothing here measures or reads a clock.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

FORM = 1


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a cell stands: disk, link, contender."""

    disk: str
    rate_mbit: int
    round_trip_ms: int
    contender: str


@dataclass(frozen=True, slots=True)
class Run:
    """One mount and replay. Times in seconds; `whole_s` from the typed command to the last read answered, `replay_s`
    from the first read or, if earlier, from the request for the bundle. `stopped`: given up after `whole_s`.
    """

    whole_s: float
    start_s: float
    replay_s: float
    bytes_down: int
    requests: int
    wrong_reads: int
    worst_read_s: float
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs in one place, and the key that they were measured under."""

    place: Place
    key: str
    runs: tuple[Run, ...]

    @property
    def stopped(self) -> bool:
        """Whether the middle run was given up."""
        return statistics.median(run.stopped for run in self.runs) >= 0.5

    @property
    def whole_s(self) -> float:
        """The median, or where it was stopped."""
        return statistics.median(run.whole_s for run in self.runs)

    @property
    def replay_s(self) -> float:
        """The median; of a stopped one the least that it could be."""
        return statistics.median(run.replay_s for run in self.runs)

    @property
    def bytes_down(self) -> float:
        """The median."""
        return statistics.median(run.bytes_down for run in self.runs)

    @property
    def requests(self) -> float:
        """The median."""
        return statistics.median(run.requests for run in self.runs)

    @property
    def wrong_reads(self) -> int:
        """In all runs together."""
        return sum(run.wrong_reads for run in self.runs)


@dataclass(frozen=True, slots=True)
class Disk:
    """A replayed disk: its title, the newest key of its cells, the blocks that its trace touches, and the code
    (`revisions.py`) that the key stands for.
    """

    title: str
    key: str
    blocks: int
    raw_bytes: int
    frame_bytes: int
    code: str = ""

    def limit_s(self, rate_mbit: float) -> float:
        """Seconds that a link of this rate needs for the touched blocks as zstd level 6 frames."""
        return 8 * self.frame_bytes / (rate_mbit * 1e6)


@dataclass(frozen=True, slots=True)
class Took:
    """How long the last run took, in seconds, and how many cells it measured; `preparing_s` is near nothing where the
    stages were there.
    """

    preparing_s: float
    measuring_s: float
    cells: int

    def line(self) -> str:
        """As it is printed."""
        whole = self.preparing_s + self.measuring_s
        return f"{self.cells} cells in {self.measuring_s:.1f} s; with the preparation of disks {whole:.1f} s"


@dataclass
class Results:
    """The document."""

    measured: str = ""
    machine: dict[str, object] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    contenders: dict[str, dict[str, str]] = field(default_factory=dict)
    cells: dict[Place, Cell] = field(default_factory=dict)
    took: Took | None = None

    def is_old(self, cell: Cell) -> bool:
        """Whether it was measured with other code, on another stage or machine than its disk's newest."""
        return cell.key != self.disks[cell.place.disk].key

    def missing(self, wanted: Iterable[tuple[Place, int]]) -> list[tuple[Place, int]]:
        """Of (place, runs) those that were not measured under their disk's key, or in fewer runs."""
        return [
            (place, runs)
            for place, runs in wanted
            if (cell := self.cells.get(place)) is None or self.is_old(cell) or len(cell.runs) < runs
        ]

    def ratio(self, cell: Cell, *, replay: bool = False) -> float:
        """A cell's seconds over its limit."""
        limit = self.disks[cell.place.disk].limit_s(cell.place.rate_mbit)
        return (cell.replay_s if replay else cell.whole_s) / limit

    def serialise(self) -> str:
        """JSON with one line per cell, so that differences can be read."""
        head = {
            "form": FORM,
            "measured": self.measured,
            "machine": self.machine,
            "disks": {name: asdict(disk) for name, disk in self.disks.items()},
            "contenders": self.contenders,
            **({} if self.took is None else {"took": asdict(self.took)}),
        }
        lines = [
            json.dumps({**asdict(cell.place), "key": cell.key, "runs": [asdict(run) for run in cell.runs]})
            for _, cell in sorted(self.cells.items())
        ]
        return json.dumps(head, indent=1)[:-2] + ',\n "cells": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text(self.serialise(), encoding="utf-8")
        draft.replace(path)


def parse(text: str) -> Results:
    """The document; one of another form counts as none."""
    document = json.loads(text)
    if document.get("form") != FORM:
        return Results()
    results = Results(document["measured"], document["machine"])
    results.disks = {name: Disk(**facts) for name, facts in document["disks"].items()}
    results.contenders = document["contenders"]
    results.took = Took(**document["took"]) if "took" in document else None
    for entry in document["cells"]:
        runs = tuple(Run(**run) for run in entry.pop("runs"))
        key = entry.pop("key")
        place = Place(**entry)
        results.cells[place] = Cell(place, key, runs)
    return results


def load(path: Path) -> Results:
    """The document at a path, or an empty one."""
    return parse(path.read_text(encoding="utf-8")) if path.exists() else Results()
