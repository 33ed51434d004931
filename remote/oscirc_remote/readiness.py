"""How much of an image is on this machine: all of it, and what its boot profile names.

What a bundle holds is known from its index, which is kept in the cache beside the listing that names the bundle; both
are hints that nobody signed, good enough to tell a user what to expect, never to decide what a guest reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import accelerators
from oscirc_blockstore.bundle import MAX_INDEX_BYTES, parse_index
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import LocalError, OscircError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY, STORE_DIRECTORY
from oscirc_remote.local_files import read_bytes, write_atomically
from oscirc_remote.table_view import TableView, entries

HOLD_FACTOR = 10


@dataclass(frozen=True, slots=True)
class ProfileShare:
    """Of what a boot profile names (nodes and blocks), how many are here; `total` 0: no profile is known."""

    total: int = 0
    here: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Of an image's blocks with data, how many are here, and the same for its boot profile."""

    blocks: int
    blocks_here: int
    profile: ProfileShare

    @property
    def is_complete(self) -> bool:
        """Whether the network can be unplugged for good."""
        return self.blocks_here == self.blocks

    @property
    def is_ready_to_boot(self) -> bool:
        """Whether a boot needs no network, as far as a profile tells."""
        return self.is_complete or 0 < self.profile.total == self.profile.here


def listing_file(cache_directory: Path, manifest: Digest) -> Path:
    """Where the listing of a disk is kept."""
    return cache_directory / ACCELERATORS_DIRECTORY / f"{manifest.hex()}.json"


def index_file(cache_directory: Path, bundle: Digest) -> Path:
    """Where the index of a bundle is kept."""
    return cache_directory / ACCELERATORS_DIRECTORY / f"{bundle.hex()}.index"


def keep_listing(cache_directory: Path, raw: bytes, manifest: Digest) -> None:
    """Remember which accelerators there are; a disk that does not take it is no error."""
    try:
        write_atomically(listing_file(cache_directory, manifest), raw, synced=False)
    except LocalError:
        return


def profile_digests(cache_directory: Path, manifest: Digest, name: str) -> tuple[Digest, ...]:
    """What the boot profile of that name needs, nodes and blocks; empty where it is not known."""
    try:
        raw = read_bytes(listing_file(cache_directory, manifest), accelerators.MAX_LISTING_BYTES)
        listing = None if raw is None else accelerators.parse_listing(raw)
        bundle = None if listing is None else listing.find(accelerators.BUNDLE, name)
        if bundle is None:
            return ()
        raw = read_bytes(index_file(cache_directory, bundle.sha256), MAX_INDEX_BYTES)
        index = None if raw is None else parse_index(raw)
    except OscircError:
        return ()
    if index is None or index.manifest != manifest:
        return ()
    return tuple(entry.digest for segment in index.segments for entry in segment.entries)


class ProfileWatch:
    """The share of one profile, for a status that is asked for often: looked up again only after ten times as long."""

    def __init__(self, cache_directory: Path, manifest: Digest, name: str, has: Callable[[Digest], bool]) -> None:
        self._cache_directory = cache_directory
        self._manifest = manifest
        self._name = name
        self._has = has
        self._digests: tuple[Digest, ...] = ()
        self._valid_until = 0.0
        self._share = ProfileShare()

    def share(self) -> ProfileShare:
        """What is here now, or was a moment ago."""
        began = time.monotonic()
        if began < self._valid_until:
            return self._share
        self._digests = self._digests or profile_digests(self._cache_directory, self._manifest, self._name)
        self._share = ProfileShare(len(self._digests), sum(map(self._has, self._digests)))
        self._valid_until = began + HOLD_FACTOR * (time.monotonic() - began)
        return self._share


def look(cache_directory: Path, digest: Digest, manifest: Manifest, profile: str) -> Readiness:
    """How much of an image that nobody mounted is here; goes through its whole table."""
    store = LocalStore(cache_directory / STORE_DIRECTORY)
    table = TableView(manifest.geometry, manifest.root)
    leaves = table.leaves(lambda node: store.load(node, NODE_SIZE))
    here = sum(store.has(block) for _, leaf in leaves for block in entries(leaf))
    return Readiness(manifest.data_blocks, here, ProfileWatch(cache_directory, digest, profile, store.has).share())
