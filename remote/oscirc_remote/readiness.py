"""How much of an image is on this machine: all of it, and what its boot profile names.

What a profile names is known from a bundle's index, which has the nodes as well, or from the profile itself, whose
positions are looked up in the table. They are kept in the cache beside the listing that names them: hints that nobody
signed, good enough to tell a user what to expect, never to decide what a guest reads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import accelerators, profile
from oscirc_blockstore.accelerators import Listing
from oscirc_blockstore.bundle import MAX_INDEX_BYTES, parse_index
from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import LocalError, OscircError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY, STORE_DIRECTORY
from oscirc_remote.local_files import read_bytes, write_atomically
from oscirc_remote.table_view import LoadNode, TableView, entries

HOLD_FACTOR = 10


@dataclass(frozen=True, slots=True)
class ProfileShare:
    """Of what a boot profile names (nodes and blocks), how many are here; `total` 0: no profile is known."""

    total: int = 0
    here: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Of an image's blocks with data, how many are here, and the same for its boot profile.

    `is_complete`: every node and block is here, so that the network can be unplugged for good.
    """

    blocks: int
    blocks_here: int
    profile: ProfileShare
    is_complete: bool

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


def profile_file(cache_directory: Path, sha256: Digest) -> Path:
    """Where a profile is kept."""
    return cache_directory / ACCELERATORS_DIRECTORY / f"{sha256.hex()}.profile"


def keep_listing(cache_directory: Path, raw: bytes, manifest: Digest) -> None:
    """Remember which accelerators there are; a disk that does not take it is no error."""
    with contextlib.suppress(LocalError):
        write_atomically(listing_file(cache_directory, manifest), raw, synced=False)


def keep_profile(cache_directory: Path, raw: bytes, sha256: Digest) -> None:
    """Remember what a profile names, likewise."""
    with contextlib.suppress(LocalError):
        write_atomically(profile_file(cache_directory, sha256), raw, synced=False)


def _known(cache_directory: Path, manifest: Digest) -> Listing:
    raw = read_bytes(listing_file(cache_directory, manifest), accelerators.MAX_LISTING_BYTES)
    return Listing(manifest, ()) if raw is None else accelerators.parse_listing(raw)


def bundle_digests(cache_directory: Path, manifest: Digest, name: str) -> tuple[Digest, ...]:
    """What the bundle that is fetched for it holds, nodes and blocks; empty where it is not known."""
    with contextlib.suppress(OscircError):
        bundle = _known(cache_directory, manifest).bundle_for(name)
        raw = None if bundle is None else read_bytes(index_file(cache_directory, bundle.sha256), MAX_INDEX_BYTES)
        index = None if raw is None else parse_index(raw)
        if index is not None and index.manifest == manifest:
            return tuple(entry.digest for segment in index.segments for entry in segment.entries)
    return ()


def profile_positions(cache_directory: Path, manifest: Digest, name: str) -> tuple[int, ...]:
    """The positions that the profile of that name states; empty where it is not known."""
    with contextlib.suppress(OscircError):
        listed = _known(cache_directory, manifest).profile_for(name)
        path = None if listed is None else profile_file(cache_directory, listed.sha256)
        raw = None if path is None else read_bytes(path, profile.MAX_PROFILE_BYTES)
        recorded = None if raw is None else profile.parse(raw)
        if recorded is not None and recorded.manifest == manifest:
            return recorded.positions
    return ()


class ProfileWatch:
    """The share of one profile, for a status that is asked for often: looked up again only after ten times as long.

    `node` gives a node's verified bytes if it is here.
    """

    def __init__(
        self,
        cache_directory: Path,
        digest: Digest,
        table: TableView,
        name: str,
        *,
        has: Callable[[Digest], bool],
        node: LoadNode,
    ) -> None:
        self._known = cache_directory, digest, name
        self._table = table
        self._has = has
        self._node = node
        self._digests: tuple[Digest, ...] = ()
        self._positions: tuple[int, ...] = ()
        self._valid_until = 0.0
        self._share = ProfileShare()

    def share(self) -> ProfileShare:
        """What is here now, or was a moment ago."""
        began = time.monotonic()
        if began >= self._valid_until:
            self._share = self._look()
            self._valid_until = began + HOLD_FACTOR * (time.monotonic() - began)
        return self._share

    def _look(self) -> ProfileShare:
        self._digests = self._digests or bundle_digests(*self._known)
        if self._digests:
            return ProfileShare(len(self._digests), sum(map(self._has, self._digests)))
        self._positions = self._positions or tuple(
            position for position in profile_positions(*self._known) if position < self._table.geometry.block_count
        )
        return ProfileShare(len(self._positions), sum(map(self._is_here, self._positions)))

    def _is_here(self, position: int) -> bool:
        try:
            digest = self._table.digest_at(position, self._node)
        except OscircError:
            return False
        return digest is not None and (digest == ZERO_DIGEST or self._has(digest))


def profile_share(cache_directory: Path, digest: Digest, manifest: Manifest, name: str) -> ProfileShare:
    """How much of a profile is in the cache now."""
    store = LocalStore(cache_directory / STORE_DIRECTORY)
    table = TableView(manifest.geometry, manifest.root)
    return ProfileWatch(cache_directory, digest, table, name, has=store.has, node=_loader(store)).share()


def look(cache_directory: Path, digest: Digest, manifest: Manifest, name: str) -> Readiness:
    """How much of an image that nobody mounted is here; goes through its whole table, through what repeats once."""
    store = LocalStore(cache_directory / STORE_DIRECTORY)
    load = _loader(store)
    counted: dict[tuple[Digest, int], tuple[int, bool]] = {}

    def count(node: Digest, level: int) -> tuple[int, bool]:
        """Positions below a node whose blocks are here, and whether all are."""
        known = counted.get((node, level))
        if known is None:
            raw = load(node)
            if raw is None:
                known = 0, False
            elif level == 0:
                here = [store.has(block) for block in entries(raw)]
                known = sum(here), all(here)
            else:
                below = [count(child, level - 1) for child in entries(raw)]
                known = sum(each for each, _ in below), all(whole for _, whole in below)
            counted[node, level] = known
        return known

    root = manifest.root
    here, complete = (0, True) if root.digest == ZERO_DIGEST else count(root.digest, manifest.geometry.depth - 1)
    share = profile_share(cache_directory, digest, manifest, name)
    return Readiness(manifest.data_blocks, here, share, complete)


def _loader(store: LocalStore) -> LoadNode:
    """To look is not to use."""
    return lambda node: store.load(node, NODE_SIZE, counts=False)
