"""Roles that several people sign: what to sign, who has to, and what their signatures make together.

Values in, values out; neither a database nor a server is needed, so that it runs on a holder's machine without
network (`oscirc_blockstore.signing_request` is the file between the machines). The rules:

1. a request is judged by its payloads alone: the form of a root or targets role, versions that follow, keys of one
   kind, thresholds that their keys can reach, expiries within their terms (`judge`);
2. who has to sign follows from the metadata in force: of a root the keys of the root before it and its own, of the
   targets role those that the root names, of a publisher's role those that the targets role delegates to;
3. a root and a targets role of one request take force together, since each may need the other;
4. what `assemble` returns has been verified as a client verifies it; the order of signatures leaves no trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oscirc_blockstore import keys, trust
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    SignatureRefusedError,
    TrustError,
    UsageError,
)
from oscirc_blockstore.repository_facts import TARGET
from oscirc_blockstore.signing_request import PartSignature, RequestPart, SigningRequest
from oscirc_blockstore.trust import DAY_S, ROOT_LIFETIME_S
from oscirc_server.delegations import CLOCK, MAX_KEYS, check_form, check_targets, key_fingerprint
from oscirc_server.key_files import OFFLINE_ROLES
from oscirc_server.metadata import (
    TOP_LEVEL,
    SignedMetadata,
    parse,
    role_facts,
    signed_metadata,
    stored,
    verify,
    verify_root_successor,
)
from oscirc_server.tuf_api import Metadata, Role, Root, SSlibKey, Targets

_Payload = TypeVar("_Payload", Root, Targets)


@dataclass(frozen=True, slots=True)
class Requirement:
    """Whose signatures a part needs: fingerprints as `oscirc key show` prints them, by TUF key id."""

    role: str
    whose: str
    fingerprints: dict[str, str]
    threshold: int

    def signed_by(self, signatures: Iterable[PartSignature]) -> tuple[str, ...]:
        """The fingerprints of those that have signed, sorted."""
        keyids = {SSlibKey.from_crypto(item.key).keyid for item in signatures if item.role == self.role}
        return tuple(sorted(mark for keyid, mark in self.fingerprints.items() if keyid in keyids))


def judge(request: SigningRequest, now_s: float) -> None:
    """Raise unless every part may be signed as far as its own bytes and those in force tell."""
    for part in request.parts:
        if part.role == "root":
            _judge_root(part, now_s)
        elif part.role == "targets":
            _root_for(request, part)
            new, current = payload_of(part, Targets), current_of(part, Targets)
            _require_next("targets", new.version, current)
            check_targets(new, now_s)
        elif part.role in TOP_LEVEL:
            raise TrustError(f"the {part.role} role is signed by the server, not by people")
        else:
            new, current = payload_of(part, Targets), current_of(part, Targets)
            before = 0 if current is None else current.version
            trust.check_role(role_facts(part.role, new), current_version=before, now_s=now_s)
    for name, raw in request.documents.items():
        if name == TARGET and not any(
            part.role == "targets"
            and payload_of(part, Targets).targets[TARGET].hashes["sha256"] == digest_of(raw).hex()
            for part in request.parts
        ):
            raise TrustError(f"the request carries a {TARGET} that it does not ask to sign")


def requirements(request: SigningRequest) -> tuple[Requirement, ...]:
    """Whose signatures the request needs."""
    found: list[Requirement] = []
    for part in request.parts:
        if part.role == "root":
            new, current = payload_of(part, Root), current_of(part, Root)
            if current is not None:
                found.append(_required("root", "the keys of the root in force", current, current.roles["root"]))
            if current is None or current.roles["root"].to_dict() != new.roles["root"].to_dict():
                found.append(_required("root", "the new root's keys", new, new.roles["root"]))
        elif part.role == "targets":
            root = _root_for(request, part)
            found.append(_required("targets", "the targets keys", root, root.roles["targets"]))
        else:
            delegator = _stated_targets(part.delegator)
            role = (delegator.delegations.roles or {}).get(part.role) if delegator.delegations else None
            if role is None or delegator.delegations is None:
                raise TrustError(f"the targets role delegates to no publisher {part.role}")
            prints = {keyid: key_fingerprint(delegator.delegations.keys[keyid]) for keyid in role.keyids}
            found.append(Requirement(part.role, f"the keys of {part.role}", prints, role.threshold))
    return tuple(found)


def roles_for(request: SigningRequest, key: Ed25519PublicKey) -> tuple[str, ...]:
    """The parts that this key is asked to sign; `UsageError` when it is none of them."""
    keyid = SSlibKey.from_crypto(key).keyid
    found = tuple(dict.fromkeys(item.role for item in requirements(request) if keyid in item.fingerprints))
    if not found:
        asked = sorted({mark for item in requirements(request) for mark in item.fingerprints.values()})
        raise UsageError(
            f"the key {keys.fingerprint(key)[:16]}… is not asked to sign this",
            hint=f"asked are {', '.join(f'{mark[:16]}…' for mark in asked)}",
        )
    return found


def assemble(request: SigningRequest, signatures: Iterable[PartSignature]) -> dict[str, SignedMetadata]:
    """The signed roles by name, verified; `SignatureRefusedError` says whose signatures are missing."""
    given = list(signatures)
    for item in requirements(request):
        signed = item.signed_by(given)
        if len(signed) < item.threshold:
            missing = sorted(f"{mark[:16]}…" for mark in item.fingerprints.values() if mark not in signed)
            raise SignatureRefusedError(
                f"{len(signed)} of {item.threshold} signatures of {item.whose} are there, for the {item.role} role",
                hint=f"not signed yet: {', '.join(missing)}",
            )
    made: dict[str, SignedMetadata] = {}
    for part in request.parts:
        if part.role == "root":
            root = signed_metadata(payload_of(part, Root), _chosen(request, given, "root"))
            if part.current:
                verify_root_successor(parse(part.current, Root, "the root in force"), root)
            else:
                verify(root.signed, "root", root, "the first root")
            made["root"] = stored("root", root.signed, root.to_bytes())
        else:
            role = signed_metadata(payload_of(part, Targets), _chosen(request, given, part.role))
            delegator = _root_for(request, part) if part.role == "targets" else _stated_targets(part.delegator)
            verify(delegator, part.role, role, f"the {part.role} role")
            made[part.role] = stored(part.role, role.signed, role.to_bytes())
    return made


def payload_of(part: RequestPart, kind: type[_Payload]) -> _Payload:
    """What is to be signed, parsed; its bytes must be exactly those that TUF signs."""
    try:
        signed = json.loads(part.payload)
    except (ValueError, RecursionError):
        raise DocumentRefusedError(f"what is to be signed for {part.role} is not JSON") from None
    raw = json.dumps({"signed": signed, "signatures": []}).encode()
    metadata: Metadata[_Payload] = parse(raw, kind, f"what is to be signed for {part.role}")
    if metadata.signed_bytes != part.payload:
        raise DocumentRefusedError(f"what is to be signed for {part.role} is not in the form that TUF signs")
    return metadata.signed


def current_of(part: RequestPart, kind: type[_Payload]) -> _Payload | None:
    """The role in force as the request states it, None when there is none yet."""
    if not part.current:
        return None
    current = parse(part.current, kind, f"the {part.role} role in force").signed
    if isinstance(current, Root):
        _check_root_form(current)
    elif part.role == "targets":
        check_form(current)
    return current


def _required(role: str, whose: str, root: Root, named: Role) -> Requirement:
    prints = {keyid: key_fingerprint(root.keys[keyid]) for keyid in named.keyids}
    return Requirement(role, whose, prints, named.threshold)


def _root_for(request: SigningRequest, part: RequestPart) -> Root:
    """The root that a targets role will be verified under: the one of the same request, else the one in force."""
    root = request.part("root")
    if root is not None:
        return payload_of(root, Root)
    return stated_root(part.delegator)


def _chosen(request: SigningRequest, given: Sequence[PartSignature], role: str) -> dict[str, bytes]:
    """Signature by key id, of the keys that were asked, sorted."""
    asked = {keyid for item in requirements(request) if item.role == role for keyid in item.fingerprints}
    found = {SSlibKey.from_crypto(item.key).keyid: item.signature for item in given if item.role == role}
    return {keyid: found[keyid] for keyid in sorted(found) if keyid in asked}


def _require_next(role: str, version: int, current: Root | Targets | None) -> None:
    before = 0 if current is None else current.version
    if version != before + 1:
        raise TrustError(f"the {role} role is at version {before}: version {before + 1} comes next, not {version}")


def _judge_root(part: RequestPart, now_s: float) -> None:
    root, current = payload_of(part, Root), current_of(part, Root)
    _require_next("root", root.version, current)
    _check_root_form(root)
    expires_s = root.expires.timestamp()
    if not now_s < expires_s <= now_s + ROOT_LIFETIME_S + DAY_S:
        raise TrustError("the root must expire in the future, within five years", hint=CLOCK)


def _check_root_form(root: Root) -> None:
    if set(root.roles) != set(TOP_LEVEL) or not root.consistent_snapshot:
        raise TrustError("the root must name the four roles and consistent snapshots, as this project's do")
    prints: dict[str, set[str]] = {}
    for role, named in root.roles.items():
        if not 0 < len(named.keyids) <= MAX_KEYS or any(keyid not in root.keys for keyid in named.keyids):
            raise TrustError(f"the root must name 1 to {MAX_KEYS} {role} keys that it states")
        prints[role] = {key_fingerprint(root.keys[keyid]) for keyid in named.keyids}
        if len(prints[role]) != len(named.keyids) or not 1 <= named.threshold <= len(named.keyids):
            raise TrustError(f"the root names a {role} key twice, or a threshold that its keys cannot reach")
    online = prints["snapshot"] | prints["timestamp"]
    if any(online & prints[role] for role in OFFLINE_ROLES):
        raise TrustError("a key that a server holds may not be a root or targets key")


def stated_root(raw: bytes) -> Root:
    """A root that a request states as the one in force: believed in nothing, and of the form of one."""
    root = parse(raw, Root, "the root in force").signed
    _check_root_form(root)
    return root


def _stated_targets(raw: bytes) -> Targets:
    """The like of it for a targets role."""
    targets = parse(raw, Targets, "the targets role in force").signed
    check_form(targets)
    return targets
