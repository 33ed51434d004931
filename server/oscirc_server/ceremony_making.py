"""The requests of ceremonies: the next root, the next targets role, or a repository's first ones, ready to be signed.

Values in, values out, as in `ceremonies`, which judges each before it leaves here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts
from oscirc_blockstore.signing_request import RequestPart, SigningRequest
from oscirc_blockstore.trust import ROOT_LIFETIME_S, TARGETS_LIFETIME_S
from oscirc_server.ceremonies import judge, stated_root
from oscirc_server.delegations import MAX_KEYS, with_repository_facts
from oscirc_server.metadata import expiry, parse, signed_metadata
from oscirc_server.offline_signing import EditTargets
from oscirc_server.online_keys import OnlineKeys
from oscirc_server.tuf_api import Root, SSlibKey, Targets

_Payload = TypeVar("_Payload", Root, Targets)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of which `threshold` have to sign."""

    keys: tuple[Ed25519PublicKey, ...]
    threshold: int


def first_request(
    facts: RepositoryFacts, online: OnlineKeys, root_keys: KeySet, targets_keys: KeySet, now_s: float
) -> SigningRequest:
    """The first root and targets role of a repository whose server made `online`."""
    root = Root(version=1, expires=expiry(now_s, ROOT_LIFETIME_S))
    _name_keys(root, "root", root_keys)
    _name_keys(root, "targets", targets_keys)
    _name_online(root, online)
    empty = Targets(version=1, expires=expiry(now_s, TARGETS_LIFETIME_S))
    targets, document = with_repository_facts(empty, facts)
    parts = (_part("root", root), _part("targets", targets))
    return _judged(SigningRequest(facts.name, parts, {TARGET: document}), now_s)


def root_request(
    root_raw: bytes,
    targets_raw: bytes,
    now_s: float,
    repository: str,
    *,
    root_keys: KeySet | None = None,
    targets_keys: KeySet | None = None,
    online: OnlineKeys | None = None,
) -> SigningRequest:
    """The next root, with other keys where they are given. Other targets keys sign the targets role anew, beside it."""
    current = parse(root_raw, Root, "the root in force")
    root = copy.deepcopy(current.signed)
    root.version += 1
    root.expires = expiry(now_s, ROOT_LIFETIME_S)
    for role, chosen in (("root", root_keys), ("targets", targets_keys)):
        if chosen is not None:
            _name_keys(root, role, chosen)
    if online is not None:
        _name_online(root, online)
    parts = [_part("root", root, root_raw, root_raw)]
    if targets_keys is not None:
        targets = copy.deepcopy(parse(targets_raw, Targets, "the targets role in force").signed)
        targets.version += 1
        targets.expires = expiry(now_s, TARGETS_LIFETIME_S)
        parts.append(_part("targets", targets, targets_raw))
    return _judged(SigningRequest(repository, tuple(parts)), now_s)


def targets_request(
    root_raw: bytes,
    targets_raw: bytes,
    now_s: float,
    repository: str,
    edit: EditTargets = lambda targets: targets,
    facts: RepositoryFacts | None = None,
) -> SigningRequest:
    """The next targets role: edited, and with another `repository.json` when `facts` are given."""
    current = parse(targets_raw, Targets, "the targets role in force").signed
    targets = edit(copy.deepcopy(current))
    documents: dict[str, bytes] = {}
    if facts is not None:
        targets, documents[TARGET] = with_repository_facts(targets, facts)
    targets.version = current.version + 1
    targets.expires = expiry(now_s, TARGETS_LIFETIME_S)
    return _judged(SigningRequest(repository, (_part("targets", targets, targets_raw, root_raw),), documents), now_s)


def keys_of(root_raw: bytes, role: str) -> KeySet:
    """The keys that a root names for a role."""
    root = stated_root(root_raw)
    named = root.roles[role]
    public = (Ed25519PublicKey.from_public_bytes(bytes.fromhex(root.keys[k].keyval["public"])) for k in named.keyids)
    return KeySet(tuple(public), named.threshold)


def _judged(request: SigningRequest, now_s: float) -> SigningRequest:
    judge(request, now_s)
    return request


def _part(role: str, payload: _Payload, current: bytes = b"", delegator: bytes = b"") -> RequestPart:
    return RequestPart(role, signed_metadata(payload, {}).signed_bytes, current, delegator)


def _name_keys(root: Root, role: str, chosen: KeySet) -> None:
    if not 1 <= chosen.threshold <= len(chosen.keys) <= MAX_KEYS:
        raise UsageError(f"{chosen.threshold} of {len(chosen.keys)} {role} keys cannot sign")
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in chosen.keys:
        root.add_key(SSlibKey.from_crypto(key), role)
    root.roles[role].threshold = chosen.threshold


def _name_online(root: Root, online: OnlineKeys) -> None:
    _name_keys(root, "snapshot", KeySet((online.snapshot,), 1))
    _name_keys(root, "timestamp", KeySet((online.timestamp,), 1))
