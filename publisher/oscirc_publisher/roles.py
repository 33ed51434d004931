"""A publisher's TUF role: made, signed, and read back only if the publisher's own key signed it.

Metadata bytes in, values out; no file, no socket, no clock of its own. The rules that a role must keep are
`oscirc_blockstore.trust`'s and are applied before signing, so that nothing is signed that a server must refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # it has no __all__
from tuf.api.metadata import Metadata, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.api.serialization import DeserializationError

from oscirc_blockstore import trust
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import SignatureRefusedError
from oscirc_blockstore.image_index import index_target

MAX_ROLE_BYTES = 5_000_000  # what python-tuf's client reads of a role


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What a role says about an image's index."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SignedRole:
    """A publisher's role as it was verified; version 0 with no targets stands for none yet."""

    publisher: str
    version: int
    targets: Mapping[str, TargetFile]
    expires: datetime | None
    raw: bytes = b""

    def index(self, image: str) -> IndexFacts | None:
        """Length and digest of the image's index, or None when the image is not there yet."""
        target = self.targets.get(index_target(self.publisher, image))
        return None if target is None else IndexFacts(target.length, target.hashes["sha256"])


def no_role(publisher: str) -> SignedRole:
    """What a publisher has before the first release."""
    return SignedRole(publisher, 0, {}, None)


def tuf_key(public: Ed25519PublicKey) -> SSlibKey:
    """The key as TUF metadata names it; its key id follows from the key alone."""
    return SSlibKey.from_crypto(public)


def parse_targets(
    raw: bytes, trusted: Iterable[Ed25519PublicKey], what: str, *, threshold: int = 1
) -> Metadata[Targets]:
    """The targets metadata in `raw` if `threshold` of the `trusted` keys signed it, else `SignatureRefusedError`."""
    try:
        metadata = Metadata[Targets].from_bytes(raw)
    except (DeserializationError, RecursionError):
        raise SignatureRefusedError(f"{what} is not TUF metadata") from None
    if not isinstance(metadata.signed, Targets):
        raise SignatureRefusedError(f"{what} is metadata of another kind")
    signed_bytes = metadata.signed_bytes
    signed: set[str] = set()
    for key in map(tuf_key, trusted):
        signature = metadata.signatures.get(key.keyid)
        if signature is None:
            continue
        try:
            key.verify_signature(signature, signed_bytes)
        except (UnverifiedSignatureError, VerificationError):
            raise SignatureRefusedError(f"{what} was altered after it was signed") from None
        signed.add(key.keyid)
    if len(signed) >= threshold:
        return metadata
    if signed:
        raise SignatureRefusedError(
            f"{what} carries {len(signed)} of the {threshold} signatures that it needs",
            hint="somebody with one key alone may have made it: tell the repository's administrator",
        )
    raise SignatureRefusedError(
        f"{what} is not signed with your key",
        hint="is this the right key? After a rotation: oscirc publisher resign NAME --key NEW --old-key OLD.pub. "
        "Otherwise the server's copy was tampered with: tell its administrator",
    )


def parse_role(
    raw: bytes, publisher: str, version: int, trusted: Iterable[Ed25519PublicKey], *, threshold: int = 1
) -> SignedRole:
    """Version `version` of the publisher's own role, or `SignatureRefusedError`. An expired one may be built upon."""
    what = f"the role that the server shows for {publisher}"
    signed = parse_targets(raw, trusted, what, threshold=threshold).signed
    if signed.version != version:
        raise SignatureRefusedError(f"{what} is version {signed.version}, not {version} as it said")
    for path, target in signed.targets.items():
        trust.image_of_target(publisher, path)
        if "sha256" not in target.hashes:
            raise SignatureRefusedError(f"{what} states no SHA-256 for {path}")
    return SignedRole(publisher, version, dict(signed.targets), signed.expires, raw)


def next_role(current: SignedRole, indexes: Mapping[str, bytes], private: Ed25519PrivateKey, now: datetime) -> bytes:
    """The role after `current`, signed with one key."""
    return sign(next_payload(current, indexes, now), private)


def next_payload(current: SignedRole, indexes: Mapping[str, bytes], now: datetime) -> Targets:
    """The role after `current`: its images, those in `indexes` (image name -> document) replaced or added."""
    targets = dict(current.targets)
    for image, raw in indexes.items():
        path = index_target(current.publisher, image)
        targets[path] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, path)
    expires = expiry(now, trust.PUBLISHER_LIFETIME_S)
    signed = Targets(version=current.version + 1, expires=expires, targets=targets)
    facts = trust.RoleFacts(
        publisher=current.publisher,
        version=signed.version,
        expires_s=expires.timestamp(),
        targets={path: trust.TargetFacts(target.length, target.hashes) for path, target in targets.items()},
        delegates=False,
    )
    trust.check_role(facts, current_version=current.version, now_s=now.timestamp())
    return signed


def expiry(now: datetime, lifetime_s: int) -> datetime:
    """The moment `lifetime_s` seconds from `now` as TUF writes it: UTC, to the second."""
    return (now.astimezone(UTC) + timedelta(seconds=lifetime_s)).replace(microsecond=0)


def sign(signed: Targets, *private: Ed25519PrivateKey) -> bytes:
    """The metadata's bytes with the signatures of these keys."""
    metadata = Metadata(signed)
    for key in private:
        metadata.sign(CryptoSigner(key, tuf_key(key.public_key())), append=True)
    return metadata.to_bytes()
