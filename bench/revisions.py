"""Which code a result was measured with: digests of sources, kept with results and compared with the present ones.

A result's code is the rooms of this project that its benchmark runs, and the benchmark's own modules. The page says
where that is no longer the present code. Nothing here measures.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("blockstore", "remote", "publisher", "server", "fusedriver", "cli")
BOOT_ROOMS = ("blockstore", "remote", "fusedriver", "cli")
LIST = ROOT / "remote" / "oscirc_remote" / "boot_paths.txt"
OWN = {
    "boot_cold": ("boot_cold", "contenders", "unlearnt", "peers", "link", "replay", "staging", "learn_boot_paths"),
    "update": (
        *("update", "update_pairs", "update_ours", "update_peers", "update_booted", "update_nights"),
        *("link", "staging"),
    ),
}
"""Modules of benchmarks that are in several; any other is in the one of its name."""


def sources(name: str) -> list[Path]:
    """The files that a benchmark's figures hang on, in an order of their own."""
    rooms = BOOT_ROOMS if name == "boot_cold" else ROOMS
    found = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found += [ROOT / "bench" / f"{module}.py" for module in OWN.get(name, (name,))]
    return sorted([*found, LIST])


def digest_of(paths: list[Path], root: Path) -> str:
    """A digest of files by their place below `root` and their bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def revision(name: str) -> str:
    """The present code of a benchmark: 12 hexadecimal digits."""
    return digest_of(sources(name), ROOT)


def is_older(code: object, name: str) -> bool:
    """Whether a result with this revision was measured with other code than the present; one without any was."""
    return code != revision(name)
