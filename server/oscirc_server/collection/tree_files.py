"""Rows and files of everything but blocks: manifests, documents, old metadata, accelerators.

Rows go first, under the writer's lock; files of which there is no row follow when they are older than `orphan_age_s`.
Metadata with a higher number than the database knows is never touched: it is the witness by which a server that was
restored from an older copy finds out (`reconciling`). Roots stay for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_server.collection import roots
from oscirc_server.collection.report import Report
from oscirc_server.collection.roots import Told
from oscirc_server.database import chunks
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES
from oscirc_server.locks import WRITER, Held
from oscirc_server.models import AcceleratorRow, Document, ImageRow, ManifestRow, ProfileRun, SignedRole
from oscirc_server.services import audit
from oscirc_server.storage import StoredFile
from oscirc_server.tree_paths import role_of_path

_NAMED = re.compile(r"(?:manifests|accel)/([0-9a-f]{64})(?:\.json)?")
_HINT = re.compile(r"accel/hints/([^/]+)/([^/]+)\.json")


def retirable(session: Session, told: Told) -> frozenset[Digest]:
    """The manifests that no client can ask for any more."""
    digests = session.scalars(select(ManifestRow.digest))
    return frozenset(Digest(digest) for digest in digests if digest not in told.manifests)


def retire(installation: Installation, told: Told, digests: Collection[Digest], report: Report) -> None:
    """Remove rows that nothing leads to; what was signed since `told` is looked at again first."""
    now_s = installation.now_s()
    told_for_s = installation.settings.collection.told_for_s
    with installation.locks.held(WRITER), installation.database.write(durable=True) as session:
        newer = roots.told(session, now_s=now_s, told_for_s=told_for_s, above=told.newest_snapshot)
        gone = [digest for digest in digests if digest not in newer.manifests]
        for chunk in chunks(gone):
            session.execute(delete(ManifestRow).where(ManifestRow.digest.in_(chunk)))
        kept = select(ManifestRow.digest)
        session.execute(delete(AcceleratorRow).where(AcceleratorRow.manifest.not_in(kept)))
        session.execute(delete(ProfileRun).where(ProfileRun.manifest.not_in(kept)))
        _retire_documents(session, told.documents | newer.documents, now_s - told_for_s)
        _retire_roles(session, told.roles | newer.roles, now_s - told_for_s)
        if gone:
            audit.record(session, now_s, LOCAL_ACTOR, "collection.retire", "manifests", retired=len(gone))
    report.manifests_retired = len(gone)


def _retire_documents(session: Session, named: Collection[str], horizon_s: int) -> None:
    old = session.scalars(select(Document.path).where(Document.created_s <= horizon_s))
    for chunk in chunks([path for path in old if path not in named]):
        session.execute(delete(Document).where(Document.path.in_(chunk)))


def _retire_roles(session: Session, named: Collection[tuple[str, int]], horizon_s: int) -> None:
    """Versions that were replaced, and that no snapshot in question names; timestamps once they have expired."""
    newest = _newest(session)
    query = select(SignedRole.role, SignedRole.version, SignedRole.expires_s).where(
        SignedRole.role != "root", SignedRole.signed_s <= horizon_s
    )
    for role, version, expires_s in session.execute(query).all():
        if version == newest[role] or (role, version) in named or (role in ONLINE_ROLES and expires_s > horizon_s):
            continue
        session.execute(delete(SignedRole).where(SignedRole.role == role, SignedRole.version == version))


def _newest(session: Session) -> dict[str, int]:
    query = select(SignedRole.role, func.max(SignedRole.version)).group_by(SignedRole.role)
    return {role: version for role, version in session.execute(query)}  # noqa: C416  # rows are not pairs


def remove_files(installation: Installation, held: Held, report: Report) -> None:
    """Files that no row names any more."""
    horizon_s = installation.now_s() - installation.settings.collection.orphan_age_s
    _of_kind(installation, held, report, horizon_s, "manifests", _no_manifest)
    _of_kind(installation, held, report, horizon_s, "targets", _no_document)
    _of_kind(installation, held, report, horizon_s, "metadata", _no_role)
    _of_kind(installation, held, report, horizon_s, "accel", _no_accelerator)


def _of_kind(
    installation: Installation,
    held: Held,
    report: Report,
    horizon_s: float,
    prefix: str,
    without_row: Callable[[Session, Sequence[StoredFile]], list[StoredFile]],
) -> None:
    old = [file for file in installation.storage.files(prefix) if file.modified_s <= horizon_s]
    for chunk in chunks(old):
        with installation.database.read() as session:
            candidates = without_row(session, chunk)
        if not candidates:
            continue
        if report.dry_run:
            for file in candidates:
                report.files.add(file.size)
            continue
        held.confirm()
        with installation.locks.held(WRITER):  # nobody adds a row or writes one of these files meanwhile
            with installation.database.read() as session:
                candidates = without_row(session, candidates)
            for file in candidates:
                installation.storage.remove(file.path)
                report.files.add(file.size)


def _digest_in(path: str) -> bytes:
    match = _NAMED.fullmatch(path)
    return bytes.fromhex(match[1]) if match else b""


def _no_manifest(session: Session, files: Sequence[StoredFile]) -> list[StoredFile]:
    digests = [_digest_in(file.path) for file in files]
    known = set(session.scalars(select(ManifestRow.digest).where(ManifestRow.digest.in_(digests))))
    return [file for file, digest in zip(files, digests, strict=True) if digest not in known]


def _no_document(session: Session, files: Sequence[StoredFile]) -> list[StoredFile]:
    paths = [file.path for file in files]
    known = set(session.scalars(select(Document.path).where(Document.path.in_(paths))))
    return [file for file in files if file.path not in known]


def _no_role(session: Session, files: Sequence[StoredFile]) -> list[StoredFile]:
    newest = _newest(session)
    unnamed: list[StoredFile] = []
    for file in files:
        found = role_of_path(file.path)
        if found is None or found[0] == "root" or found[1] >= newest.get(found[0], 0):
            continue
        if session.get(SignedRole, found) is None:
            unnamed.append(file)
    return unnamed


def _no_accelerator(session: Session, files: Sequence[StoredFile]) -> list[StoredFile]:
    """Files that no listing names, listings of manifests that are gone, hints of images that are gone."""
    digests = [_digest_in(file.path) for file in files]
    named = set(session.scalars(select(AcceleratorRow.sha256).where(AcceleratorRow.sha256.in_(digests))))
    kept = set(session.scalars(select(ManifestRow.digest).where(ManifestRow.digest.in_(digests))))
    unnamed: list[StoredFile] = []
    for file, digest in zip(files, digests, strict=True):
        hint = _HINT.fullmatch(file.path)
        if hint is not None:
            row = session.get(ImageRow, (hint[1], hint[2]))
            stays = row is not None and row.listed
        else:
            stays = digest in (kept if file.path.endswith(".json") else named)
        if not stays:
            unnamed.append(file)
    return unnamed
