"""A publisher that several keys stand for: whose word counts, and what is sent out when more of them must sign.

`JointKeys` are the keys and the threshold that a *verified* targets role delegates to. A role that the server shows
counts as the publisher's when as many of them signed it; with one key too few at hand the next role leaves as a
signing request (`AwaitsSignaturesError`), everything else being done: blocks and manifest are on the server, and the
draft waits. `send` completes it once `oscirc ceremony` has put the signatures together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined]

from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, TrustError
from oscirc_blockstore.signing_request import RequestPart, SigningRequest, sign_request
from oscirc_publisher.rest import RestClient
from oscirc_publisher.uploading import Accepted, send_role

PREVIOUS = "before/"  # what a request calls the indexes in force, which its reader compares with


@dataclass(frozen=True, slots=True)
class JointKeys:
    """The keys that a publisher's name is delegated to, how many must sign, and the verified role that says so."""

    keys: tuple[Ed25519PublicKey, ...]
    threshold: int
    targets: bytes


class AwaitsSignaturesError(TrustError):
    """The keys at hand are too few: `request` is to be signed by others, `signatures` is what these keys made of it."""

    def __init__(self, publisher: str, needed: int, request: SigningRequest, signatures: bytes) -> None:
        super().__init__(f"{needed} more of {publisher}'s keys must sign this before it takes force")
        self.publisher = publisher
        self.request = request
        self.signatures = signatures


def joint_keys(targets_raw: bytes, publisher: str) -> JointKeys:
    """Whom a verified targets role delegates to; `NotFoundError` when it knows no such publisher."""
    targets = Metadata[Targets].from_bytes(targets_raw).signed
    delegations = targets.delegations
    role = None if delegations is None or delegations.roles is None else delegations.roles.get(publisher)
    if role is None or delegations is None:
        raise NotFoundError(f"the repository has no publisher {publisher}")
    try:
        keys = tuple(
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(delegations.keys[keyid].keyval["public"]))
            for keyid in role.keyids
        )
    except (KeyError, ValueError):
        raise DocumentRefusedError(f"the keys of {publisher} are not of a kind that this version reads") from None
    return JointKeys(keys, role.threshold, targets_raw)


def role_request(
    repository: str,
    publisher: str,
    payload: Targets,
    in_force: bytes,
    joint: JointKeys,
    indexes: Mapping[str, bytes],
    previous: Mapping[str, bytes],
    draft: str,
) -> SigningRequest:
    """What others are to sign: the next role with the indexes that it names anew, beside those in force."""
    documents = {**indexes, **{f"{PREVIOUS}{image}": raw for image, raw in previous.items()}}
    part = RequestPart(publisher, Metadata(payload).signed_bytes, in_force, joint.targets)
    return SigningRequest(repository, (part,), documents, draft)


def awaits(request: SigningRequest, keys: list[Ed25519PrivateKey], needed: int) -> AwaitsSignaturesError:
    """The error that carries a request, signed already with the keys at hand."""
    publisher = request.parts[0].role
    signatures = sign_request(request, [(key, (publisher,)) for key in keys])
    return AwaitsSignaturesError(publisher, needed, request, signatures)


def send(rest: RestClient, request: SigningRequest, publisher: str, role: bytes) -> Accepted:
    """Offer the assembled role: it completes the request's draft, or stands for itself."""
    indexes = {name: raw for name, raw in request.documents.items() if not name.startswith(PREVIOUS)}
    if request.draft:
        return send_role(rest, "POST", f"drafts/{request.draft}/release", role, indexes)
    return send_role(rest, "PUT", f"publishers/{publisher}/role", role, indexes)
