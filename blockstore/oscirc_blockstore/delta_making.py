"""Makes a delta pack: the records of all blocks that a new version has and an old one lacks, and its nodes.

The steps: walk both tables for what changed; look at the pages of old blocks, those first that the new version no
longer has, up to a limit, so that memory is bounded whatever the disk's size; then for each changed block find equal
and similar pages, compress, and make sure that the record gives the block. New blocks are loaded once, old ones to be
looked at, and again for records that need them (the last of these are remembered); frames are set aside in a file,
never held. The same pair, level and library give the same pack.

docs/adr/0013-delta-packs.md has the measurements behind the choices.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from oscirc_blockstore import delta, delta_record, similarity
from oscirc_blockstore.accelerators import DELTA, Accelerator
from oscirc_blockstore.delta import PAGE_SIZE, MadePatch, MadeRecord, Record, Run, Source
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.frame import encode as encode_frame
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.old_pages import Matcher, OldPages
from oscirc_blockstore.pipeline import in_order
from oscirc_blockstore.table import NODE_SIZE, iterate_blocks
from oscirc_blockstore.version_pair import Changes, changes

MAX_OLD_PAGES = 1 << 21
MAX_OLD_POSITIONS = 1 << 24
MAX_RECORDS = 1 << 18
LEAST_SAVING = 0.1
UPDATE_LEVEL = 9  # about what an update's block files cost, where nobody tells
OLD_BLOCKS_IN_MEMORY_BYTES = 192 << 20
_RUN_BYTES = 4  # what a run comes to in a packed index
_COPY_BYTES = 1 << 20

Load = Callable[[Digest, int], bytes]
"""The verified bytes of `(digest, raw_size)` of either version, or an `OscircError`. Called from several threads."""

WholeLength = Callable[[Digest, bytes], int]
"""What the block file of `(digest, raw bytes)` costs."""

Progress = Callable[[str, int, int], None]
"""Told the phase (`LOOKING`, `MAKING`), and how many blocks of how many are done."""

LOOKING, MAKING = "looking", "making"


def usual_whole_length(_digest: Digest, raw: bytes) -> int:
    """About what a block file costs that was made for an update."""
    return len(encode_frame(raw, UPDATE_LEVEL))


def stated_whole_length(stated: Callable[[Digest], int | None]) -> WholeLength:
    """What is stated of a block file, which is cheaper to ask than to encode; where nothing is, the usual."""

    def whole_length(digest: Digest, raw: bytes) -> int:
        length = stated(digest)
        return usual_whole_length(digest, raw) if length is None else length

    return whole_length


@dataclass(frozen=True, slots=True)
class Version:
    """One of the two: its manifest, and that one's digest."""

    digest: Digest
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class MadePack:
    """A pack in an open temporary file, and what to list it as.

    `whole_bytes` is what the `blocks` that differ cost without it, `records` of them are made from old ones.
    """

    file: IO[bytes]
    accelerator: Accelerator
    blocks: int
    records: int
    whole_bytes: int


@contextlib.contextmanager
def made_pack(
    old: Version,
    new: Version,
    load: Load,
    whole_length: WholeLength,
    *,
    block_at: Callable[[int], bytes] | None = None,
    level: int = delta_record.DEFAULT_LEVEL,
    workers: int = 2,
    stop: threading.Event | None = None,
    progress: Progress = lambda _phase, _done, _total: None,
) -> Iterator[MadePack]:
    """Make the pack from `old` to `new`; its file is gone at the end.

    `block_at` gives the new disk's block at a position where that disk is at hand; else `load` is asked for it.

    Raises what `load` raises, `UsageError` for versions whose blocks have two sizes or that differ in more than
    `MAX_RECORDS` blocks, and `LocalError` where there is no room for twice the pack.
    """
    maker = _Maker(old, new, load, whole_length, block_at, level, workers, stop or threading.Event(), progress)
    with tempfile.TemporaryFile(prefix="oscirc-delta-") as spool, tempfile.TemporaryFile(prefix="oscirc-") as file:
        try:
            records = maker.records(spool)
            index = delta.build_index(
                new.digest, old.digest, new.manifest.geometry.block_size, records, maker.patches()
            )
            spool.seek(0)
            hashed = hashlib.sha256()
            for piece in itertools.chain([index], iter(lambda: spool.read(_COPY_BYTES), b"")):
                hashed.update(piece)
                file.write(piece)
            length = file.tell()
            file.seek(0)
        except OSError as error:
            raise LocalError(
                f"no room to make a delta pack: {error.strerror}", hint="TMPDIR names a directory that has some"
            ) from None
        accelerator = Accelerator(
            DELTA, delta.name_for(old.digest), Digest(hashed.digest()), length, delta.index_length(index)
        )
        rebuilt = sum(bool(record.runs) for record in records)
        yield MadePack(file, accelerator, len(records), rebuilt, sum(record.whole_length for record in records))


