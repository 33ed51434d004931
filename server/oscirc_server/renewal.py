"""Renewals and rotations on the data directory itself, for whoever has the offline keys at hand.

Each function works beside a running server or without one: the writer's lock keeps them apart, and the server reads
what is in force from the database each time. A rotated key's file is kept with `.retired` added to its name.

After online keys were stolen and used to jump versions ahead, `rotate` of `online` recovers every client: a new root
with other keys for both makes them forget the versions that they have seen (TUF specification 5.3.11). Where the jump
has reached this server's own database or store, see `recovery`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import keys
from oscirc_blockstore.errors import UsageError
from oscirc_server import repository
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES, key_path, key_paths, retire_file, write_key
from oscirc_server.offline_signing import EditTargets, OfflineKeys, next_root, next_targets
from oscirc_server.repository import Change
from oscirc_server.services import audit
from oscirc_server.services.roles import RoleAccepted, apply_targets
from oscirc_server.tuf_api import CryptoSigner, Root

ONLINE = "online"


@dataclass(frozen=True, slots=True)
class Renewed:
    """What took force; `expires_s` in seconds since the epoch."""

    role: str
    version: int
    expires_s: int


def resign(installation: Installation, role: str, offline: OfflineKeys) -> Renewed:
    """A new version of the root or targets role with a new expiry and nothing else changed."""
    if role == "targets":
        edit_targets(installation, offline, lambda targets: targets)
    elif role == "root":
        with repository.changing(installation) as change:
            change.add_role(next_root(repository.current_root(change.session), offline, change.now_s))
            _note(change, "root.resign", role)
    else:
        raise UsageError(f"cannot re-sign {role!r} by hand", hint="root and targets are; the server does the others")
    return _renewed(installation, role)


def edit_targets(
    installation: Installation,
    offline: OfflineKeys,
    edit: EditTargets,
    documents: dict[str, bytes] | None = None,
) -> RoleAccepted:
    """The targets role, edited and signed here, judged as one that comes over the network; `documents` by path."""
    with repository.changing(installation) as change:
        for path, raw in (documents or {}).items():
            change.add_document(path, raw)
        root = repository.current_root(change.session).signed
        targets = repository.current_targets(change.session).signed
        accepted = apply_targets(change, next_targets(root, targets, offline, change.now_s, edit).raw)
        _note(change, "targets.update", "targets")
    return accepted


def resign_online(installation: Installation, above: int = 0) -> Renewed:
    """A new snapshot and timestamp at once, with numbers above `above`: clients have seen up to there."""
    with repository.changing(installation) as change:
        change.stay_above(snapshot=above, timestamp=above)
        audit.record(change.session, change.now_s, LOCAL_ACTOR, "online.resign", "snapshot", above=above)
    return _renewed(installation, "snapshot")


def check_rotation(installation: Installation, role: str, offline: OfflineKeys) -> Renewed:
    """What `rotate` would make, after everything that can refuse it has been asked; nothing is written."""
    _require_rotatable(role)
    with installation.database.read() as session:
        root = repository.current_root(session)
        targets = repository.current_targets(session).signed
    _require_one_holder(root.signed, (role,))
    now_s = installation.now_s()
    new = next_root(root, offline, now_s)
    if role == "targets":
        next_targets(root.signed, targets, offline, now_s)
    return Renewed("root", new.version, new.expires_s)


def rotate(installation: Installation, role: str, offline: OfflineKeys) -> Renewed:
    """A new key for one of the four roles, or for both `online` ones, and one root that names it.

    It is signed by the root key in force. Clients forget the snapshots and timestamps that they have seen when both
    online keys change in one root, which is what helps after these were stolen.
    """
    _require_rotatable(role)
    roles = ONLINE_ROLES if role == ONLINE else (role,)
    with contextlib.ExitStack() as stack:
        made: dict[str, tuple[CryptoSigner, Path]] = {}
        for name in roles:
            online = name in ONLINE_ROLES
            directory = installation.layout.keys if online else offline.directory
            made[name] = stack.enter_context(_new_key(directory, name, None if online else offline.passphrase))
        with repository.changing(installation) as change:
            replace_keys(change, offline, {name: signer for name, (signer, _) in made.items()})
            version = repository.current_version(change.session, "root")
            audit.record(change.session, change.now_s, LOCAL_ACTOR, "key.rotate", role, version=version)
        for name, (_, path) in made.items():
            _retire(path.parent, name, path)
    return _renewed(installation, "root")


def _require_rotatable(role: str) -> None:
    if role not in (*OFFLINE_ROLES, *ONLINE_ROLES, ONLINE):
        raise UsageError(f"there is no role {role!r}", hint="root, targets, snapshot and timestamp have keys")


def _require_one_holder(root: Root, roles: Collection[str]) -> None:
    for role in OFFLINE_ROLES:
        if role in roles and len(root.roles[role].keyids) > 1:
            raise UsageError(
                f"the {role} keys of several people are not replaced by one of them",
                hint=f"make the next root together: oscirc ceremony root --{role} KEY.pub …",
            )


def replace_keys(change: Change, offline: OfflineKeys, signers: dict[str, CryptoSigner]) -> None:
    """Add a root, signed with the offline keys, that names these keys instead of the roles' old ones."""
    current = repository.current_root(change.session)
    _require_one_holder(current.signed, signers)

    def edit(root: Root) -> None:
        for role, signer in signers.items():
            for keyid in list(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            root.add_key(signer.public_key, role)
            root.roles[role].threshold = 1

    extra = [signers["root"]] if "root" in signers else []
    change.add_role(next_root(current, offline, change.now_s, edit, extra))
    if "targets" in signers:
        root = repository.current_root(change.session).signed
        targets = repository.current_targets(change.session).signed
        apply_targets(change, next_targets(root, targets, offline, change.now_s).raw)


@contextlib.contextmanager
def _new_key(directory: Path, role: str, passphrase: str | None) -> Iterator[tuple[CryptoSigner, Path]]:
    """A key that is on disk before any root names it, and gone again when none comes to name it."""
    if role in OFFLINE_ROLES and not passphrase:
        raise UsageError(f"the {role} key needs a passphrase", hint="set OSCIRC_KEY_PASSPHRASE")
    key = keys.generate()
    signer = CryptoSigner(key)
    path = key_path(directory, role, signer.public_key.keyid)
    write_key(path, key, passphrase)
    try:
        yield signer, path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _retire(directory: Path, role: str, kept: Path) -> None:
    for path in key_paths(directory, role):
        if path != kept:
            retire_file(path)


def _note(change: Change, action: str, role: str) -> None:
    version = repository.current_version(change.session, role)
    audit.record(change.session, change.now_s, LOCAL_ACTOR, action, role, version=version)


def _renewed(installation: Installation, role: str) -> Renewed:
    with installation.database.read() as session:
        row = repository.in_force(session, role)
    return Renewed(role, row.version, row.expires_s)
