"""What a bundle says that it brings, and what of that is missing here.

An index is a stranger's word. It is refused when it is longer than a bundle of that disk can be, before it is parsed;
and what it names counts only where the signed table names it too (`wanted`). In particular the cache is asked for a
node only where the table has one: it takes a file of another size than it was asked for to be damaged, so that an index
that calls cached blocks nodes would empty it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.bundle import Bounds, Entry, Segment, bounds, index_length, parse_index
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.stream_files import tag
from oscirc_remote.wanted import Wanted

_SINGLY = 1.1  # what a block costs by itself, where its segment costs 1: measured 1.09 (ADR 6)


class Keeper(Protocol):
    """The cache, as a stream needs it."""

    def has(self, digest: Digest) -> bool:
        """Whether the store claims to have it."""

    def cost(self, digest: Digest, raw_size: int) -> int | None:
        """What a request of its own would move, as far as delta packs tell."""

    def resident(self, digest: Digest, raw_size: int) -> bytes | None:
        """The verified bytes if they are here."""

    def remember_prefetched(self, digest: Digest, raw: bytes) -> None:
        """Take verified bytes that came before they were asked for into memory."""

    def keep(self, digest: Digest, raw: bytes) -> None:
        """Write verified bytes to the store; what it does not take is no error."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A bundle as it was listed for an image whose manifest is verified."""

    accelerator: Accelerator
    manifest_digest: Digest
    manifest: Manifest

    @property
    def bounds(self) -> Bounds:
        """The most that a bundle of this image can be."""
        return bounds(self.manifest.geometry, self.manifest.data_blocks)

    def check_length(self) -> None:
        """Raise `DocumentRefusedError` for one that is longer than all of its disk: nobody needs to look into it."""
        if self.accelerator.length > self.bounds.length:
            raise DocumentRefusedError(
                f"a bundle of {self.accelerator.length} bytes is listed, more than this disk can need"
            )

    def index_length(self, head: bytes) -> int:
        """How long the index is that begins so; raise `DocumentRefusedError` where no such bundle can have it."""
        length = index_length(head, self.bounds.entries)
        if length > self.accelerator.length:
            raise DocumentRefusedError("a bundle's index is longer than the listing says the bundle is")
        return length


class BundleContents:
    """One index, judged when this is made. One thread: that of the stream."""

    def __init__(self, raw_index: bytes, listed: Listed, keeper: Keeper) -> None:
        """Raises `DocumentRefusedError` for an index that is not of the bundle that was listed for this image."""
        index = parse_index(raw_index, listed.bounds.entries)
        if index.manifest != listed.manifest_digest or index.block_size != listed.manifest.geometry.block_size:
            raise DocumentRefusedError("the bundle was made for another image")
        if index.length != listed.accelerator.length:
            raise DocumentRefusedError("the bundle is not as long as it was listed")
        self.tag = tag(raw_index)
        self.entries = [entry for segment in index.segments for entry in segment.entries]
        self._segments = index.segments
        self._numbers = {entry.digest: number for number, entry in enumerate(self.entries)}
        self._keeper = keeper
        self._wanted = Wanted(listed.manifest.geometry, listed.manifest.root, self._numbers)
        self._nodes = [entry.digest for entry in self.entries if entry.raw_size == NODE_SIZE]
        self.note_nodes()

    def number_of(self, digest: Digest) -> int:
        """The how-manieth entry it is, from 0."""
        return self._numbers[digest]

    def accept(self, digest: Digest, raw: bytes) -> bool:
        """Whether the table asks for it; raises `TableRefusedError` for a node that cannot stand where it does."""
        return self._wanted.accept(digest, raw)

    def position_of(self, digest: Digest) -> int | None:
        """The first position known to hold that block."""
        return self._wanted.position_of(digest)

    def note_node(self, digest: Digest) -> None:
        """Know what a node names that came from elsewhere, if it is one of the table's and here."""
        if self._wanted.lacks_node(digest):
            node = self._keeper.resident(digest, NODE_SIZE)
            if node is not None:
                self._wanted.accept(digest, node)

    def note_nodes(self) -> None:
        """The same for all of them."""
        for digest in self._nodes:  # a node stands in front of those below it
            self.note_node(digest)

    def lacking_nodes(self, runs: Iterable[Sequence[Segment]]) -> list[Digest]:
        """The table's nodes that are not here and that these do not bring: what is below them would not be wanted."""
        brought = {entry.digest for run in runs for segment in run for entry in segment.entries}
        return [digest for digest in self._nodes if self._wanted.lacks_node(digest) and digest not in brought]

    def missing_runs(self, under_way_at: int = -1, *, for_nodes: bool = False) -> list[list[Segment]]:
        """Segments to fetch, in runs that follow one another in the file.

        The one in which another's stream is now comes to its end, however much of it is here already. `for_nodes`:
        those too of which nothing but a node is needed.
        """
        runs: list[list[Segment]] = []
        for segment in self._segments:
            needed = segment.offset <= under_way_at < segment.offset + segment.length
            if for_nodes:
                needed = needed or any(self._wanted.lacks_node(entry.digest) for entry in segment.entries)
            if not self._is_worth_it(segment, needed=needed):
                continue
            if runs and runs[-1][-1].offset + runs[-1][-1].length == segment.offset:
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return runs

    def _is_worth_it(self, segment: Segment, *, needed: bool) -> bool:
        """Whether it is to be streamed for what is missing of it.

        Where half of it is missing, a stream is worth the bytes that are not; but where a delta pack says what single
        requests would move, the fewer bytes decide: then most of what is missing differs little from what is here.
        """
        missing = [entry for entry in segment.entries if not self._keeper.has(entry.digest)]
        costs = [self._keeper.cost(entry.digest, entry.raw_size) for entry in missing]
        if not missing or needed:
            return bool(missing)
        if all(cost is None for cost in costs):
            return 2 * sum(entry.raw_size for entry in missing) >= segment.raw_length
        per_byte = _SINGLY * segment.length / segment.raw_length
        singly = sum(
            entry.raw_size * per_byte if cost is None else cost for entry, cost in zip(missing, costs, strict=True)
        )
        return singly >= segment.length

    def ends(self, runs: Iterable[Sequence[Segment]]) -> dict[Digest, int]:
        """Of what these bring and is missing: where in the file it ends, about."""
        ends: dict[Digest, int] = {}
        for segment in (segment for run in runs for segment in run):
            raw_length, raw_end = segment.raw_length, 0
            for entry in segment.entries:
                raw_end += entry.raw_size
                if not self._keeper.has(entry.digest):
                    ends[entry.digest] = segment.offset + segment.length * raw_end // raw_length
        return ends

    def left_out(self) -> Iterator[Entry]:
        """What is named here, wanted by the table and missing, in order."""
        for entry in self.entries:
            is_node = entry.raw_size == NODE_SIZE
            asked = self._wanted.has_node(entry.digest) if is_node else self.position_of(entry.digest) is not None
            if asked and not self._keeper.has(entry.digest):
                yield entry
