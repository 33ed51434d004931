"""TUF metadata as values: parsed, verified and signed through python-tuf. No files, no database, no clock.

Raw bytes are what counts: what was signed is stored, hashed and served as it came. Everything parsed here is hostile
until it has returned: too long, not JSON, a key given twice, another type of role and floats are all refused with
`DocumentRefusedError`; wrong or too few signatures with `SignatureRefusedError`.

The limits are those of python-tuf's client, so that nothing is accepted that a client would not load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, SignatureRefusedError
from oscirc_blockstore.trust import RoleFacts, TargetFacts
from oscirc_server.tuf_api import (
    CryptoSigner,
    Metadata,
    MetaFile,
    RepositoryError,
    Root,
    SerializationError,
    Signature,
    Snapshot,
    Targets,
    Timestamp,
)

MAX_ROOT_BYTES = 512_000
MAX_SNAPSHOT_BYTES = 2_000_000
MAX_ROLE_BYTES = 5_000_000
TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")

_Payload = TypeVar("_Payload", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class SignedMetadata:
    """One version of a role, ready to be stored: `raw` is what is served; times in seconds since the epoch."""

    role: str
    version: int
    raw: bytes
    expires_s: int


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DocumentRefusedError("the signed metadata holds the same key twice")
    return result


def _refuse_number(text: str) -> object:
    raise DocumentRefusedError(f"the signed metadata holds the number {text[:40]}: only integers are allowed")


def parse(raw: bytes, payload: type[_Payload], what: str) -> Metadata[_Payload]:
    """The metadata in `raw`, whose payload must be of this type; no signature has been looked at."""
    limit = MAX_ROOT_BYTES if payload is Root else MAX_ROLE_BYTES
    if len(raw) > limit:
        raise DocumentRefusedError(f"{what} has {len(raw)} bytes; at most {limit} are allowed")
    try:
        document: Any = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_pairs, parse_float=_refuse_number, parse_constant=_refuse_number
        )
        metadata: Metadata[_Payload] = Metadata.from_dict(document)
        signed_bytes = metadata.signed_bytes
    except DocumentRefusedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SerializationError) as error:
        raise DocumentRefusedError(f"{what} is not TUF metadata: {str(error)[:200]}") from None
    if not isinstance(metadata.signed, payload) or not signed_bytes:
        raise DocumentRefusedError(f"{what} holds a {metadata.signed.type} role, not {payload.type}")
    return metadata


def expiry(now_s: float, lifetime_s: int) -> datetime:
    """When something signed now expires, to the second."""
    return datetime.fromtimestamp(int(now_s) + lifetime_s, UTC)


def sign(role: str, payload: _Payload, signers: Iterable[CryptoSigner]) -> SignedMetadata:
    """Sign with every one of `signers`."""
    metadata = Metadata(payload)
    for signer in signers:
        metadata.sign(signer, append=True)
    return stored(role, payload, metadata.to_bytes())


def signed_metadata(payload: _Payload, signatures: Mapping[str, bytes]) -> Metadata[_Payload]:
    """A payload with signatures that were made elsewhere, by key id; nothing is verified here."""
    return Metadata(payload, {keyid: Signature(keyid, raw.hex()) for keyid, raw in signatures.items()})


def stored(role: str, payload: _Payload, raw: bytes) -> SignedMetadata:
    """A verified payload with the bytes it came as."""
    return SignedMetadata(role, payload.version, raw, int(payload.expires.timestamp()))


def verify(delegator: Root | Targets, role: str, metadata: Metadata[_Payload], what: str) -> None:
    """Raise `SignatureRefusedError` unless enough of the delegator's keys for `role` signed."""
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise SignatureRefusedError(f"{what} is not signed as it must be: {error}") from None


def verify_root_successor(current: Metadata[Root], new: Metadata[Root]) -> None:
    """Raise `SignatureRefusedError` unless the old and the new keys both sign `new` (TUF specification 5.3)."""
    verify(current.signed, Root.type, new, "the new root, by the current root's keys,")
    verify(new.signed, Root.type, new, "the new root, by its own keys,")
    if not new.signed.consistent_snapshot:
        raise SignatureRefusedError("the new root gives up consistent snapshots, which this tree is made of")


def role_facts(publisher: str, role: Targets) -> RoleFacts:
    """A publisher's role reduced to what `oscirc_blockstore.trust` judges."""
    targets = {path: TargetFacts(target.length, target.hashes) for path, target in role.targets.items()}
    return RoleFacts(publisher, role.version, role.expires.timestamp(), targets, role.delegations is not None)


def _meta_file(version: int, raw: bytes) -> MetaFile:
    return MetaFile(version, len(raw), {"sha256": digest_of(raw).hex()})


def sign_snapshot(
    version: int, expires: datetime, roles: Mapping[str, tuple[int, bytes]], signers: Iterable[CryptoSigner]
) -> SignedMetadata:
    """A snapshot of (version, raw bytes) by role; every role that ever was in one must be among them."""
    meta = {f"{role}.json": _meta_file(number, raw) for role, (number, raw) in sorted(roles.items())}
    snapshot = sign("snapshot", Snapshot(version=version, expires=expires, meta=meta), signers)
    if len(snapshot.raw) > MAX_SNAPSHOT_BYTES:
        raise LocalError(f"a snapshot of {len(roles)} roles would be longer than clients read")
    return snapshot


def sign_timestamp(
    version: int, expires: datetime, snapshot: SignedMetadata, signers: Iterable[CryptoSigner]
) -> SignedMetadata:
    """A timestamp that points at `snapshot`."""
    meta = _meta_file(snapshot.version, snapshot.raw)
    return sign("timestamp", Timestamp(version=version, expires=expires, snapshot_meta=meta), signers)
