"""Writes verified metadata into a mirror's tree: roles, roots, snapshot, and `timestamp.json` last, never backwards.

Everything that these files name stands in the tree already, or is fetched on demand. Roots go in right before the
snapshot: a reader that follows a new root refuses the timestamp that the old keys signed.
"""

from __future__ import annotations

from collections.abc import Iterable

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import IntegrityError, TrustError
from oscirc_server.metadata import MAX_ROLE_BYTES, parse, verify
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.verified import VerifiedMetadata, VerifiedRole
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_path, root_path
from oscirc_server.tuf_api import Root, Timestamp


def served_version(storage: Storage, root: Root | None = None) -> int:
    """The version of the timestamp that the tree has; 0 for none, and for one that `root` gives no authority to."""
    raw = storage.get(TIMESTAMP_PATH, MAX_ROLE_BYTES)
    try:
        if raw is None:
            return 0
        metadata = parse(raw, Timestamp, "the timestamp of the tree")
        if root is not None:
            verify(root, Timestamp.type, metadata, "the timestamp of the tree")
    except (IntegrityError, TrustError):
        return 0
    return metadata.signed.version


def put(storage: Storage, path: str, raw: bytes) -> None:
    """A file that never changes: in place of another one only where that is a damaged one."""
    if storage.get(path, len(raw)) != raw:
        storage.replace(path, raw)


def publish(directory: MirrorDirectory, verified: VerifiedMetadata, roles: Iterable[VerifiedRole] = ()) -> bool:
    """Let readers see this state; False where they see a newer one already."""
    storage = directory.storage
    with directory.publishing():
        newest_root = max(verified.roots)
        root = parse(verified.roots[newest_root], Root, "the root").signed
        # after a rotation of stolen online keys, versions begin anew: what the old keys signed counts no more
        behind = served_version(storage, root) > verified.timestamp_version
        if behind or storage.size(role_path("root", newest_root + 1)) is not None:
            return False
        for role in roles:
            put(storage, role_path(role.publisher, role.version), role.raw)
        put(storage, role_path("targets", verified.targets_version), verified.raw.targets)
        storage.sync()
        for version, raw in sorted(verified.roots.items()):
            put(storage, root_path(digest_of(raw)), raw)
            put(storage, role_path("root", version), raw)
        put(storage, role_path("snapshot", verified.snapshot_version), verified.raw.snapshot)
        storage.sync()
        put(storage, TIMESTAMP_PATH, verified.raw.timestamp)
        storage.sync()
    return True
