"""Results of the comparison of updates, in one JSON document that outlives its runs. Nothing here measures.

- For each pair of disks, what each contender moves and takes: an `Update`.
- For each pair and each of this project's two ways, what follows when version 1 was only booted: a `Booted`.
- For each of the successive nights, and one more publication of the last disk: a `Night`.
- For each pair, what the store grew by: a `Growth`.

Every figure carries a key: the code, the disks and the machine that it holds for. A run measures what has another key;
what a bound compares must have the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from revisions import revision

FORM = 1


@dataclass(frozen=True, slots=True)
class Update:
    """One way from version 1 to version 2. `made_bytes`: what the publisher keeps for it, beyond version 1.

    `moved_bytes` is what came to the client over the link, HTTP headers included; `update_s` from the typed command to
    its end, over that link. `peak_mb` is the largest process; of the publisher's work, then of the client's.
    """

    key: str
    make_s: float
    make_peak_mb: float
    made_bytes: int
    moved_bytes: int
    sent_bytes: int
    requests: int
    update_s: float
    update_peak_mb: float


@dataclass(frozen=True, slots=True)
class Booted:
    """Version 2's boot on a cache that version 1's boot filled: blocks with data that it touches, those that were not
    there, what they cost as frames and at least (by frame or usable record), and what came over the link. What came
    beyond the least: the pack's index, and blocks that were not touched, here with the lengths of their frames.
    """

    key: str
    touched_blocks: int
    missing_blocks: int
    frame_bytes: int
    least_bytes: int
    usable_records: int
    index_bytes: int
    untouched_blocks: int
    untouched_bytes: int
    moved_bytes: int
    requests: int
    seconds: float
    wrong_reads: int


@dataclass(frozen=True, slots=True)
class Night:
    """One successive version. `new_block_bytes`, `table_bytes`: block files of blocks and of nodes that the store grew
    by; `pack_bytes` accelerators, `other_bytes` all else. `moved_*`: by an update with packs and one without.
    """

    key: str
    name: str
    brings: tuple[str, ...]
    changed_blocks: int
    new_block_bytes: int
    table_bytes: int
    pack_bytes: int
    other_bytes: int
    moved_with_packs: int
    moved_without: int
    casync_bytes: int

    @property
    def kept_bytes(self) -> int:
        """What the store grew by, of everything."""
        return self.new_block_bytes + self.table_bytes + self.pack_bytes + self.other_bytes


@dataclass(frozen=True, slots=True)
class Growth:
    """What the store grew by from version 1 to version 2 with a pack, in bytes of files. `new_block_bytes`: block files
    of blocks, `table_bytes` those of nodes; `other_bytes`: lengths, metadata and all else.
    """

    key: str
    new_block_bytes: int
    table_bytes: int
    pack_bytes: int
    other_bytes: int

    @property
    def kept_bytes(self) -> int:
        """Of everything."""
        return self.new_block_bytes + self.table_bytes + self.pack_bytes + self.other_bytes


@dataclass
class Pair:
    """Two versions of a disk: `used_bytes` of the new one's blocks with data, the packages that changed, and the code
    (`revisions.py`) that the key stands for. `growth`: None where results are older than that figure.
    """

    title: str
    key: str
    used_bytes: int
    block_file_bytes: int
    changed_block_file_bytes: int
    packages: list[str]
    updates: dict[str, Update] = field(default_factory=dict)
    booted: dict[str, Booted] = field(default_factory=dict)
    code: str = ""
    growth: Growth | None = None


@dataclass
class Results:
    """The document. `contenders` has label and note by name; `link` is megabits per second and milliseconds;
    `nights_code` is the code (`revisions.py`) that all nights were measured with.
    """

    measured: str = ""
    machine: dict[str, object] = field(default_factory=dict)
    link: tuple[int, int] = (0, 0)
    contenders: dict[str, dict[str, str]] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    nights: list[Night] = field(default_factory=list)
    nights_code: str = ""

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps({"form": FORM, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)


def parse(text: str) -> Results:
    """The document; one of another form counts as none."""
    document = json.loads(text)
    if document.pop("form", None) != FORM:
        return Results()
    results = Results(document["measured"], document["machine"], tuple(document["link"]), document["contenders"])
    for name, facts in document["pairs"].items():
        updates = {each: Update(**figures) for each, figures in facts.pop("updates").items()}
        booted = {each: Booted(**figures) for each, figures in facts.pop("booted").items()}
        grown = facts.pop("growth", None)
        growth = None if grown is None else Growth(**grown)
        results.pairs[name] = Pair(**facts, updates=updates, booted=booted, growth=growth)
    for night in document["nights"]:
        results.nights.append(Night(**{**night, "brings": tuple(night["brings"])}))
    results.nights_code = document.get("nights_code", "")
    return results


def load(path: Path) -> Results:
    """The document at a path, or an empty one."""
    return parse(path.read_text(encoding="utf-8")) if path.exists() else Results()


def key_of(disks: Iterable[Path], machine: dict[str, object]) -> str:
    """What figures hold for: this project's code and the benchmark's, these disks, that machine."""
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode())
    digest.update(revision("update").encode())
    for disk in disks:
        stat = disk.stat()
        digest.update(f"{disk.name} {stat.st_size} {stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:12]
