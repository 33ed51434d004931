"""Whether a publisher's signed role may take force: the rules, in order, on one transaction's view.

1. its version is the current one plus one (`RoleConflictError` carries the current one);
2. the pure rules of `oscirc_blockstore.trust`: names of its own, one SHA-256 each, a year at most, no delegation;
3. the signatures reach the threshold that the targets role in force delegates to;
4. every index that changed is here, is this image's, and forgets nothing that was released or deleted;
5. every version that is new in an index has a manifest that is here, of this very image; of an image that comes back
   after it was named by no role for a time, every version has.

`judge` changes nothing; `apply` puts what it returned into a change of the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.accelerators import hint_path
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, TrustError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_server import delegations, pending_files, repository
from oscirc_server.errors import RoleConflictError
from oscirc_server.metadata import SignedMetadata, parse, role_facts, stored, verify
from oscirc_server.models import Document, ImageRow, ManifestRow
from oscirc_server.repository import Change
from oscirc_server.services import image_rows, quotas
from oscirc_server.tree_paths import index_path
from oscirc_server.tuf_api import Targets


@dataclass(frozen=True, slots=True)
class Offer:
    """What a publisher offers: its signed role, and indexes by image name; a draft adds the manifest it brings."""

    publisher: str
    role: bytes
    indexes: Mapping[str, bytes]
    manifests: Mapping[Digest, Manifest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AcceptedIndex:
    """An image's index as it will be."""

    index: ImageIndex
    path: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """A role that may take force: index paths by image, and the indexes that differ from those in force."""

    signature: SignedMetadata
    images: Mapping[str, str]
    changed: tuple[AcceptedIndex, ...]


def judge(session: Session, offer: Offer, now_s: float) -> Accepted:
    """Apply the rules above."""
    name = offer.publisher
    metadata = parse(offer.role, Targets, f"{name}'s role")
    role = metadata.signed
    current = repository.current_version(session, name)
    if role.version != current + 1:
        raise RoleConflictError(
            f"{name}'s role is at version {current}: version {current + 1} comes next, not {role.version}",
            current_version=current,
            hint="fetch the role in force, merge, and sign again",
        )
    trust.check_role(role_facts(name, role), current_version=current, now_s=now_s)
    targets = repository.current_targets(session).signed
    delegations.delegation(targets, name)
    verify(targets, name, metadata, f"{name}'s role")
    images: dict[str, str] = {}
    changed: list[AcceptedIndex] = []
    for path, target in role.targets.items():
        image = trust.image_of_target(name, path)
        images[image] = index_path(name, image, parse_hex(target.hashes["sha256"]))
        accepted = _judge_index(session, offer, image, images[image], target.length)
        if accepted is not None:
            changed.append(accepted)
    return Accepted(stored(name, role, offer.role), images, tuple(changed))


def _judge_index(session: Session, offer: Offer, image: str, path: str, length: int) -> AcceptedIndex | None:
    """The index that the role names, or None when it is the one in force."""
    row = session.get(ImageRow, (offer.publisher, image))
    if row is not None and row.listed and row.index_path == path:
        return None
    held = session.get(Document, path)
    raw = offer.indexes.get(image) if held is None else held.raw
    if raw is None:
        raise TrustError(f"the role names an index of {image} that is not here", hint="send it beside the role")
    if len(raw) != length or index_path(offer.publisher, image, digest_of(raw)) != path:
        raise DigestMismatchError(f"the index of {image} is not the one that the role names")
    index = image_index.parse(raw, offer.publisher, image)
    previous = None if row is None else session.get(Document, row.index_path)
    old = ImageIndex(offer.publisher, image)
    if previous is not None:
        old = image_index.parse(previous.raw, offer.publisher, image)
        image_index.check_successor(old, index)
    known = old if row is not None and row.listed else ImageIndex(offer.publisher, image)
    _judge_new_versions(session, offer, known, index)
    return AcceptedIndex(index, path, raw)


def _judge_new_versions(session: Session, offer: Offer, old: ImageIndex, new: ImageIndex) -> None:
    known = {version.label for version in old.versions}
    for version in new.versions:
        if version.label in known:
            continue
        manifest = offer.manifests.get(version.manifest)
        if manifest is None:
            row = session.get(ManifestRow, version.manifest)
            if row is None:
                raise TrustError(f"version {version.label} of {new.image} names a disk that was never released here")
            manifest = parse_manifest(row.raw)
        if (manifest.publisher, manifest.image) != (new.publisher, new.image):
            raise DocumentRefusedError(f"version {version.label} of {new.image} names the disk of another image")


def index_of(session: Session, accepted: Accepted, publisher: str, image: str) -> ImageIndex | None:
    """The index that an image will have, changed or not, or None when the role does not name it."""
    for item in accepted.changed:
        if item.index.image == image:
            return item.index
    path = accepted.images.get(image)
    document = None if path is None else session.get(Document, path)
    return None if document is None else image_index.parse(document.raw, publisher, image)


def _moves_other_disks(session: Session, accepted: Accepted, brought: frozenset[Digest]) -> bool:
    """Whether disks come or go that no draft brings: what the publisher keeps is to be counted anew."""
    publisher = accepted.signature.role
    for item in accepted.changed:
        row = session.get(ImageRow, (publisher, item.index.image))
        document = None if row is None or not row.listed else session.get(Document, row.index_path)
        old = ImageIndex(publisher, item.index.image)
        if document is not None:
            old = image_index.parse(document.raw, publisher, item.index.image)
        before = {version.manifest for version in old.versions}
        after = {version.manifest for version in item.index.versions}
        if before - after or after - before - brought:
            return True
    listed = session.scalars(select(ImageRow.image).where(ImageRow.publisher == publisher, ImageRow.listed))
    return any(image not in accepted.images for image in listed)


def apply(change: Change, accepted: Accepted, *, brought: frozenset[Digest] = frozenset()) -> None:
    """Let the role take force: its documents, itself, the catalog's rows, and what the publisher keeps.

    `brought` are the disks of the draft that comes with it.
    """
    publisher = accepted.signature.role
    recount = _moves_other_disks(change.session, accepted, brought)
    for item in accepted.changed:
        change.add_document(item.path, item.raw)
    change.add_role(accepted.signature)
    hints = [hint_path(publisher, item.index.image) for item in accepted.changed]
    pending_files.mark(change.session, hints, change.now_s)
    for item in accepted.changed:
        image_rows.record(change.session, item.index, item.path, change.now_s)
    image_rows.list_only(change.session, publisher, accepted.images, change.now_s)
    change.session.flush()
    quotas.follow(change.session, publisher, [item.index for item in accepted.changed], recount=recount)
