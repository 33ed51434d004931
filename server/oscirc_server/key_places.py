"""Which keys the root names, and which of them stand on this server: what `serve status` shows of keys.

Only what can be read without a passphrase is known: an online key's file tells which key it is, an encrypted root or
targets key tells only that it is here, where it should not be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.errors import OscircError
from oscirc_server.delegations import key_fingerprint
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES, key_paths, load_signer
from oscirc_server.tuf_api import Root


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """A key that the root names; `file` is where it stands on this server, empty when it does not (or is encrypted)."""

    fingerprint: str
    file: str


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """A top-level role: how many of which keys must sign. `files_here` are all key files of that role in `keys/`."""

    role: str
    threshold: int
    keys: tuple[KeyPlace, ...]
    files_here: tuple[str, ...]

    @property
    def signs_here(self) -> bool:
        """Whether this server holds enough of the keys to sign by itself."""
        return sum(1 for key in self.keys if key.file) >= self.threshold


def _readable(directory: Path, role: str) -> dict[str, str]:
    """Key id -> file, of the keys that need no passphrase."""
    found: dict[str, str] = {}
    for path in key_paths(directory, role) if role in ONLINE_ROLES else ():
        try:
            found[load_signer(path, None).public_key.keyid] = str(path)
        except OscircError:
            continue  # another kind of file: it signs nothing
    return found


def root_fingerprints(root: Root, role: str) -> tuple[str, ...]:
    """The fingerprints of the keys that the root names for a role, in its order."""
    return tuple(key_fingerprint(root.keys[keyid]) for keyid in root.roles[role].keyids)


def key_places(root: Root, directory: Path) -> tuple[RoleKeys, ...]:
    """The four roles in a fixed order, with the keys of `directory` (the data directory's `keys`)."""
    places: list[RoleKeys] = []
    for role in (*OFFLINE_ROLES, *ONLINE_ROLES):
        here = _readable(directory, role)
        keys = tuple(
            KeyPlace(key_fingerprint(root.keys[keyid]), here.get(keyid, "")) for keyid in root.roles[role].keyids
        )
        files = tuple(str(path) for path in key_paths(directory, role))
        places.append(RoleKeys(role, root.roles[role].threshold, keys, files))
    return tuple(places)
