"""An administrator's changes to the targets role: which publishers a repository has, and under which keys.

Made where the targets key is, which may be offline: `fetch_targets` and `put_targets` speak to a server, everything
between is bytes in, bytes out. The current metadata is believed only with the key's own signature, and only if it is
no older than the caller knows. Each publisher is one terminating delegation of `NAME/*` with one key or several.
Where several people sign the targets role, the same edits go into a signing request (`oscirc ceremony`).

A publisher that is removed stays in every later snapshot (TUF lets no role leave it); nothing delegates to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.metadata import DelegatedRole, Delegations, Targets  # type: ignore[attr-defined]

from oscirc_blockstore import trust
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NotFoundError,
    RollbackError,
    ServerRefusedError,
    TransportError,
    UsageError,
)
from oscirc_blockstore.keys import fingerprint
from oscirc_blockstore.names import check_publisher
from oscirc_publisher.problems import parse_object
from oscirc_publisher.rest import JSON, Body, RestClient
from oscirc_publisher.roles import MAX_ROLE_BYTES, expiry, parse_targets, sign, tuf_key

_WHAT = "the targets role that the server shows"
_MAX_ONLINE_BYTES = 2_000_000  # what python-tuf's client reads of a snapshot
_MAX_VERSION = 1 << 53
_CONFLICT = 409
_SHORTEST_MARK = 8

Edit = Callable[[Targets], None]
"""Changes a targets role in place; raises when that cannot be."""


def fetch_targets(rest: RestClient, version: int | None = None) -> bytes:
    """The served targets metadata, unverified; its version is found through timestamp and snapshot unless given."""
    if version is None:
        snapshot = _meta_version(rest.fetch("metadata/timestamp.json", _MAX_ONLINE_BYTES), "snapshot.json")
        version = _meta_version(rest.fetch(f"metadata/{snapshot}.snapshot.json", _MAX_ONLINE_BYTES), "targets.json")
    return rest.fetch(f"metadata/{version}.targets.json", MAX_ROLE_BYTES)


def put_targets(rest: RestClient, raw: bytes) -> None:
    """Offer signed targets metadata; needs an administrator's token. The very same again is a success."""
    try:
        rest.call("PUT", "roles/targets", Body.of(raw, JSON))
    except ServerRefusedError as error:
        # an answer may have been lost, and this have been the second try
        if error.status != _CONFLICT or not _is_served(rest, raw):
            raise


def _is_served(rest: RestClient, raw: bytes) -> bool:
    try:
        return fetch_targets(rest) == raw
    except TransportError:
        return False


def publishers(current: bytes, key: Ed25519PublicKey) -> list[str]:
    """The publishers that the metadata delegates to, sorted."""
    return sorted(_roles(parse_targets(current, (key,), _WHAT).signed))


def adding(name: str, keys: Sequence[Ed25519PublicKey], threshold: int = 1) -> Edit:
    """Delegate `name/*` to these keys, of which `threshold` must sign; `UsageError` when the name is taken.

    Taken by the very same keys under the same threshold it is no error: nothing changes but the version.
    """
    check_publisher(name)

    def edit(targets: Targets) -> None:
        role = _roles(targets).get(name)
        if role is not None:
            if set(role.keyids) == {tuf_key(key).keyid for key in keys} and role.threshold == threshold:
                return
            raise UsageError(f"there is a publisher {name} already", hint="to give it another key: publisher rotate")
        _delegate(targets, name, keys, threshold)

    return edit


def rotating(
    name: str, keys: Sequence[Ed25519PublicKey], threshold: int | None = None, *, keep_old: bool = False
) -> Edit:
    """Other keys for a publisher: in place of those it has, or beside them (`keep_old`: a planned rotation).

    The publisher then signs again with a new key. Without a threshold the one in force stays, as far as keys reach.
    """

    def edit(targets: Targets) -> None:
        role = _existing(targets, name)
        before = {key.keyid: key for key in _keys_of(targets, role)} if keep_old else {}
        before |= {key.keyid: key for key in map(tuf_key, keys)}
        wanted = min(role.threshold, len(before)) if threshold is None else threshold
        _remove(targets, name)
        _delegate_tuf(targets, name, list(before.values()), wanted)

    return edit


