"""An administrator's changes to the targets role: which publishers a repository has, and under which keys.

Made where the targets key is, which may be offline: `fetch_targets` and `put_targets` speak to a server, everything
between is bytes in, bytes out. The current metadata is believed only with the key's own signature, and only if it is
no older than the caller knows. Each publisher is one terminating delegation of `NAME/*` with one key.

A publisher that is removed stays in every later snapshot (TUF lets no role leave it); nothing delegates to it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
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
from oscirc_blockstore.names import check_publisher
from oscirc_publisher.problems import parse_object
from oscirc_publisher.rest import JSON, Body, RestClient
from oscirc_publisher.roles import MAX_ROLE_BYTES, expiry, parse_targets, sign, tuf_key

_WHAT = "the targets role that the server shows"
_MAX_ONLINE_BYTES = 2_000_000  # what python-tuf's client reads of a snapshot
_MAX_VERSION = 1 << 53
_CONFLICT = 409


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


def add_publisher(
    current: bytes,
    key: Ed25519PrivateKey,
    name: str,
    public: Ed25519PublicKey,
    now: datetime,
    *,
    minimum_version: int = 1,
) -> bytes:
    """New targets metadata that delegates `name/*` to this key; `UsageError` when the name is taken."""
    check_publisher(name)

    def change(targets: Targets) -> None:
        if name in _roles(targets):
            raise UsageError(f"there is a publisher {name} already", hint="to give it another key: publisher rotate")
        _delegate(targets, name, public)

    return _next(current, key, now, minimum_version, change)


def rotate_publisher(
    current: bytes,
    key: Ed25519PrivateKey,
    name: str,
    public: Ed25519PublicKey,
    now: datetime,
    *,
    minimum_version: int = 1,
) -> bytes:
    """New targets metadata with another key for a publisher, who then has to sign again: `publisher resign`."""

    def change(targets: Targets) -> None:
        _remove(targets, name)
        _delegate(targets, name, public)

    return _next(current, key, now, minimum_version, change)


def remove_publisher(
    current: bytes, key: Ed25519PrivateKey, name: str, now: datetime, *, minimum_version: int = 1
) -> bytes:
    """New targets metadata without this publisher; `NotFoundError` when there is none."""
    return _next(current, key, now, minimum_version, lambda targets: _remove(targets, name))


def resign_targets(current: bytes, key: Ed25519PrivateKey, now: datetime, *, minimum_version: int = 1) -> bytes:
    """The same content for another year."""
    return _next(current, key, now, minimum_version, lambda _: None)


def _next(
    current: bytes, key: Ed25519PrivateKey, now: datetime, minimum_version: int, change: Callable[[Targets], None]
) -> bytes:
    targets = parse_targets(current, (key.public_key(),), _WHAT).signed
    if targets.version < minimum_version:
        raise RollbackError(
            f"{_WHAT} has version {targets.version}; version {minimum_version} was seen before",
            hint="do not sign over it: the server lost or hides changes",
        )
    change(targets)
    targets.version += 1
    targets.expires = expiry(now, trust.TARGETS_LIFETIME_S)
    return sign(targets, key)


def _roles(targets: Targets) -> dict[str, DelegatedRole]:
    if targets.delegations is None:
        targets.delegations = Delegations({}, roles={})
    if targets.delegations.roles is None:
        raise DocumentRefusedError("the targets role delegates to hash bins instead of publishers")
    return targets.delegations.roles


def _delegate(targets: Targets, name: str, public: Ed25519PublicKey) -> None:
    _roles(targets)[name] = DelegatedRole(name, [], 1, terminating=True, paths=trust.publisher_paths(name))
    targets.add_key(tuf_key(public), name)


def _remove(targets: Targets, name: str) -> None:
    role = _roles(targets).get(name)
    if role is None:
        raise NotFoundError(f"the repository has no publisher {name}")
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
