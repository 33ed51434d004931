"""What the store has and the database lacks, taken over as far as signatures reach: after a restore of an older copy.

In this order, within one change of the repository:

1. roots that continue the chain;
2. every role that the newest snapshot signed with the online key in force names: readers have been shown it. One that
   is nowhere keeps the server from starting, since an older version in the next snapshot would make every reader refuse
   the whole repository;
3. beyond what snapshots name (the newest may be lost): the newest targets role and publishers' roles that are signed by
   the keys in force and lead to complete indexes, `MOST_AHEAD` numbers further at most. Their signer did release them,
   and their numbers are taken.

`ahead` tells whether there is anything of that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.digests import Digest, block_path, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_blockstore.repository_facts import MAX_BYTES, TARGET
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server import delegations, repository
from oscirc_server.metadata import MAX_ROLE_BYTES, MAX_ROOT_BYTES, parse, stored, verify, verify_root_successor
from oscirc_server.models import ManifestRow
from oscirc_server.repository import Change
from oscirc_server.services import blocks, image_rows
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import role_path, target_path
from oscirc_server.tuf_api import MetaFile, RepositoryError, Root, Snapshot, Targets

MOST_AHEAD = 1000
"""So far beyond the database a role is believed by its own signature: who stole its key cannot jump further."""

_log = logging.getLogger(__name__)


def ahead(session: Session, in_store: Mapping[str, int]) -> bool:
    """Whether the store has a role at a version above the database's; of roles that nobody delegates to, never."""
    known = {"root", "targets", "snapshot", *delegations.publishers(repository.current_targets(session).signed)}
    return any(number > repository.current_version(session, role) for role, number in in_store.items() if role in known)


def adopt(storage: Storage, change: Change, in_store: Mapping[str, int]) -> None:
    """Take over what the store has, by the rules above; `in_store` holds the highest number of each role there."""
    _adopt_roots(storage, change)
    _adopt_shown(storage, change, in_store.get("snapshot", 0))
    _adopt_newest(storage, change, "targets", in_store)
    for publisher in delegations.publishers(repository.current_targets(change.session).signed):
        _adopt_newest(storage, change, publisher, in_store)


def _adopt_shown(storage: Storage, change: Change, newest_snapshot: int) -> None:
    """Rule 2."""
    known = repository.current_version(change.session, "snapshot")
    for version in range(newest_snapshot, max(known, newest_snapshot - MOST_AHEAD), -1):
        snapshot = _own_snapshot(storage, change.session, version)
        if snapshot is not None:
            _log.warning("the store is ahead of the database: taken over", extra={"snapshot": version})
            for name, meta in sorted(snapshot.meta.items(), key=lambda item: item[0] != "targets.json"):
                _adopt_role(storage, change, name.removesuffix(".json"), meta)
            return


def _adopt_newest(storage: Storage, change: Change, role: str, in_store: Mapping[str, int]) -> None:
    """Rule 3."""
    known = repository.current_version(change.session, role)
    for version in range(min(in_store.get(role, 0), known + MOST_AHEAD), known, -1):
        raw = storage.get(role_path(role, version), MAX_ROLE_BYTES)
        if raw is None:
            continue
        try:
            with change.session.begin_nested():
                _adopt_signed(storage, change, role, version, raw)
        except (RepositoryError, OscircError) as error:
            change.forget_role(role, version)
            _log.warning("a role in the store is not taken over", extra={"role": role, "error": str(error)})
            continue
        _log.warning("a role that no snapshot names was taken over", extra={"role": role, "version": version})
        return


def _adopt_signed(storage: Storage, change: Change, role: str, version: int, raw: bytes) -> None:
    """A role that its own signer's keys in force vouch for, with all that it names."""
    session = change.session
    metadata = parse(raw, Targets, f"{role}'s role in the store")
    delegator = repository.current_root(session) if role == "targets" else repository.current_targets(session)
    verify(delegator.signed, role, metadata, f"{role}'s role in the store")
    if metadata.signed.version != version:
        raise DocumentRefusedError(f"{role}'s role in the store is not version {version}")
    change.add_role(stored(role, metadata.signed, raw))
    adopt_named(storage, change, role, metadata.signed)


