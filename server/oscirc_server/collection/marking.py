"""Marks everything that a root leads to: tables of manifests, and leases.

The order makes it right beside publishers: leases of drafts released before this began are dropped first, since their
manifests are roots by then; the list of manifests is read next, the leases last. Whatever is released meanwhile keeps
its leases until the next collection, and whoever sweeps asks for leases again.

Tables are walked node by node, each node once, a few at a time, so that an object store's answers are waited for
together. Their structure was judged when they were released; here it is their digests that are believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from sqlalchemy import ColumnElement, delete, select

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest, block_path
from oscirc_blockstore.errors import IntegrityError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import parse_verified
from oscirc_blockstore.table import NODE_SIZE, TableRoot
from oscirc_server.collection.marks import Marks
from oscirc_server.errors import UnreadableRootError
from oscirc_server.installation import Installation
from oscirc_server.models import DRAFT_OPEN, DRAFT_RELEASED, Draft, Lease, ManifestRow

LOADERS = 8
_NODES_AT_ONCE = 64
_LEASES_AT_ONCE = 10_000


@dataclass(slots=True)
class Marked:
    """How much was walked."""

    manifests: int = 0
    nodes: int = 0


def drop_leases_of_released(installation: Installation) -> None:
    """Their manifests are roots now."""
    with installation.database.read() as session:
        released = list(session.scalars(select(Draft.id).where(Draft.state == DRAFT_RELEASED)))
    for draft_id in released:
        with installation.database.write() as session:
            session.execute(delete(Lease).where(Lease.draft_id == draft_id))


def mark(
    installation: Installation,
    marks: Marks,
    *,
    without: frozenset[Digest] = frozenset(),
    dry_run: bool = False,
    on_manifest: Callable[[int, int], None] = lambda _done, _total: None,
) -> Marked:
    """Mark what all manifests but `without` and all leases need; `on_manifest` hears (done, of how many).

    A dry run leaves out leases that a true one would have ended.
    """
    with installation.database.read() as session:
        digests = [Digest(raw) for raw in session.scalars(select(ManifestRow.digest)) if raw not in without]
    walker = Walker(installation, marks.add)
    with walker:
        for done, digest in enumerate(digests):
            on_manifest(done, len(digests))
            walker.walk_manifest(digest)
    on_manifest(len(digests), len(digests))
    for page in _leased(installation, dry_run=dry_run):
        marks.add(page)
    return Marked(len(digests), walker.nodes)


def lasting(now_s: int) -> ColumnElement[bool]:
    """Whether a lease is one that a collection does not end at its beginning."""
    drafts = select(Draft.id).where(Draft.state == DRAFT_OPEN, Draft.expires_s > now_s)
    return Lease.draft_id.in_(drafts)


def _leased(installation: Installation, *, dry_run: bool) -> Iterator[Sequence[bytes]]:
    after = b""
    while True:
        with installation.database.read() as session:
            query = select(Lease.digest).distinct().where(Lease.digest > after).order_by(Lease.digest)
            if dry_run:
                query = query.where(lasting(installation.now_s()))
            page = list(session.scalars(query.limit(_LEASES_AT_ONCE)))
        yield page
        if len(page) < _LEASES_AT_ONCE:
            return
        after = page[-1]


Load = Callable[[Digest, str], bytes | None]
"""A node by its digest; the text says whose. None where the walk is to leave that subtree out."""


class Walker:
    """Tells `found` the digests of every node and block that tables name; a subtree that was walked is not again.

    `load` is called from a few threads; the one unless given reads the store, and raises `UnreadableRootError`.
    """

    def __init__(
        self, installation: Installation, found: Callable[[Sequence[bytes]], None], load: Load | None = None
    ) -> None:
        self._installation = installation
        self._found = found
        self._load = load or self._stored
        self._seen: set[tuple[int, Digest]] = set()
        self._pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="marking")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def nodes(self) -> int:
        """Distinct nodes so far."""
        return len(self._seen)

    def walk_manifest(self, digest: Digest) -> None:
        """The table of a manifest; one that was retired meanwhile needs nothing any more."""
        with self._installation.database.read() as session:
            raw = session.scalar(select(ManifestRow.raw).where(ManifestRow.digest == digest))
        if raw is None:
            return
        try:
            root = parse_verified(raw, digest).root
        except IntegrityError as error:
            raise UnreadableRootError(f"the manifest {digest.hex()} cannot be read: {error}") from None
        self.walk(root, f"the manifest {digest.hex()}")

    def walk(self, root: TableRoot, whose: str) -> None:
        """A table, a level at a time from the top."""
        level, load = root.depth - 1, self._load
        nodes = [] if root.digest == ZERO_DIGEST else [root.digest]
        while nodes:
            fresh = [digest for digest in dict.fromkeys(nodes) if (level, digest) not in self._seen]
            self._found(fresh)
            nodes = []
            for start in range(0, len(fresh), _NODES_AT_ONCE):
                group = fresh[start : start + _NODES_AT_ONCE]
                loaded = self._pool.map(lambda each: load(each, whose), group)
                for digest, node in zip(group, loaded, strict=True):
                    self._seen.add((level, digest))
                    if node is None:
                        continue
                    children = [child for child in _entries(node) if child != ZERO_DIGEST]
                    if level == 0:
                        self._found(children)
                    else:
                        nodes += children
            level -= 1

    def _stored(self, digest: Digest, whose: str) -> bytes:
        frame = self._installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
        hint = "repair it from a mirror: oscirc serve scrub --mirror URL"
        if frame is None:
            raise UnreadableRootError(f"{whose} needs the node {digest.hex()}, which is not in the store", hint=hint)
        try:
            return decode_verified(frame, NODE_SIZE, digest)
        except IntegrityError as error:
            raise UnreadableRootError(f"{whose} needs a node that is damaged: {error}", hint=hint) from None


def _entries(node: bytes) -> Iterator[Digest]:
    for at in range(0, len(node), DIGEST_SIZE):
        yield Digest(node[at : at + DIGEST_SIZE])
