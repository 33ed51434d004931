"""Removes from a replica what nothing names any more, a grace after it was first found so.

Named is what the published metadata leads to: its files, and manifests, blocks, nodes and accelerators of the versions
that are selected, complete or not. Roots stay for ever. What is not named is written down with the time; a file that is
still not named at a run which is the grace later goes: names first, then what they named, so that no reader is led to
what is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import hint_path, listing_path
from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import IntegrityError
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_remote.local_files import write_atomically
from oscirc_remote.table_view import TableView, entries
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.frames import FrameStore, digest_of_path
from oscirc_server.mirroring.gathering import State, Wanted
from oscirc_server.mirroring.selection import Selection
from oscirc_server.storage import StoredFile
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_of_path, role_path

DEFAULT_GRACE_S = 7 * 86_400.0  # for as long a snapshot that named it may be in somebody's hands
_NAMES_FIRST = ("metadata", "targets", "accel", "manifests", "blocks")


@dataclass(frozen=True, slots=True)
class Pruned:
    """Files and bytes: removed now, and found without a name but in their grace."""

    removed: int = 0
    removed_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0


def prune(
    directory: MirrorDirectory,
    state: State,
    selection: Selection,
    *,
    grace_s: float = DEFAULT_GRACE_S,
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
) -> Pruned:
    """Look, remove what is due (unless `dry_run`), and remember the rest. The caller is the one sync."""
    wanted = state.wanted(selection)
    kept_blocks = _blocks(directory, wanted)
    kept_paths = _paths(directory, state, selection, wanted)
    since = _remembered(directory)
    moment, removed, waiting, unnamed = now(), Pruned(), Pruned(), dict[str, float]()
    goes: list[StoredFile] = []
    for file in _files(directory):
        digest = digest_of_path(file.path)
        if file.path in kept_paths if digest is None else digest in kept_blocks:
            continue
        first_seen = since.get(file.path, moment)
        if moment - first_seen >= grace_s:
            goes.append(file)
        else:
            unnamed[file.path] = first_seen
            waiting = Pruned(waiting=waiting.waiting + 1, waiting_bytes=waiting.waiting_bytes + file.size)
    removed = Pruned(len(goes), sum(file.size for file in goes), waiting.waiting, waiting.waiting_bytes)
    if not dry_run:
        for file in goes:
            digest = digest_of_path(file.path)
            if digest is None and file.path.startswith("manifests/"):
                directory.forget_complete(Digest(bytes.fromhex(file.path[len("manifests/") :].removesuffix(".json"))))
            directory.storage.remove(file.path)
        lines = "".join(f"{int(first_seen)} {path}\n" for path, first_seen in sorted(unnamed.items()))
        write_atomically(directory.condemned_file, lines.encode("ascii"))
    return removed


def _files(directory: MirrorDirectory) -> Iterator[StoredFile]:
    for prefix in _NAMES_FIRST:
        for file in directory.storage.files(prefix):
            role = role_of_path(file.path)
            if file.path != TIMESTAMP_PATH and (role is None or role[0] != "root"):
                yield file


def _blocks(directory: MirrorDirectory, wanted: Sequence[Wanted]) -> set[Digest]:
    """Nodes and blocks of the versions, as far as their tables are here."""
    frames = FrameStore(directory.storage)
    kept: set[Digest] = set()
    leaves: set[Digest] = set()

    def load(digest: Digest) -> bytes | None:
        kept.add(digest)
        return None if digest == ZERO_DIGEST or digest in leaves else frames.load(digest)

    for manifest in _manifests(directory, wanted):
        table = TableView(manifest.geometry, manifest.root, remembered_nodes=1)
        with contextlib.suppress(IntegrityError):  # a table that is refused names nothing
            for digest, leaf in table.leaves(load):
                leaves.add(digest)
                kept.update(entries(leaf))
    return kept


def _manifests(directory: MirrorDirectory, wanted: Iterable[Wanted]) -> Iterator[Manifest]:
    for each in wanted:
        raw = directory.storage.get(manifest_path(each.manifest), MAX_MANIFEST_BYTES)
        with contextlib.suppress(IntegrityError):
            if raw is not None:
                yield parse_verified(raw, each.manifest)


def _paths(directory: MirrorDirectory, state: State, selection: Selection, wanted: Sequence[Wanted]) -> set[str]:
    """Everything but blocks and roots that is named."""
    verified = state.verified
    kept = {
        role_path("targets", verified.targets_version),
        role_path("snapshot", verified.snapshot_version),
        *(role_path(publisher, meta.version) for publisher, meta in verified.metas.items()),
        *state.documents,
        *(hint_path(i.publisher, i.image) for i in state.indexes if selection.takes(i.publisher, i.image)),
    }
    for each in wanted:
        kept |= {manifest_path(each.manifest), listing_path(each.manifest)}
        raw = directory.storage.get(listing_path(each.manifest), accelerators.MAX_LISTING_BYTES)
        with contextlib.suppress(IntegrityError):
            if raw is not None:
                kept.update(item.path for item in accelerators.parse_listing(raw).accelerators)
    return kept


def _remembered(directory: MirrorDirectory) -> dict[str, float]:
    """Since when each path has had no name."""
    found: dict[str, float] = {}
    with (
        contextlib.suppress(FileNotFoundError),
        directory.condemned_file.open(encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            since, _, path = line.rstrip("\n").partition(" ")
            if since.isdigit():
                found[path] = float(since)
    return found
