"""Signing keys as files: Ed25519 in PEM (PKCS #8), encrypted under a passphrase; and their fingerprints.

Bytes in, values out: where files stand and where a passphrase comes from is the caller's business. A fingerprint is
the SHA-256 of the DER SubjectPublicKeyInfo, what `openssl pkey -pubin -outform der | sha256sum` prints.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from oscirc_blockstore.errors import SignatureRefusedError, UsageError

MAX_KEY_BYTES = 16 * 1024


def generate() -> Ed25519PrivateKey:
    """A new private key from the operating system's random source."""
    return Ed25519PrivateKey.generate()


def private_pem(key: Ed25519PrivateKey, passphrase: str | None) -> bytes:
    """The private key as PEM, encrypted unless `passphrase` is None (only for keys that a server uses unattended)."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def load_private(pem: bytes, passphrase: str | None, what: str) -> Ed25519PrivateKey:
    """The private key in `pem`; raise `UsageError` for a wrong passphrase or another kind of key."""
    try:
        key = load_pem_private_key(pem[:MAX_KEY_BYTES], None if passphrase is None else passphrase.encode())
    except TypeError:
        if passphrase is not None:  # the key is not encrypted: a passphrase given for all keys does no harm
            return load_private(pem, None, what)
        raise UsageError(
            f"{what} is encrypted", hint="give its passphrase in OSCIRC_KEY_PASSPHRASE or a file"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{what} cannot be opened: wrong passphrase, or not a private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{what} is not an Ed25519 key")
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public key as PEM (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(pem: bytes, what: str) -> Ed25519PublicKey:
    """The public key in `pem`; raise `UsageError` for anything else."""
    try:
        key = load_pem_public_key(pem[:MAX_KEY_BYTES])
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{what} is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureRefusedError(f"{what} is not an Ed25519 key")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's DER form in hexadecimal: what two people compare."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
