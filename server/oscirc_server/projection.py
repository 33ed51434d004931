"""The tree as a projection of the database: documents first, then roles, then the snapshot, the timestamp last.

Whoever calls this holds the writer's lock, and `confirm` says whether that is still so: it is asked before the first
file and before the timestamp, which is never to go back to what an older holder of the lock knew.
A reader who has fetched a timestamp therefore finds everything that it leads to. Files that stand with the right
length are left alone: all but the timestamp are immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.manifest import manifest_path
from oscirc_server.metadata import SignedMetadata
from oscirc_server.models import Document, ManifestRow, SignedRole
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_path, root_path

_PREFIXES = ("metadata", "targets", "roots", "manifests")


@dataclass(slots=True)
class Projected:
    """What one change has to put into the tree."""

    roles: list[SignedMetadata] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[bytes, bytes] = field(default_factory=dict)


def _role_order(role: str) -> int:
    return {"snapshot": 1, "timestamp": 2}.get(role, 0)


def _role_files(role: str, version: int, raw: bytes) -> Iterator[tuple[str, bytes]]:
    yield role_path(role, version), raw
    if role == "root":
        yield root_path(digest_of(raw)), raw


def project(storage: Storage, new: Projected, confirm: Callable[[], None]) -> None:
    """Write one change."""
    confirm()
    for path, raw in new.documents.items():
        storage.replace(path, raw)
    for digest, raw in new.manifests.items():
        storage.replace(manifest_path(Digest(digest)), raw)
    for signature in sorted(new.roles, key=lambda item: _role_order(item.role)):
        for path, raw in _role_files(signature.role, signature.version, signature.raw):
            if path == TIMESTAMP_PATH:
                confirm()
            storage.replace(path, raw)


def project_all(storage: Storage, session: Session, confirm: Callable[[], None]) -> int:
    """Write whatever the tree lacks or holds with another length; returns how many files that were."""
    confirm()
    present = {file.path: file.size for prefix in _PREFIXES for file in storage.files(prefix)}
    written = 0
    for path, size, raw in _expected(session):
        if present.get(path) != size:
            storage.replace(path, raw())
            written += 1
    newest = session.scalar(
        select(SignedRole.raw).where(SignedRole.role == "timestamp").order_by(SignedRole.version.desc()).limit(1)
    )
    if newest is not None and storage.get(TIMESTAMP_PATH, len(newest)) != newest:
        confirm()
        storage.replace(TIMESTAMP_PATH, newest)
        written += 1
    return written


def _expected(session: Session) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(path, length, loader) of every file but the timestamp, snapshots after all else.

    Bytes are loaded where they are needed only, so that a large repository is not read to be compared.
    """

    def load(query: Select[bytes]) -> bytes:
        return session.scalars(query).one()

    for path, size in session.execute(select(Document.path, func.length(Document.raw))):
        yield path, size, partial(load, select(Document.raw).where(Document.path == path))
    for digest, size in session.execute(select(ManifestRow.digest, func.length(ManifestRow.raw))):
        yield (
            manifest_path(Digest(digest)),
            size,
            partial(load, select(ManifestRow.raw).where(ManifestRow.digest == digest)),
        )
    roles = session.execute(
        select(SignedRole.role, SignedRole.version, func.length(SignedRole.raw)).where(SignedRole.role != "timestamp")
    ).all()
    for role, version, size in sorted(roles, key=lambda item: (_role_order(item[0]), item[1])):
        raw = partial(load, select(SignedRole.raw).where(SignedRole.role == role, SignedRole.version == version))
        yield role_path(role, version), size, raw
        if role == "root":
            yield root_path(digest_of(raw())), size, raw
