"""A repository's verified metadata as a mirror needs it: what was signed, and which files it names. Pure.

What `TopLevel` holds has been verified by python-tuf. A publisher's role is judged here (`judge_role`) as TUF judges
it: by the snapshot's version, length and hash, and by the keys that the targets role delegates to. A role that nobody
delegates to any more stays in every snapshot; it is copied where the snapshot states its hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, SignatureRefusedError
from oscirc_blockstore.trust import image_of_target
from oscirc_remote.updating import TopLevel
from oscirc_server import delegations
from oscirc_server.metadata import parse, verify
from oscirc_server.tuf_api import MetaFile, RepositoryError, Root, Snapshot, TargetFile, Targets, Timestamp


@dataclass(frozen=True, slots=True)
class VerifiedRole:
    """A publisher's role: its bytes, and its images' indexes by image name (none where no key of its signed it)."""

    publisher: str
    version: int
    raw: bytes
    indexes: Mapping[str, TargetFile]
    note: str = ""


@dataclass(frozen=True, slots=True)
class VerifiedMetadata:
    """Top-level roles, parsed; `roots` by version, `metas` what the snapshot says of each publisher's role."""

    raw: TopLevel
    roots: Mapping[int, bytes]
    timestamp_version: int
    snapshot_version: int
    targets_version: int
    targets: Targets
    metas: Mapping[str, MetaFile]
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: TopLevel, notes: tuple[str, ...] = ()) -> VerifiedMetadata:
        """From what python-tuf keeps."""
        snapshot = parse(raw.snapshot, Snapshot, "the snapshot").signed
        targets = parse(raw.targets, Targets, "the targets role").signed
        metas = {name.removesuffix(".json"): meta for name, meta in snapshot.meta.items() if name != "targets.json"}
        return cls(
            raw=raw,
            roots={parse(root, Root, "a root").signed.version: root for root in raw.roots},
            timestamp_version=parse(raw.timestamp, Timestamp, "the timestamp").signed.version,
            snapshot_version=snapshot.version,
            targets_version=targets.version,
            targets=targets,
            metas=metas,
            notes=notes,
        )

    def judge_role(self, publisher: str, raw: bytes) -> VerifiedRole:
        """The role in `raw`, or a refusal when it is not the one that the snapshot means."""
        meta = self.metas[publisher]
        try:
            meta.verify_length_and_hashes(raw)
        except RepositoryError as error:
            raise DocumentRefusedError(f"the role of {publisher} is not what the snapshot says: {error}") from None
        metadata = parse(raw, Targets, f"the role of {publisher}")
        if metadata.signed.version != meta.version:
            raise DocumentRefusedError(f"the role of {publisher} is not of version {meta.version}")
        try:
            delegations.delegation(self.targets, publisher)
            verify(self.targets, publisher, metadata, f"the role of {publisher}")
        except (NotFoundError, SignatureRefusedError) as error:
            if not meta.hashes:
                raise DocumentRefusedError(f"the role of {publisher} cannot be verified: {error}") from None
            return VerifiedRole(publisher, meta.version, raw, {}, str(error))
        return VerifiedRole(publisher, meta.version, raw, _indexes(publisher, metadata.signed))


def _indexes(publisher: str, role: Targets) -> dict[str, TargetFile]:
    return {image_of_target(publisher, path): target for path, target in role.targets.items()}
