"""What a repository offers now, verified: its roles, its image indexes, and the versions of them that are wanted.

Indexes are named by their digest and by nothing in the tree yet, so they may stand there before anything else does.
What one publisher signed wrongly, or what a source lacks of it, is a note: it does not keep the others from being read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import IntegrityError, NotServedError
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex, index_target
from oscirc_blockstore.repository_facts import MAX_BYTES, TARGET
from oscirc_server.metadata import MAX_ROLE_BYTES
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.publication import put
from oscirc_server.mirroring.selection import Selection
from oscirc_server.mirroring.upstream import Upstream
from oscirc_server.mirroring.verified import VerifiedMetadata, VerifiedRole
from oscirc_server.tree_paths import role_path, target_path


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that is to be here; several labels may mean one disk."""

    reference: str
    publisher: str
    image: str
    manifest: Digest


@dataclass(slots=True)
class State:
    """What a repository offers now: verified, and not shown to readers so far."""

    verified: VerifiedMetadata
    roles: list[VerifiedRole] = field(default_factory=list)
    indexes: list[ImageIndex] = field(default_factory=list)
    documents: dict[str, Digest] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def wanted(self, selection: Selection) -> list[Wanted]:
        """The selected versions, each disk of an image once."""
        found: dict[tuple[str, str, Digest], Wanted] = {}
        for index in self.indexes:
            for version in selection.versions_of(index):
                reference = f"{index.publisher}/{index.image}@{version.label}"
                key = (index.publisher, index.image, version.manifest)
                found.setdefault(key, Wanted(reference, *key))
        return list(found.values())


def gather(directory: MirrorDirectory, upstream: Upstream, jobs: int, *, keep: bool = True) -> State:
    """Refresh, and fetch roles and indexes; `keep` puts the indexes (which nothing names yet) into the tree."""
    state = State(upstream.refresh())
    verified = state.verified
    state.notes += verified.notes
    with _several_at_once(upstream, jobs) as pool:
        judged = pool.map(lambda name: _role(directory, upstream, verified, name), sorted(verified.metas))
        for role in judged:
            if isinstance(role, str):
                state.notes.append(role)
                continue
            state.roles.append(role)
            state.notes += [role.note] if role.note else []
        places = [
            (role.publisher, image, parse_hex(facts.hashes["sha256"]))
            for role in state.roles
            for image, facts in role.indexes.items()
        ]
        found = pool.map(lambda place: _index(directory, upstream, place, keep=keep), places)
        for (publisher, image, digest), index in zip(places, found, strict=True):
            state.documents[target_path(index_target(publisher, image), digest)] = digest
            if isinstance(index, ImageIndex):
                state.indexes.append(index)
            else:
                state.notes.append(index)
    facts = verified.targets.targets.get(TARGET)
    if facts is not None:
        digest = parse_hex(facts.hashes["sha256"])
        path = target_path(TARGET, digest)
        raw = upstream.named(path, digest, MAX_BYTES)
        if raw is not None and keep:
            put(directory.storage, path, raw)
        state.documents[path] = digest
    return state


@contextlib.contextmanager
def _several_at_once(upstream: Upstream, jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end at once when what they are for has failed."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="oscirc-mirror-role")
    try:
        yield pool
    except BaseException:
        upstream.cancellation.cancel("another request failed")
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _role(
    directory: MirrorDirectory, upstream: Upstream, verified: VerifiedMetadata, publisher: str
) -> VerifiedRole | str:
    path = role_path(publisher, verified.metas[publisher].version)
    kept = directory.storage.get(path, MAX_ROLE_BYTES)
    if kept is not None:
        with contextlib.suppress(IntegrityError):
            return verified.judge_role(publisher, kept)
    try:
        found = upstream.document(path, MAX_ROLE_BYTES, lambda raw: verified.judge_role(publisher, raw))
    except (IntegrityError, NotServedError) as error:
        return str(error)
    return (
        f"no source has version {verified.metas[publisher].version} of {publisher}'s role" if found is None else found
    )


def _index(
    directory: MirrorDirectory, upstream: Upstream, place: tuple[str, str, Digest], *, keep: bool
) -> ImageIndex | str:
    publisher, image, digest = place
    path = target_path(index_target(publisher, image), digest)
    raw = directory.storage.get(path, MAX_INDEX_BYTES)
    try:
        if raw is None or digest_of(raw) != digest:
            raw = upstream.named(path, digest, MAX_INDEX_BYTES)
            if raw is None:
                return f"no source has the index of {publisher}/{image}"
            if keep:
                put(directory.storage, path, raw)
        return image_index.parse(raw, publisher, image)
    except (IntegrityError, NotServedError) as error:
        return f"the index of {publisher}/{image}: {error}"
