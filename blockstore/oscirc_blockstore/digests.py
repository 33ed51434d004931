"""Digests: the SHA-256 of a block's or node's uncompressed bytes, as 32 raw bytes.

The zero digest (32 zero bytes, which no known input hashes to) means "all zeros", for a block and for a subtree,
and is the only encoding of zeros: a table that names the real SHA-256 of an all-zero block is refused.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NewType

from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError

Digest = NewType("Digest", bytes)

DIGEST_SIZE = 32
ZERO_DIGEST = Digest(bytes(DIGEST_SIZE))


def digest_of(raw: bytes | memoryview) -> Digest:
    """The SHA-256 of `raw`, never mapped to the zero digest (see `block_digest`)."""
    return Digest(hashlib.sha256(raw).digest())


@lru_cache(maxsize=16)
def digest_of_zeros(size_bytes: int) -> Digest:
    """The forbidden name: what an all-zero block of this size would hash to."""
    return digest_of(bytes(size_bytes))


def block_digest(raw: bytes | memoryview) -> Digest:
    """The name of a block or node: the zero digest when all its bytes are zero, else its SHA-256."""
    digest = digest_of(raw)
    return ZERO_DIGEST if digest == digest_of_zeros(len(raw)) else digest


def verify(raw: bytes | memoryview, digest: Digest) -> None:
    """Raise `DigestMismatchError` unless `raw` hashes to `digest`."""
    if digest_of(raw) != digest:
        raise DigestMismatchError(f"{len(raw)} bytes do not hash to {digest.hex()}")


def parse_hex(text: object) -> Digest:
    """A digest from its one allowed text form, 64 lower-case hexadecimal digits."""
    if not isinstance(text, str) or len(text) != 2 * DIGEST_SIZE or text.strip("0123456789abcdef"):
        raise DocumentRefusedError(f"not a SHA-256 in lower-case hexadecimal: {str(text)[:80]!r}")
    return Digest(bytes.fromhex(text))


def block_path(digest: Digest) -> str:
    """Where a block file stands below the repository's URL: `blocks/sha256/ab/<digest>.zst`."""
    text = digest.hex()
    return f"blocks/sha256/{text[:2]}/{text}.zst"
