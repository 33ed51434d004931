"""What a tree offers, verified by its own chain of roots: roles, indexes, manifests. Expiry does not matter here.

The chain begins at a root that somebody vouches for (by its digest), or at version 1 of a directory that is the
operator's own; each root is signed by the one before it. Roles are those that the newest snapshot names, which the
timestamp names: older ones are not looked for. What is missing or wrong of one publisher is told, and keeps nothing of
the others from being read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, OscircError, SignatureRefusedError, UsageError
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_blockstore.trust import image_of_target
from oscirc_server import delegations
from oscirc_server.elsewhere import Elsewhere
from oscirc_server.metadata import (
    MAX_ROLE_BYTES,
    MAX_ROOT_BYTES,
    MAX_SNAPSHOT_BYTES,
    parse,
    verify,
    verify_root_successor,
)
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_path, root_path, target_path
from oscirc_server.tuf_api import Metadata, MetaFile, RepositoryError, Root, Snapshot, Targets, Timestamp

MAX_ROOTS = 10_000


@dataclass(frozen=True, slots=True)
class OfferedVersion:
    """A version whose manifest the tree has."""

    publisher: str
    image: str
    label: str
    digest: Digest
    manifest: Manifest
    raw: bytes

    @property
    def reference(self) -> str:
        """`publisher/image@label`."""
        return f"{self.publisher}/{self.image}@{self.label}"


@dataclass(slots=True)
class OfferedRole:
    """A publisher's role with its indexes, by image; `problem` says why it cannot be taken over as it is."""

    publisher: str
    metadata: Metadata[Targets]
    raw: bytes
    indexes: dict[str, tuple[ImageIndex, str, bytes]] = field(default_factory=dict)
    problem: str = ""

    @property
    def version(self) -> int:
        """Its version number."""
        return self.metadata.signed.version


@dataclass(slots=True)
class Offer:
    """A whole tree, as far as it could be read; `missing` are paths that it should have and lacks."""

    roots: list[Metadata[Root]]
    raw_roots: list[bytes]
    timestamp_version: int
    snapshot_version: int
    metas: Mapping[str, MetaFile]
    roles: list[OfferedRole] = field(default_factory=list)
    versions: list[OfferedVersion] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def root(self) -> Metadata[Root]:
        """The newest root."""
        return self.roots[-1]


def read(source: Elsewhere, pinned: Digest | None) -> Offer:
    """Take the tree apart; raises what makes it no tree at all."""
    raw_roots = _chain(source, pinned)
    roots = [parse(raw, Root, "a root of the tree") for raw in raw_roots]
    root = roots[-1].signed
    timestamp = parse(_needed(source, TIMESTAMP_PATH, MAX_ROLE_BYTES), Timestamp, "the timestamp of the tree")
    verify(root, "timestamp", timestamp, "the timestamp of the tree")
    version = timestamp.signed.snapshot_meta.version
    raw = _needed(source, role_path("snapshot", version), MAX_SNAPSHOT_BYTES)
    snapshot = parse(raw, Snapshot, "the snapshot of the tree")
    verify(root, "snapshot", snapshot, "the snapshot of the tree")
    if snapshot.signed.version != version:
        raise DocumentRefusedError("the timestamp of the tree names another snapshot than there is")
    metas = {name.removesuffix(".json"): meta for name, meta in snapshot.signed.meta.items()}
    offer = Offer(roots, raw_roots, timestamp.signed.version, version, metas)
    targets = _role(source, "targets", metas["targets"])
    verify(root, "targets", targets[0], "the targets role of the tree")
    for publisher, meta in sorted(metas.items()):
        if publisher != "targets":
            _read_publisher(source, offer, targets[0].signed, publisher, meta)
    return offer


