"""What a signing request would change, told from the bytes that are to be signed: what a holder reads before signing.

Every fact comes out of a payload or the metadata in force beside it, never out of words in the file. Fingerprints are
whole, since comparing them is the point. `describe` judges nothing; `ceremonies.judge` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from oscirc_blockstore import image_index, repository_facts, trust
from oscirc_blockstore.about import About
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import ImageIndex, Yank
from oscirc_blockstore.repository_facts import TARGET
from oscirc_blockstore.signing_request import RequestPart, SigningRequest
from oscirc_server.ceremonies import current_of, payload_of
from oscirc_server.clock import date_text
from oscirc_server.delegations import delegation, publishers
from oscirc_server.errors import ConflictError
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.key_places import root_fingerprints
from oscirc_server.tuf_api import Root, Targets

PREVIOUS = "before/"  # a request for a publisher's role holds the indexes in force under this prefix


@dataclass(frozen=True, slots=True)
class PartFacts:
    """One role of a request: versions (0: none yet), dates, and a sentence for each change."""

    role: str
    version_before: int
    version: int
    expires_before: str
    expires: str
    changes: tuple[str, ...]


def describe(request: SigningRequest) -> tuple[PartFacts, ...]:
    """The facts of each part, in the order of the request."""
    return tuple(_part_facts(request, part) for part in request.parts)


def trusted_root(request: SigningRequest) -> str:
    """The digest of the root in force that the request builds upon, as a remote's line states it; empty if none."""
    part = request.part("root")
    raw = part.current if part is not None else next((p.delegator for p in request.parts if p.role == "targets"), b"")
    return digest_of(raw).hex() if raw else ""


def _part_facts(request: SigningRequest, part: RequestPart) -> PartFacts:
    if part.role == "root":
        root, before = payload_of(part, Root), current_of(part, Root)
        return _facts(part.role, root, before, _root_changes(root, before))
    role, in_force = payload_of(part, Targets), current_of(part, Targets)
    if part.role == "targets":
        return _facts(part.role, role, in_force, _targets_changes(role, in_force, request.documents))
    return _facts(part.role, role, in_force, _publisher_changes(part.role, role, request.documents))


def _facts(role: str, new: Root | Targets, before: Root | Targets | None, changes: Iterator[str]) -> PartFacts:
    return PartFacts(
        role,
        0 if before is None else before.version,
        new.version,
        "" if before is None else date_text(before.expires.timestamp()),
        date_text(new.expires.timestamp()),
        tuple(changes),
    )


def _key_changes(before: tuple[str, ...], after: tuple[str, ...]) -> Iterator[str]:
    yield from (f"  - key {mark}" for mark in before if mark not in after)
    yield from (f"  + key {mark}" for mark in after if mark not in before)
    yield from (f"    key {mark}" for mark in after if mark in before)


def _threshold(what: str, threshold: int, count: int, before: tuple[int, int] | None) -> str:
    said = f"{what}: {threshold} of {count} keys must sign"
    if before is not None and before != (threshold, count):
        said += f" (were {before[0]} of {before[1]})"
    return said


def _root_changes(root: Root, before: Root | None) -> Iterator[str]:
    for role in (*OFFLINE_ROLES, *ONLINE_ROLES):
        old = () if before is None else root_fingerprints(before, role)
        terms = None if before is None else (before.roles[role].threshold, len(old))
        new = root_fingerprints(root, role)
        yield _threshold(role, root.roles[role].threshold, len(new), terms)
        yield from _key_changes(old, new)


def _targets_changes(role: Targets, before: Targets | None, documents: Mapping[str, bytes]) -> Iterator[str]:
    old = [] if before is None else publishers(before)
    new = publishers(role)
    yield from (f"publisher {name} is removed: nobody can resolve its images" for name in old if name not in new)
    for name in new:
        now = delegation(role, name)
        was = delegation(before, name) if before is not None and name in old else None
        if now == was:
            continue
        terms = None if was is None else (was.threshold, len(was.fingerprints))
        verb = "publisher" if was else "new publisher"
        yield _threshold(f"{verb} {name}", now.threshold, len(now.fingerprints), terms)
        yield from _key_changes(() if was is None else was.fingerprints, now.fingerprints)
    if TARGET in documents:
        facts = repository_facts.parse(documents[TARGET])
        mirrors = ", ".join(facts.mirrors) or "none"
        yield f"{TARGET}: name {facts.name!r}, API {facts.api_url or 'below the URL'}, mirrors: {mirrors}"
    elif before is not None and role.targets[TARGET].hashes != before.targets[TARGET].hashes:
        yield f"{TARGET} becomes another one, which is not in this request: do not sign"


def _publisher_changes(publisher: str, role: Targets, documents: Mapping[str, bytes]) -> Iterator[str]:
    for path, target in sorted(role.targets.items()):
        image = trust.image_of_target(publisher, path)
        raw = documents.get(image)
        if raw is None:
            continue
        if digest_of(raw).hex() != target.hashes["sha256"]:
            raise ConflictError(f"the request's index of {image} is not the one that it asks to sign")
        before = documents.get(f"{PREVIOUS}{image}")
        old = ImageIndex(publisher, image) if before is None else image_index.parse(before, publisher, image)
        yield from _index_changes(old, image_index.parse(raw, publisher, image))


def _index_changes(old: ImageIndex, new: ImageIndex) -> Iterator[str]:
    name = f"{new.publisher}/{new.image}"
    known = {version.label: version for version in old.versions}
    for version in new.versions:
        was = known.get(version.label)
        if was is None:
            yield f"{name}: + version {version.label}, manifest {version.manifest.hex()}"
        elif was.yanked != version.yanked:
            yield f"{name}: version {version.label} {_yank_text(version.yanked)}"
    for channel in sorted({*old.channels, *new.channels}):
        left, reached = old.channels.get(channel, "nothing"), new.channels.get(channel, "nothing")
        if left != reached:
            yield f"{name}: #{channel} goes from {left} to {reached}"
    gone = {each.label for each in old.deleted}
    for each in new.deleted:
        if each.label not in gone:
            yield f"{name}: version {each.label} is deleted for ever{f': {each.why}' if each.why else ''}"
    if new.closed and not old.closed:
        yield f"{name}: nothing is released under this name ever again"
    yield from _said_changes(name, old.about, new.about)


def _said_changes(name: str, old: About, new: About) -> Iterator[str]:
    """What is said of an image; a README by its digest, as `sha256sum` prints it for what `readme` holds."""
    before, after = old.document(), new.document()
    for field, value in after.items():
        if value == before[field]:
            continue
        if field == "readme":
            yield f"{name}: the README becomes one of {len(new.readme.encode())} bytes, SHA-256 {_digest(new.readme)}"
        else:
            yield f"{name}: {field.replace('_', ' ')} becomes {value!r} (was {before[field]!r})"


def _digest(text: str) -> str:
    return digest_of(text.encode()).hex()


def _yank_text(yanked: Yank | None) -> str:
    if yanked is None:
        return "is restored"
    return f"is withdrawn{' for security' if yanked.security else ''}: {yanked.why}"
