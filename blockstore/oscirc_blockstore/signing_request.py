"""Signing requests and signature files: how something is signed by several people on machines without network.

A request carries, for each role that changes, the exact bytes to sign and the metadata that judges them; a signature
file carries what one key made of them. Both are canonical JSON (RFC 8785) and travel on any medium, in any order:

1. a signature is Ed25519 over a part's `payload`, nothing added: what TUF signs, so the result needs no conversion;
2. a signature file names its request by SHA-256: it cannot be counted for another one;
3. nothing in a request is to be believed. Who signs looks at what the payload itself says, and whoever puts the
   signatures together verifies the result as any client would.

Bytes in, values out; what a payload means is not known here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import DocumentRefusedError, SignatureRefusedError
from oscirc_blockstore.fields import Fields

MAX_REQUEST_BYTES = 32 * 1024 * 1024
MAX_SIGNATURE_BYTES = 64 * 1024
MAX_PARTS = 2
MAX_SIGNATURES = 100
MAX_DOCUMENTS = 1000
REQUEST_FORMAT = "oscirc-signing-request-1"
SIGNATURE_FORMAT = "oscirc-signatures-1"

_MAX_PART_BYTES = 5_000_000  # what python-tuf's client reads of a role
_MAX_DOCUMENT_BYTES = 4 << 20
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


@dataclass(frozen=True, slots=True)
class RequestPart:
    """One role to sign: its new payload; the raw metadata in force, and of who delegates to it (empty: none yet)."""

    role: str
    payload: bytes
    current: bytes = b""
    delegator: bytes = b""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What is to be signed together. `documents` belong to it (by name); `draft` is what a release completes."""

    repository: str
    parts: tuple[RequestPart, ...]
    documents: Mapping[str, bytes] = field(default_factory=dict)
    draft: str = ""

    def serialise(self) -> bytes:
        """The file's bytes."""
        parts: list[object] = [
            {
                "role": part.role,
                "payload": _base64(part.payload),
                "current": _base64(part.current),
                "delegator": _base64(part.delegator),
            }
            for part in self.parts
        ]
        return canonical.serialise(
            {
                "format": REQUEST_FORMAT,
                "repository": self.repository,
                "parts": parts,
                "documents": {name: _base64(raw) for name, raw in self.documents.items()},
                "draft": self.draft,
            }
        )

    @property
    def digest(self) -> Digest:
        """What signature files name it by."""
        return digest_of(self.serialise())

    def part(self, role: str) -> RequestPart | None:
        """The part of a role, if it is there."""
        return next((part for part in self.parts if part.role == role), None)


@dataclass(frozen=True, slots=True)
class PartSignature:
    """What one key made of one part."""

    role: str
    key: Ed25519PublicKey
    signature: bytes


def parse_request(raw: bytes) -> SigningRequest:
    """The request in a file, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_REQUEST_BYTES, "the signing request"), "the signing request")
    fields.constant("format", REQUEST_FORMAT)
    repository = fields.text("repository", 500)
    parts = tuple(_part(item) for item in fields.sequence("parts", MAX_PARTS))
    documents = {
        _name(name): _bytes(value, _MAX_DOCUMENT_BYTES, f"the document {name[:80]!r}")
        for name, value in fields.mapping("documents", MAX_DOCUMENTS).items()
    }
    draft = fields.text("draft", 64)
    fields.finish()
    if not parts or len({part.role for part in parts}) != len(parts):
        raise DocumentRefusedError("the signing request asks for nothing, or for one role twice")
    return SigningRequest(repository, parts, documents, draft)


def sign_request(request: SigningRequest, keys: Sequence[tuple[Ed25519PrivateKey, Collection[str]]]) -> bytes:
    """A signature file: each key's signatures of the parts that are named beside it."""
    signatures: list[object] = [
        {
            "role": part.role,
            "key": key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
            "signature": key.sign(part.payload).hex(),
        }
        for key, roles in keys
        for part in request.parts
        if part.role in roles
    ]
    return canonical.serialise({"format": SIGNATURE_FORMAT, "request": request.digest.hex(), "signatures": signatures})


def read_signatures(request: SigningRequest, raw: bytes, what: str) -> tuple[PartSignature, ...]:
    """The signatures in a file, each verified against the request; whose keys these are is the caller's business."""
    fields = Fields(canonical.parse(raw, MAX_SIGNATURE_BYTES, what), what)
    fields.constant("format", SIGNATURE_FORMAT)
    if fields.digest("request") != request.digest:
        raise SignatureRefusedError(
            f"{what} is for another signing request", hint="have this very request signed, or look for the right one"
        )
    found = tuple(_signature(request, item, what) for item in fields.sequence("signatures", MAX_SIGNATURES))
    fields.finish()
    return found


def _part(item: object) -> RequestPart:
    fields = Fields(item, "a part of the signing request")
    role = fields.text("role", 63)
    payload, current, delegator = (
        _bytes(fields.take(name), _MAX_PART_BYTES, f"{role}'s {name}") for name in ("payload", "current", "delegator")
    )
    fields.finish()
    if not role or not payload:
        raise DocumentRefusedError("a part of the signing request has no role or nothing to sign")
    return RequestPart(role, payload, current, delegator)


def _signature(request: SigningRequest, item: object, what: str) -> PartSignature:
    fields = Fields(item, what)
    part = request.part(fields.text("role", 63))
    key, signature = _hex(fields, "key", _KEY_BYTES, what), _hex(fields, "signature", _SIGNATURE_BYTES, what)
    fields.finish()
    if part is None:
        raise SignatureRefusedError(f"{what} signs a role that the request does not ask for")
    public = Ed25519PublicKey.from_public_bytes(key)
    try:
        public.verify(signature, part.payload)
    except InvalidSignature:
        raise SignatureRefusedError(f"{what} holds a signature that is not of this request") from None
    return PartSignature(part.role, public, signature)


def _hex(fields: Fields, key: str, size: int, what: str) -> bytes:
    text = fields.text(key, 2 * size)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != size or raw.hex() != text:
        raise DocumentRefusedError(f"{what}: {key} is not {size} bytes in lower-case hexadecimal")
    return raw


def _name(name: str) -> str:
    if not 0 < len(name) <= _KEY_BYTES * 8:
        raise DocumentRefusedError("the signing request holds a document with a bad name")
    return name


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(value: object, limit: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or len(raw) > limit:
        raise DocumentRefusedError(f"{what} is not at most {limit} bytes in base64")
    return raw