def revoking(name: str, fingerprints: Sequence[str], threshold: int | None = None) -> Edit:
    """Fewer keys for a publisher: those with these fingerprints (or beginnings of them) sign for it no more."""

    def edit(targets: Targets) -> None:
        role = _existing(targets, name)
        marks = {mark: key for key in _keys_of(targets, role) if (mark := _fingerprint(key))}
        gone = {_one_mark(name, wanted, marks) for wanted in fingerprints}
        left = [key for mark, key in marks.items() if mark not in gone]
        if not left:
            raise UsageError(
                f"that is the last key of {name}", hint="publisher rotate gives it another, remove ends it"
            )
        wanted = role.threshold if threshold is None else threshold
        if wanted > len(left):
            raise UsageError(
                f"{wanted} keys of {name} must sign and {len(left)} would be left", hint="say how many: --threshold N"
            )
        _remove(targets, name)
        _delegate_tuf(targets, name, left, wanted)

    return edit


def removing(name: str) -> Edit:
    """Delegate nothing to this publisher any more; `NotFoundError` when there is none."""
    return lambda targets: _remove(targets, name)


def keeping(_targets: Targets) -> None:
    """Change nothing: the same content for another year."""


def change_targets(
    current: bytes, signers: Sequence[Ed25519PrivateKey], now: datetime, edit: Edit, *, minimum_version: int = 1
) -> bytes:
    """The next targets metadata, edited, for another year, signed by every one of `signers`."""
    targets = parse_targets(current, [key.public_key() for key in signers], _WHAT).signed
    if targets.version < minimum_version:
        raise RollbackError(
            f"{_WHAT} has version {targets.version}; version {minimum_version} was seen before",
            hint="do not sign over it: the server lost or hides changes",
        )
    edit(targets)
    targets.version += 1
    targets.expires = expiry(now, trust.TARGETS_LIFETIME_S)
    return sign(targets, *signers)


def _roles(targets: Targets) -> dict[str, DelegatedRole]:
    if targets.delegations is None:
        targets.delegations = Delegations({}, roles={})
    if targets.delegations.roles is None:
        raise DocumentRefusedError("the targets role delegates to hash bins instead of publishers")
    return targets.delegations.roles


def _existing(targets: Targets, name: str) -> DelegatedRole:
    role = _roles(targets).get(name)
    if role is None:
        raise NotFoundError(f"the repository has no publisher {name}")
    return role


def _keys_of(targets: Targets, role: DelegatedRole) -> list[Key]:
    stated = {} if targets.delegations is None else targets.delegations.keys
    return [stated[keyid] for keyid in role.keyids if keyid in stated]


def _fingerprint(key: Key) -> str:
    try:
        return fingerprint(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"])))
    except (KeyError, ValueError):
        raise DocumentRefusedError("the targets role states a key that is not Ed25519") from None


def _one_mark(name: str, wanted: str, marks: dict[str, Key]) -> str:
    found = [mark for mark in marks if mark.startswith(wanted.lower())]
    if len(found) != 1 or len(wanted) < _SHORTEST_MARK:
        known = ", ".join(f"{mark[:16]}…" for mark in marks)
        raise NotFoundError(f"{name} has no one key {wanted[:64]}", hint=f"its keys: {known}")
    return found[0]


def _delegate(targets: Targets, name: str, keys: Sequence[Ed25519PublicKey], threshold: int) -> None:
    _delegate_tuf(targets, name, [tuf_key(key) for key in keys], threshold)


def _delegate_tuf(targets: Targets, name: str, keys: Sequence[Key], threshold: int) -> None:
    if not 1 <= threshold <= len({key.keyid for key in keys}):
        raise UsageError(f"{threshold} of {len(keys)} different keys cannot sign", hint="lower --threshold")
    _roles(targets)[name] = DelegatedRole(name, [], threshold, terminating=True, paths=trust.publisher_paths(name))
    for key in keys:
        targets.add_key(key, name)


def _remove(targets: Targets, name: str) -> None:
    role = _existing(targets, name)
    for keyid in list(role.keyids):
        targets.revoke_key(keyid, name)
    del _roles(targets)[name]


def _meta_version(raw: bytes, name: str) -> int:
    """The version that unverified timestamp or snapshot metadata states: a hint where to look, nothing more."""
    found: object = parse_object(raw)
    for step in ("signed", "meta", name, "version"):
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= _MAX_VERSION:
        raise DocumentRefusedError(f"the server's metadata names no version of {name}")
    return found
