"""At the start: the database and the store are brought to agree, whatever happened to either of them meanwhile.

- After a reboot of the machine, uploaded frames that no release had synced yet lose their rows: a power cut may have
  taken their bytes. The next upload verifies the files where they stand.
- A store that is ahead of the database (restored from an older copy) is believed as far as signatures reach: newer
  roots that continue the chain, and every role that the newest snapshot signed by this repository's own key names.
  Version numbers that were seen there are never used again.
- Whatever the database holds and the tree lacks is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
from pathlib import Path

from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.digests import Digest, block_path, parse_hex
from oscirc_blockstore.errors import IntegrityError, LocalError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_blockstore.repository_facts import MAX_BYTES, TARGET
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server import repository
from oscirc_server.database import get_fact, set_fact
from oscirc_server.disavowed import Disavowed, disavowed
from oscirc_server.installation import Installation
from oscirc_server.metadata import MAX_ROLE_BYTES, MAX_ROOT_BYTES, parse, stored, verify, verify_root_successor
from oscirc_server.models import ManifestRow
from oscirc_server.repository import Change
from oscirc_server.services import accelerators, blocks, image_rows
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_of_path, role_path, target_path
from oscirc_server.tuf_api import MetaFile, RepositoryError, Root, Snapshot, Targets, Timestamp

BOOT_ID = "boot_id"

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
_MAX_VERSION = 10**12  # what no honest repository reaches: a planted file must not use up the numbers
_log = logging.getLogger(__name__)


def reconcile(installation: Installation) -> None:
    """Bring database and store to agree; afterwards the tree is complete and its timestamp is the database's."""
    _forget_unsynced(installation)
    with installation.database.read() as session:
        snapshot, timestamp = _newest_in_store(installation.storage, disavowed(session))

    def is_behind(session: Session) -> bool:
        return (
            snapshot > repository.current_version(session, "snapshot")
            or timestamp > repository.current_version(session, "timestamp")
            or repository.online_due(session, installation.now_s())
        )

    with installation.database.read() as session:
        behind = is_behind(session)
    if behind:
        with contextlib.suppress(repository.NotDueError), repository.changing(installation) as change:
            if not is_behind(change.session):  # another server that started at the same moment has done it
                raise repository.NotDueError
            change.stay_above(snapshot=snapshot, timestamp=timestamp)
            _adopt(installation.storage, change, snapshot)
    written = repository.project_everything(installation)
    accelerators.project_all(installation)
    if written:
        _log.warning("the tree was completed from the database", extra={"files": written})


def _forget_unsynced(installation: Installation) -> None:
    if installation.storage.durable_on_put:
        return
    try:
        boot = _BOOT_ID_PATH.read_text().strip()
    except OSError:
        boot = "unknown"
    name = f"{BOOT_ID}:{hashlib.sha256(platform.node().encode()).hexdigest()[:16]}"  # machines that share a directory
    with installation.database.write() as session:
        before = get_fact(session, name)
        if before is not None and (before != boot or boot == "unknown"):
            blocks.forget_staged(session)
        set_fact(session, name, boot)


def _newest_in_store(storage: Storage, gone: Disavowed) -> tuple[int, int]:
    """The highest snapshot and timestamp version numbers that stand in the store, 0 for none; not a thief's.

    Files of versions that were disavowed are removed: a crash may have come between that and their removal.
    """
    snapshot = 0
    for file in list(storage.files("metadata")):
        found = role_of_path(file.path)
        if found is not None and found[1] in gone.get(found[0], frozenset()):
            storage.remove(file.path)
        elif found is not None and found[0] == "snapshot" and found[1] <= _MAX_VERSION:
            snapshot = max(snapshot, found[1])
    raw = storage.get(TIMESTAMP_PATH, MAX_ROLE_BYTES)
    try:
        timestamp = 0 if raw is None else parse(raw, Timestamp, TIMESTAMP_PATH).signed.version
    except IntegrityError:
        timestamp = 0
    usable = timestamp <= _MAX_VERSION and timestamp not in gone.get("timestamp", frozenset())
    return snapshot, timestamp if usable else 0


def _adopt(storage: Storage, change: Change, newest_snapshot: int) -> None:
    """Take over what the store has and the database lacks, as far as it is signed."""
    _adopt_roots(storage, change)
    known = repository.current_version(change.session, "snapshot")
    for version in range(newest_snapshot, max(known, newest_snapshot - 1000), -1):
        snapshot = _own_snapshot(storage, change.session, version)
        if snapshot is not None:
            _log.warning("the store is ahead of the database: taken over", extra={"snapshot": version})
            for name, meta in sorted(snapshot.meta.items(), key=lambda item: item[0] != "targets.json"):
                _adopt_role(storage, change, name.removesuffix(".json"), meta)
            return


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
            hint="restore a newer copy of the database, or the tree from a mirror",
        ) from None
    change.add_role(stored(role, signed, raw))
    try:
        if role == "targets":
            _adopt_targets(storage, change, signed)
        else:
            _adopt_images(storage, change, role, signed)
    except (RepositoryError, OscircError) as error:
        _log.error("a role was taken over without all that it names", extra={"role": role, "error": str(error)})


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
    image_rows.list_only(change.session, publisher, images)


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
    return sum(length for _, _, length in found)