class _Maker:
    """One pack being made."""

    def __init__(
        self,
        old: Version,
        new: Version,
        load: Load,
        whole_length: WholeLength,
        block_at: Callable[[int], bytes] | None,
        level: int,
        workers: int,
        stop: threading.Event,
        progress: Progress,
    ) -> None:
        self._old, self._new, self._load = old, new, load
        self._whole_length, self._block_at, self._level = whole_length, block_at, level
        self._workers, self._stop, self._progress = workers, stop, progress
        self._block_size = new.manifest.geometry.block_size
        self._changes: Changes = changes(old.manifest, new.manifest, self._node, most=MAX_RECORDS)
        self._old_block = functools.lru_cache(OLD_BLOCKS_IN_MEMORY_BYTES // self._block_size)(self._block)

    def _node(self, digest: Digest) -> bytes:
        return self._load(digest, NODE_SIZE)

    def _block(self, digest: Digest) -> bytes:
        return self._load(digest, self._block_size)

    def _new_block(self, digest: Digest) -> bytes:
        if self._block_at is None:
            return self._block(digest)
        raw = self._block_at(self._changes.new[digest])
        verify(raw, digest)
        return raw

    def patches(self) -> list[MadePatch]:
        """The new nodes; those that start from nothing too."""
        return [MadePatch(each.new, each.old, each.entries) for each in self._changes.nodes.values()]

    def records(self, spool: IO[bytes]) -> list[MadeRecord]:
        """The records in the order of the new disk, their frames written to `spool`."""
        old_blocks, moved = self._old_blocks()
        wanted = [digest for digest in self._changes.new if digest not in moved]
        matcher = self._looked_at(old_blocks if wanted else {})
        records: list[MadeRecord] = []
        made = in_order(functools.partial(self._made, matcher), wanted, workers=self._workers, stop=self._stop)
        with contextlib.closing(made):
            for record, frame in made:
                spool.write(frame)
                records.append(record)
                self._progress(MAKING, len(records), len(wanted))
        return records

    def _old_blocks(self) -> tuple[Mapping[Digest, None], set[Digest]]:
        """The old blocks worth looking at, the most promising first, and those new ones that only moved."""
        most = MAX_OLD_PAGES * PAGE_SIZE // self._block_size
        found: dict[Digest, None] = dict.fromkeys(itertools.islice(self._changes.old, most))
        moved: set[Digest] = set()
        manifest = self._old.manifest
        blocks = iterate_blocks(manifest.geometry, manifest.root, self._node)
        for _, digest in itertools.islice(blocks, MAX_OLD_POSITIONS):
            if digest in self._changes.new:
                moved.add(digest)
            if len(found) < most:
                found[digest] = None
        return found, moved

    def _looked_at(self, old_blocks: Mapping[Digest, None]) -> Matcher:
        pages = OldPages(self._block_size)
        looks = in_order(
            lambda digest: similarity.look_at(self._block(digest)), old_blocks, workers=self._workers, stop=self._stop
        )
        with contextlib.closing(looks):
            for done, (digest, look) in enumerate(zip(old_blocks, looks, strict=True), 1):
                pages.add(digest, look)
                self._progress(LOOKING, done, len(old_blocks))
        return pages.matcher()

    def _made(self, matcher: Matcher, digest: Digest) -> tuple[MadeRecord, bytes]:
        """The record of one block and its frame; where that saves too little, only what the whole block costs."""
        raw = self._new_block(digest)
        whole = MadeRecord(digest, self._whole_length(digest, raw))
        pages = similarity.look_at(raw)
        runs = matcher.runs(pages)
        literal = _literal_pages(runs)
        copied_from = len({run.source for run in runs if not isinstance(run.source, Source)})
        made = replace(whole, runs=runs, dictionary=matcher.dictionary(pages.features[literal], copied_from))
        if not made.dictionary and len(literal) == len(pages.fingerprints) and _is_dense(whole, len(raw)):
            return whole, b""
        literals = b"".join(raw[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] for page in literal)
        record = self._parsed(made)
        block, dictionary = delta_record.gathered(record, self._old_block)
        frame = delta_record.encode(literals, dictionary, self._level)
        cost = len(frame) + _RUN_BYTES * (len(made.runs) + len(made.dictionary))
        if cost > (1 - LEAST_SAVING) * whole.whole_length:
            return whole, b""
        delta_record.fill_in(record, block, frame, dictionary)
        if block != raw:  # two pages with one fingerprint
            return whole, b""
        return replace(made, length=len(frame)), frame

    def _parsed(self, made: MadeRecord) -> Record:
        """The record as a reader of the pack will see it."""
        index = delta.build_index(self._new.digest, self._old.digest, self._block_size, [made], [], level=1)
        return delta.parse_index(index).records[made.digest]


def _is_dense(whole: MadeRecord, raw_bytes: int) -> bool:
    """Whether the block did not compress, so that it will not either where nothing old helps."""
    return whole.whole_length > (1 - LEAST_SAVING) * raw_bytes


def _literal_pages(runs: tuple[Run, ...]) -> list[int]:
    ends = np.cumsum([run.count for run in runs]).tolist()
    return [
        page
        for run, end in zip(runs, ends, strict=True)
        if run.source is Source.LITERAL
        for page in range(end - run.count, end)
    ]
