"""What is remembered of accelerators in `<cache>/accel`, and what of it may go: hints, all of which can be had again.

A listing (`<manifest>.json`) goes with its image; an index, a profile or a stream's file when no listing that stays
names what it is about. What is younger than an hour stays: somebody may be at it before it is known for which image.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from oscirc_blockstore import accelerators
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import OscircError
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY
from oscirc_remote.local_files import read_bytes

AT_WORK_S = 3600
_LISTING = ".json"


def leftovers(cache_directory: Path, kept: Iterable[Digest], now: float | None = None) -> Iterator[Path]:
    """The files that no image of `kept` (digests of manifests) needs."""
    directory = cache_directory / ACCELERATORS_DIRECTORY
    listings = {f"{digest.hex()}{_LISTING}" for digest in kept}
    named = {sha256.hex() for name in listings for sha256 in _named_in(directory / name)}
    young = (time.time() if now is None else now) - AT_WORK_S
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(directory.iterdir()):
            with contextlib.suppress(OSError):
                stays = path.name in listings or path.stem in named
                if not stays and path.stat(follow_symlinks=False).st_mtime < young:
                    yield path


def _named_in(listing: Path) -> list[Digest]:
    with contextlib.suppress(OscircError):
        raw = read_bytes(listing, accelerators.MAX_LISTING_BYTES)
        if raw is not None:
            return [each.sha256 for each in accelerators.parse_listing(raw).accelerators]
    return []
