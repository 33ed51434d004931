"""The targets role: which publishers there are, under which keys, and `repository.json`. Pure rules and edits.

The form of it is fixed, and both the server and the command that signs a new targets role check it (`check_targets`):

1. its only target is `repository.json`, with one SHA-256 and an allowed length;
2. it delegates by name only: each role is an allowed publisher name, terminating, with exactly the paths
   `<publisher>/*`; no hash prefixes, no succinct bins;
3. a publisher's keys are distinct Ed25519 keys, at most `MAX_KEYS`, and the threshold is one that they can reach;
4. it expires in the future, at most a year and a day from now.

A publisher that is taken out keeps its role in every later snapshot (TUF: a role never leaves it), but nothing
delegates to it any more, so that no client reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oscirc_blockstore.digests import digest_of, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError, NotFoundError, TrustError, UsageError
from oscirc_blockstore.keys import fingerprint
from oscirc_blockstore.names import check_publisher
from oscirc_blockstore.repository_facts import MAX_BYTES, TARGET, RepositoryFacts
from oscirc_blockstore.trust import DAY_S, TARGETS_LIFETIME_S, publisher_paths
from oscirc_server.tuf_api import DelegatedRole, Delegations, Key, SSlibKey, TargetFile, Targets

MAX_KEYS = 32
CLOCK = "look at this machine's clock, then begin anew"


@dataclass(frozen=True, slots=True)
class Delegation:
    """A publisher as the targets role names it; fingerprints as `oscirc key show` prints them."""

    publisher: str
    fingerprints: tuple[str, ...]
    threshold: int


def key_fingerprint(key: Key) -> str:
    """As `oscirc key show` prints it; `TrustError` for any other kind of key."""
    if key.keytype != "ed25519" or key.scheme != "ed25519":
        raise TrustError(f"the key is {key.keytype[:40]}/{key.scheme[:40]}, not ed25519")
    try:
        return fingerprint(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"])))
    except ValueError:
        raise TrustError("the key is not an Ed25519 public key") from None


def _roles(targets: Targets) -> dict[str, DelegatedRole]:
    if targets.delegations is None:
        return {}
    if targets.delegations.roles is None:
        raise TrustError("the targets role delegates to hash bins instead of publishers")
    return targets.delegations.roles


def _keys(targets: Targets) -> dict[str, Key]:
    return {} if targets.delegations is None else targets.delegations.keys


def delegation(targets: Targets, publisher: str) -> Delegation:
    """One publisher, or `NotFoundError`."""
    role = _roles(targets).get(publisher)
    if role is None:
        raise NotFoundError(
            f"this repository has no publisher {publisher!r}", hint="an administrator adds one: oscirc publisher add"
        )
    keys = _keys(targets)
    prints = tuple(key_fingerprint(keys[keyid]) for keyid in role.keyids if keyid in keys)
    return Delegation(publisher, prints, role.threshold)


def publishers(targets: Targets) -> list[str]:
    """Their names, sorted."""
    return sorted(_roles(targets))


def _check_delegated(role: DelegatedRole, keys: dict[str, Key]) -> None:
    name = role.name
    try:
        check_publisher(name)
    except NameRefusedError as error:
        raise TrustError(f"the targets role delegates to a bad name: {error}") from None
    if not role.terminating or role.paths != publisher_paths(name) or role.path_hash_prefixes is not None:
        raise TrustError(f"the delegation to {name} must be terminating and for {name}/* alone")
    if not 0 < len(role.keyids) <= MAX_KEYS or any(keyid not in keys for keyid in role.keyids):
        raise TrustError(f"the delegation to {name} must name 1 to {MAX_KEYS} keys that are stated")
    prints = {key_fingerprint(keys[keyid]) for keyid in role.keyids}
    if len(prints) != len(role.keyids):
        raise TrustError(f"the delegation to {name} states one key under two names")
    if not 1 <= role.threshold <= len(role.keyids):
        raise TrustError(f"the delegation to {name} asks for {role.threshold} of {len(role.keyids)} keys")


def check_form(targets: Targets) -> None:
    """Raise a `TrustError` unless the role keeps rules 1 to 3."""
    facts = targets.targets.get(TARGET)
    if set(targets.targets) != {TARGET} or facts is None:
        raise TrustError(f"the targets role must name {TARGET} and nothing else")
    if set(facts.hashes) != {"sha256"} or not 0 < facts.length <= MAX_BYTES:
        raise TrustError(f"{TARGET} must state one SHA-256 and a length of at most {MAX_BYTES} bytes")
    try:
        parse_hex(facts.hashes["sha256"])
    except DocumentRefusedError as error:
        raise TrustError(f"{TARGET}: {error}") from None
    for role in _roles(targets).values():
        _check_delegated(role, _keys(targets))


def check_targets(targets: Targets, now_s: float) -> None:
    """Raise a `TrustError` unless the role keeps the rules above; signatures and versions are judged elsewhere."""
    check_form(targets)
    expires_s = targets.expires.timestamp()
    if not now_s < expires_s <= now_s + TARGETS_LIFETIME_S + DAY_S:
        raise TrustError("the targets role must expire in the future, within a year", hint=CLOCK)


def with_repository_facts(targets: Targets, facts: RepositoryFacts) -> tuple[Targets, bytes]:
    """The role naming this `repository.json`, and the document's bytes."""
    raw = facts.serialise()
    changed = copy.deepcopy(targets)
    changed.targets[TARGET] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, TARGET)
    return changed, raw


def with_publisher(
    targets: Targets, publisher: str, keys: Sequence[Ed25519PublicKey], *, threshold: int = 1
) -> Targets:
    """The role delegating `<publisher>/*` to these keys, in place of any that it delegated to before."""
    check_publisher(publisher)
    if not 1 <= threshold <= len(keys) <= MAX_KEYS:
        raise UsageError(f"a threshold of {threshold} with {len(keys)} keys is not allowed")
    changed = copy.deepcopy(targets)
    if changed.delegations is None:
        changed.delegations = Delegations({}, roles={})
    public = [SSlibKey.from_crypto(key) for key in keys]
    role = DelegatedRole(
        publisher, [key.keyid for key in public], threshold, terminating=True, paths=publisher_paths(publisher)
    )
    _roles(changed)[publisher] = role
    changed.delegations.keys.update({key.keyid: key for key in public})
    _drop_unused_keys(changed.delegations)
    return changed


def without_publisher(targets: Targets, publisher: str) -> Targets:
    """The role without this publisher, or `NotFoundError`."""
    delegation(targets, publisher)
    changed = copy.deepcopy(targets)
    del _roles(changed)[publisher]
    if changed.delegations is not None:
        _drop_unused_keys(changed.delegations)
    return changed


def _drop_unused_keys(delegations: Delegations) -> None:
    used = {keyid for role in (delegations.roles or {}).values() for keyid in role.keyids}
    for keyid in set(delegations.keys) - used:
        del delegations.keys[keyid]