def _adopt_roots(storage: Storage, change: Change) -> None:
    while True:
        current = repository.current_root(change.session)
        raw = storage.get(role_path("root", current.signed.version + 1), MAX_ROOT_BYTES)
        if raw is None:
            return
        try:
            root = parse(raw, Root, "a root in the store")
            verify_root_successor(current, root)
        except OscircError as error:
            _log.warning("a root in the store is not the next one", extra={"error": str(error)})
            return
        if root.signed.version != current.signed.version + 1:
            return
        change.add_role(stored("root", root.signed, raw))


def _own_snapshot(storage: Storage, session: Session, version: int) -> Snapshot | None:
    raw = storage.get(role_path("snapshot", version), MAX_ROLE_BYTES)
    if raw is None:
        return None
    try:
        metadata = parse(raw, Snapshot, "a snapshot in the store")
        verify(repository.current_root(session).signed, "snapshot", metadata, "a snapshot in the store")
    except OscircError as error:
        _log.warning("a snapshot in the store is not this repository's", extra={"error": str(error)})
        return None
    return metadata.signed


def _adopt_role(storage: Storage, change: Change, role: str, meta: MetaFile) -> None:
    if meta.version <= repository.current_version(change.session, role):
        return
    raw = storage.get(role_path(role, meta.version), MAX_ROLE_BYTES) or b""
    try:
        meta.verify_length_and_hashes(raw)
        signed = parse(raw, Targets, f"{role}'s role in the store").signed
    except (RepositoryError, OscircError):
        # An older version in the next snapshot would make every client refuse the whole repository.
        raise LocalError(
            f"readers have seen version {meta.version} of {role}'s role, and neither database nor store has it",
            hint="restore a newer copy, or bring it from a mirror or a reader with: oscirc serve adopt",
        ) from None
    change.add_role(stored(role, signed, raw))
    try:
        adopt_named(storage, change, role, signed)
    except (RepositoryError, OscircError) as error:
        _log.error("a role was taken over without all that it names", extra={"role": role, "error": str(error)})


def adopt_named(storage: Storage, change: Change, role: str, signed: Targets) -> None:
    """Documents, manifests and rows of what a role that was taken over names; they stand in the store."""
    if role == "targets":
        _adopt_targets(storage, change, signed)
    else:
        _adopt_images(storage, change, role, signed)


def _adopt_targets(storage: Storage, change: Change, targets: Targets) -> None:
    path = target_path(TARGET, parse_hex(targets.targets[TARGET].hashes["sha256"]))
    raw = storage.get(path, MAX_BYTES)
    if raw is not None:
        change.add_document(path, raw)


def _adopt_images(storage: Storage, change: Change, publisher: str, role: Targets) -> None:
    images: dict[str, str] = {}
    for target, facts in role.targets.items():
        image = trust.image_of_target(publisher, target)
        path = target_path(target, parse_hex(facts.hashes["sha256"]))
        raw = storage.get(path, MAX_INDEX_BYTES) or b""
        facts.verify_length_and_hashes(raw)
        index = image_index.parse(raw, publisher, image)
        change.add_document(path, raw)
        _adopt_manifests(storage, change, index)
        image_rows.record(change.session, index, path, change.now_s)
        images[image] = path
    image_rows.list_only(change.session, publisher, images, change.now_s)


def _adopt_manifests(storage: Storage, change: Change, index: ImageIndex) -> None:
    for version in index.versions:
        if change.session.get(ManifestRow, version.manifest) is not None:
            continue
        raw = storage.get(manifest_path(version.manifest), MAX_MANIFEST_BYTES) or b""
        manifest = parse_verified(raw, version.manifest)
        change.add_manifest(version.manifest, raw, _adopt_blocks(storage, change, manifest))


def _adopt_blocks(storage: Storage, change: Change, manifest: Manifest) -> int:
    """Rows for the frames of a released version (they were judged before it was); returns their bytes."""

    def load(digest: Digest) -> bytes:
        frame = storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
        return decode_verified(frame or b"", NODE_SIZE, digest)

    table = contents(manifest.geometry, manifest.root, load)
    sizes = dict.fromkeys(table.nodes, NODE_SIZE) | dict.fromkeys(table.blocks, manifest.geometry.block_size)
    found: list[tuple[Digest, int, int]] = []
    for digest, raw_size in sizes.items():
        length = storage.size(block_path(digest))
        if length is not None:
            found.append((digest, raw_size, length))
    blocks.add(change.session, found, durable=True, now_s=change.now_s)
    blocks.needed_again(change.session, [digest for digest, _, _ in found])
    return sum(length for _, _, length in found)
