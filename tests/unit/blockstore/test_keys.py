"""Keys as files: encrypted, and errors that say what is wrong with which file."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oscirc_blockstore import keys
from oscirc_blockstore.errors import UsageError


def test_an_encrypted_key_opens_with_its_passphrase_only():
    key = keys.generate()
    pem = keys.private_pem(key, "correct horse")
    assert b"ENCRYPTED" in pem
    opened = keys.load_private(pem, "correct horse", "key")
    assert keys.fingerprint(opened.public_key()) == keys.fingerprint(key.public_key())
    for passphrase in ("wrong", None):
        with pytest.raises(UsageError):
            keys.load_private(pem, passphrase, "key")


def test_an_unencrypted_key_ignores_a_passphrase_given_for_all():
    key = keys.generate()
    assert keys.load_private(keys.private_pem(key, None), "any", "key").sign(b"x") == key.sign(b"x")


def test_public_keys_come_back_and_junk_is_refused():
    public = keys.generate().public_key()
    assert keys.load_public(keys.public_pem(public), "key") == public
    with pytest.raises(UsageError):
        keys.load_public(b"junk", "key")
    with pytest.raises(UsageError):
        keys.load_private(b"junk", "x", "key")


def test_other_kinds_of_key_are_refused():
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(UsageError, match="Ed25519"):
        keys.load_private(pem, None, "key")