def _chain(source: Elsewhere, pinned: Digest | None) -> list[bytes]:
    first = 1
    if pinned is not None:
        raw = source.read(root_path(pinned), MAX_ROOT_BYTES)
        if raw is None or digest_of(raw) != pinned:
            raise SignatureRefusedError(
                "the tree does not have the root of trust that was named", hint="look for a typing error in the digest"
            )
        first = parse(raw, Root, "the root").signed.version
    else:
        raw = source.read(role_path("root", 1), MAX_ROOT_BYTES)
        if raw is None:
            raise NotFoundError("the tree has no first root", hint="say with --root which of its roots is trusted")
    chain = [raw]
    while len(chain) < MAX_ROOTS:
        following = source.read(role_path("root", first + len(chain)), MAX_ROOT_BYTES)
        if following is None:
            break
        verify_root_successor(parse(chain[-1], Root, "a root"), parse(following, Root, "the root after it"))
        chain.append(following)
    return [*_before(source, chain[0]), *chain]


def _before(source: Elsewhere, pinned: bytes) -> list[bytes]:
    """Roots that lead to the pinned one, as far back as there are any that do."""
    found: list[bytes] = []
    later = parse(pinned, Root, "a root")
    while later.signed.version > 1:
        raw = source.read(role_path("root", later.signed.version - 1), MAX_ROOT_BYTES)
        try:
            earlier = parse(raw or b"", Root, "a root")
            verify_root_successor(earlier, later)
        except OscircError:
            break
        if earlier.signed.version != later.signed.version - 1 or raw is None:
            break
        found.insert(0, raw)
        later = earlier
    return found


def _needed(source: Elsewhere, path: str, max_bytes: int) -> bytes:
    raw = source.read(path, max_bytes)
    if raw is None:
        raise NotFoundError(f"the tree lacks {path}", hint="is it the directory that holds metadata/ and blocks/?")
    return raw


def _role(source: Elsewhere, role: str, meta: MetaFile) -> tuple[Metadata[Targets], bytes]:
    raw = _needed(source, role_path(role, meta.version), MAX_ROLE_BYTES)
    try:
        meta.verify_length_and_hashes(raw)
    except RepositoryError as error:
        raise DocumentRefusedError(f"{role}'s role is not what the snapshot names: {error}") from None
    metadata = parse(raw, Targets, f"{role}'s role")
    if metadata.signed.version != meta.version:
        raise DocumentRefusedError(f"{role}'s role is not of version {meta.version}")
    return metadata, raw


def _read_publisher(source: Elsewhere, offer: Offer, targets: Targets, publisher: str, meta: MetaFile) -> None:
    try:
        metadata, raw = _role(source, publisher, meta)
    except (NotFoundError, DocumentRefusedError):
        offer.missing.append(role_path(publisher, meta.version))
        return
    role = OfferedRole(publisher, metadata, raw)
    offer.roles.append(role)
    try:
        delegations.delegation(targets, publisher)
        verify(targets, publisher, metadata, f"{publisher}'s role")
    except (NotFoundError, SignatureRefusedError) as error:
        role.problem = str(error)
    for path, facts in metadata.signed.targets.items():
        try:
            digest = parse_hex(facts.hashes["sha256"])
            image = image_of_target(publisher, path)
            _read_image(source, offer, role, (image, target_path(path, digest), digest))
        except (OscircError, KeyError) as error:
            role.problem = role.problem or f"{path} cannot be read: {error}"


def _read_image(source: Elsewhere, offer: Offer, role: OfferedRole, place: tuple[str, str, Digest]) -> None:
    image, path, digest = place
    raw = source.read(path, MAX_INDEX_BYTES)
    if raw is None or digest_of(raw) != digest:
        offer.missing.append(path)
        role.problem = role.problem or f"the tree lacks {path}"
        return
    index = image_index.parse(raw, role.publisher, image)
    role.indexes[image] = (index, path, raw)
    for version in index.versions:
        try:
            found = _needed(source, manifest_path(version.manifest), MAX_MANIFEST_BYTES)
            manifest = parse_verified(found, version.manifest)
            if (manifest.publisher, manifest.image) != (role.publisher, image):
                raise UsageError("it is the disk of another image")
        except OscircError:
            offer.missing.append(manifest_path(version.manifest))
            continue
        offer.versions.append(OfferedVersion(role.publisher, image, version.label, version.manifest, manifest, found))
