"""Mirrors of one repository: each an nginx of its own behind a link of its own, and what befalls them.

A mirror that is *killed* is gone as a server is that crashed: its connections are closed at once and its port refuses.
One that *falls silent* is gone as behind a pulled cable: connections stay open, nothing comes. One that *lies* serves a
copy of the tree in which files are not what their names say.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from link import Counters, Link
from support.commands import free_port
from support.nginx import Nginx, nginx

EVERY = 10
STRETCH = 256 << 10
"""Bytes of a bundle between two places that may be damaged: a block's."""
_BUNDLE = b"OSCBNDL1"


@dataclass
class Mirror:
    """A running mirror. `url` is what a client asks; `served` knows what nginx was asked."""

    url: str
    link: Link
    served: Nginx
    _running: contextlib.ExitStack
    _last: Counters | None = field(default=None, init=False)

    def passed(self) -> Counters:
        """What its link carried, until it was killed or until now."""
        return self._last or self.link.tell()

    def kill(self) -> None:
        """End link and server, whatever is under way."""
        self._last = self.passed()
        self._running.close()

    def fall_silent(self) -> None:
        """Nothing comes from it any more, and nothing says so."""
        self.link.tell("cut")


@contextlib.contextmanager
def mirror(tree: Path, work: Path, *, rate_bits: float, round_trip_s: float) -> Iterator[Mirror]:
    """Serve a tree at the far end of a link, keeping files in `work`, which must not be there yet."""
    with contextlib.ExitStack() as running:
        served = running.enter_context(nginx(tree, work, free_port()))
        link = running.enter_context(Link(served.port, rate_bits=rate_bits, round_trip_s=round_trip_s))
        yield Mirror(f"http://127.0.0.1:{link.port}", link, served, running)


def bundle_of(tree: Path) -> Path:
    """The one bundle of a stage's tree."""
    (bundle,) = (file for file in (tree / "accel").iterdir() if file.is_file() and _starts_as_bundle(file))
    return bundle


def _starts_as_bundle(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(_BUNDLE)) == _BUNDLE


@dataclass(frozen=True, slots=True)
class Damage:
    """What of a copied tree has one bit flipped: block files, and bits in the bundle, of how many stretches."""

    block_files: int
    of_block_files: int
    bundle_bits: int


def lying_copy(tree: Path, target: Path, first: int = 0) -> Damage:
    """Copy a tree, with one bit flipped in every tenth block file and in every tenth stretch of the bundle.

    `first` below ten says which tenth: copies with different ones lie about different blocks. What is not damaged is
    linked, not copied. Which bit of a block file it is depends on the file's name alone: any, in header or content.
    """
    shutil.copytree(tree, target, copy_function=os.link)
    files = sorted((target / "blocks").rglob("*.zst"))
    chosen = files[first::EVERY]
    for file in chosen:
        _flip(file, [_place(file)])
    bundle = bundle_of(target)
    places = list(range((2 * first + 1) * STRETCH // 2, bundle.stat().st_size, EVERY * STRETCH))
    _flip(bundle, places)
    return Damage(len(chosen), len(files), len(places))


def _place(file: Path) -> int:
    digest = hashlib.sha256(file.name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % file.stat().st_size


def _flip(file: Path, places: list[int]) -> None:
    """Flip a bit of these bytes in a new file of that name: the old one is a link to what others serve."""
    body = bytearray(file.read_bytes())
    for place in places:
        body[place] ^= 1
    changed = file.with_name(file.name + ".new")
    changed.write_bytes(body)
    changed.replace(file)
