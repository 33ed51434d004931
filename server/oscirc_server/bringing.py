"""Brings into the store what readers have seen and it has lost, from a mirror, a copy or a reader's own state.

For the day when database and store are both older than what clients know, so that they report a rollback. Nothing is
believed of the source: a root must continue the chain, a snapshot be signed by the key that the root names, roles and
documents be what it or they name, blocks what their digests say. What is verified is put into the store; once all
that the snapshot names is there, possibly after several sources, the start of a server (`reconciling`) takes it over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from oscirc_blockstore.digests import Digest, block_path, digest_of, parse_hex
from oscirc_blockstore.errors import IntegrityError, NotFoundError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, parse
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, manifest_path, parse_verified
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_blockstore.trust import image_of_target
from oscirc_server import metadata, repository
from oscirc_server.elsewhere import Elsewhere
from oscirc_server.installation import Installation
from oscirc_server.metadata import MAX_ROLE_BYTES, MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_path, target_path
from oscirc_server.tuf_api import Metadata, MetaFile, RepositoryError, Root, Snapshot, Targets, Timestamp

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Brought:
    """What a source gave: the snapshot's version that it has, files that were put, paths that nobody had so far."""

    snapshot_version: int
    files: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every role and index is there that the snapshot leads to; disks may still lack parts."""
        return not any(path.startswith(("metadata/", "targets/")) for path in self.missing)


def bring(
    installation: Installation, source: Elsewhere, root: Metadata[Root] | None = None, *, dry_run: bool = False
) -> Brought:
    """Put into the store what `source` has and it lacks (with `dry_run` only count it); changes nothing else.

    `root` is trusted, else ours is.
    """
    return _Bringing(installation, source, root, dry_run=dry_run).run()


class _Bringing:
    def __init__(
        self, installation: Installation, source: Elsewhere, root: Metadata[Root] | None, *, dry_run: bool
    ) -> None:
        self._dry_run = dry_run
        self._brought = Brought(0)
        self._counted: set[str] = set()
        self._storage: Storage = installation.storage
        self._source = source
        if root is None:
            with installation.database.read() as session:
                root = repository.current_root(session)
        self._root = root

    def run(self) -> Brought:
        self._roots()
        raw = self._source.read(TIMESTAMP_PATH, MAX_ROLE_BYTES)
        if raw is None:
            raise NotFoundError("the source has no timestamp")
        timestamp = metadata.parse(raw, Timestamp, "the source's timestamp")
        metadata.verify(self._root.signed, "timestamp", timestamp, "the source's timestamp")
        version = timestamp.signed.snapshot_meta.version
        self._brought.snapshot_version = version
        snapshot_raw = self._source.read(role_path("snapshot", version), MAX_SNAPSHOT_BYTES)
        if snapshot_raw is None:
            raise NotFoundError(f"the source lacks snapshot {version}, which its timestamp names")
        snapshot = metadata.parse(snapshot_raw, Snapshot, "the source's snapshot")
        metadata.verify(self._root.signed, "snapshot", snapshot, "the source's snapshot")
        for name, meta in snapshot.signed.meta.items():
            self._role(name.removesuffix(".json"), meta)
        self._put(role_path("snapshot", version), snapshot_raw)
        self._storage.sync()
        return self._brought

    def _roots(self) -> None:
        while True:
            version = self._root.signed.version + 1
            raw = self._source.read(role_path("root", version), MAX_ROOT_BYTES)
            if raw is None:
                return
            root = metadata.parse(raw, Root, "the source's root")
            metadata.verify_root_successor(self._root, root)
            if root.signed.version != version:
                return
            self._put(role_path("root", version), raw)
            self._root = root

    def _put(self, path: str, raw: bytes) -> None:
        if self._dry_run:
            self._brought.files += path not in self._counted and self._storage.size(path) is None
            self._counted.add(path)
        elif self._storage.put_if_absent(path, raw):
            self._brought.files += 1

    def _get(self, path: str, max_bytes: int) -> bytes | None:
        """From the store, else from the source; noted as missing when nobody has it."""
        raw = self._storage.get(path, max_bytes) or self._source.read(path, max_bytes)
        if raw is None:
            self._brought.missing.append(path)
        return raw

    def _role(self, role: str, meta: MetaFile) -> None:
        path = role_path(role, meta.version)
        raw = self._get(path, MAX_ROLE_BYTES)
        if raw is None:
            return
        try:
            meta.verify_length_and_hashes(raw)
            signed = metadata.parse(raw, Targets, f"{role}'s role").signed
        except (RepositoryError, OscircError) as error:
            _log.warning("a role is not what the snapshot names", extra={"path": path, "error": str(error)})
            self._brought.missing.append(path)
            return
        self._put(path, raw)
        for target, facts in signed.targets.items():
            self._document(role, target, parse_hex(facts.hashes["sha256"]))

    def _document(self, role: str, target: str, digest: Digest) -> None:
        path = target_path(target, digest)
        raw = self._get(path, MAX_INDEX_BYTES)
        if raw is None:
            return
        if digest_of(raw) != digest:
            self._brought.missing.append(path)
            return
        self._put(path, raw)
        if role != "targets":
            for version in parse(raw, role, image_of_target(role, target)).versions:
                self._manifest(version.manifest)

    def _manifest(self, digest: Digest) -> None:
        path = manifest_path(digest)
        raw = self._get(path, MAX_MANIFEST_BYTES)
        if raw is None:
            return
        try:
            manifest = parse_verified(raw, digest)
            self._put(path, raw)
            table = contents(manifest.geometry, manifest.root, self._node)
        except OscircError:
            self._brought.missing.append(path)
            return
        for block in table.blocks:
            if self._storage.size(block_path(block)) is None:
                self._block(block, manifest.geometry.block_size)

    def _node(self, digest: Digest) -> bytes:
        frame = self._get(block_path(digest), max_frame_bytes(NODE_SIZE))
        node = decode_verified(frame or b"", NODE_SIZE, digest)
        self._put(block_path(digest), frame or b"")
        return node

    def _block(self, digest: Digest, size: int) -> None:
        frame = self._source.read(block_path(digest), max_frame_bytes(size))
        try:
            decode_verified(frame or b"", size, digest)
        except IntegrityError:
            self._brought.missing.append(block_path(digest))
            return
        self._put(block_path(digest), frame or b"")
