"""The public halves of a server's snapshot and timestamp keys, as a file that a ceremony names them by.

`make_online_keys` leaves the private halves in the data directory, beside those in force: a server signs with the
ones that its root names, so that new ones may lie there until a ceremony is over. Asked again before that, it names
the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oscirc_blockstore import canonical, keys
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.fields import Fields
from oscirc_server.key_files import ONLINE_ROLES, key_path, key_paths, load_signer, write_key
from oscirc_server.tuf_api import SSlibKey

FORMAT = "oscirc-online-keys-1"
MAX_BYTES = 4096
_KEY_CHARS = 64


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """One public key for each online role."""

    snapshot: Ed25519PublicKey
    timestamp: Ed25519PublicKey

    def serialise(self) -> bytes:
        """The file's bytes."""
        return canonical.serialise({"format": FORMAT, **{role: _hex(self.of(role)) for role in ONLINE_ROLES}})

    def of(self, role: str) -> Ed25519PublicKey:
        """The key of `snapshot` or `timestamp`."""
        return self.snapshot if role == "snapshot" else self.timestamp

    @property
    def fingerprints(self) -> dict[str, str]:
        """What two people compare, by role."""
        return {role: keys.fingerprint(self.of(role)) for role in ONLINE_ROLES}


def parse_online_keys(raw: bytes) -> OnlineKeys:
    """The keys in a file, or `DocumentRefusedError`."""
    what = "the file of online keys"
    fields = Fields(canonical.parse(raw, MAX_BYTES, what), what)
    fields.constant("format", FORMAT)
    snapshot, timestamp = (_public(fields.text(role, _KEY_CHARS), what) for role in ONLINE_ROLES)
    fields.finish()
    return OnlineKeys(snapshot, timestamp)


def make_online_keys(directory: Path, named: frozenset[str], *, new: bool) -> OnlineKeys:
    """The keys in `directory`; with `new`, ones whose ids are not among `named` (those that the root names)."""
    found: dict[str, Ed25519PublicKey] = {}
    for role in ONLINE_ROLES:
        held = [load_signer(path, None).public_key for path in key_paths(directory, role)]
        usable = [key for key in held if (key.keyid not in named) == new] if new or named else held
        if usable:
            found[role] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(usable[-1].keyval["public"]))
            continue
        made = keys.generate()
        keyid = SSlibKey.from_crypto(made.public_key()).keyid
        write_key(key_path(directory, role, keyid if held else ""), made, None)
        found[role] = made.public_key()
    return OnlineKeys(found["snapshot"], found["timestamp"])


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _public(text: str, what: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise DocumentRefusedError(f"{what} holds what is not an Ed25519 public key") from None
