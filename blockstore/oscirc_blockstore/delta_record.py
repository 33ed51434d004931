"""One record of a delta pack: from old blocks and a frame to the new block, and the other way round.

What comes out of `rebuild` and `rebuild_node` has been compared with the digest that it is asked by; the rest of what
a pack says decides only whether that succeeds. Old blocks are loaded one after another and dropped, so that decoding
holds the block, its dictionary and one old block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import zstandard

from oscirc_blockstore.delta import MAX_DICTIONARY_BYTES, PAGE_SIZE, NodePatch, Record, Run, Source
from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest, verify
from oscirc_blockstore.errors import DocumentRefusedError, FrameRefusedError, OldBlockMissingError
from oscirc_blockstore.frame import MAGIC, max_frame_bytes
from oscirc_blockstore.table import NODE_SIZE

MAX_WINDOW_LOG = 21
DEFAULT_LEVEL = 9

LoadBlock = Callable[[Digest], bytes | None]
"""The verified bytes of an old block or node, None where it is not here."""


def encode(literals: bytes, dictionary: bytes, level: int = DEFAULT_LEVEL) -> bytes:
    """The frame of a record: its literal pages, compressed with the dictionary's pages; empty where there are none."""
    if not literals:
        return b""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(literals),
        dict_size=len(dictionary),
        window_log=MAX_WINDOW_LOG,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    if not dictionary:
        return zstandard.ZstdCompressor(compression_params=parameters).compress(literals)
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=raw).compress(literals)


def rebuild(record: Record, frame: bytes, load: LoadBlock) -> bytes:
    """The block that `record` names.

    Raises `OldBlockMissingError`, `DocumentRefusedError` or `FrameRefusedError` for what cannot be right, and
    `DigestMismatchError` for what is not.
    """
    if not record.is_rebuildable or len(frame) != record.length:
        raise DocumentRefusedError("not a record of a delta pack")
    block, dictionary = gathered(record, load)
    fill_in(record, block, frame, dictionary)
    raw = bytes(block)
    verify(raw, record.digest)
    return raw


def fill_in(record: Record, block: bytearray, frame: bytes, dictionary: bytes) -> None:
    """Put the literal pages of the record's frame into the block, which is compared with nothing here."""
    literals = memoryview(_decode(frame, record.literal_bytes, dictionary))
    at = taken = 0
    for run in record.runs:
        size = run.count * PAGE_SIZE
        if run.source is Source.LITERAL:
            block[at : at + size] = literals[taken : taken + size]
            taken += size
        at += size


def rebuild_node(patch: NodePatch, load: LoadBlock) -> bytes:
    """The node that `patch` names; raises as `rebuild` does."""
    base = bytes(NODE_SIZE) if patch.base == ZERO_DIGEST else load(patch.base)
    if base is None:
        raise OldBlockMissingError("the node that a delta pack starts from is not here")
    if len(base) != NODE_SIZE:
        raise DocumentRefusedError("a delta pack starts a node from something else")
    node = bytearray(base)
    for slot, digest in patch.entries:
        node[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE] = digest
    raw = bytes(node)
    verify(raw, patch.digest)
    return raw


def gathered(record: Record, load: LoadBlock) -> tuple[bytearray, bytes]:
    """The block with its copied pages in place, and the dictionary; raises as `rebuild` does."""
    block, dictionary = bytearray(record.block_size), bytearray(_bytes_of(record.dictionary))
    copies: dict[Digest, list[tuple[bytearray, int, Run]]] = {}
    for target, runs in ((block, record.runs), (dictionary, record.dictionary)):
        at = 0
        for run in runs:
            if not isinstance(run.source, Source):
                copies.setdefault(run.source, []).append((target, at, run))
            at += run.count * PAGE_SIZE
    if len(copies) != len(record.sources):  # it also bounds how many there may be
        raise DocumentRefusedError("a delta pack's record contradicts itself")
    for source, places in copies.items():
        old = load(source)
        if old is None:
            raise OldBlockMissingError(f"the old block {source.hex()[:16]} is not here")
        if len(old) != record.block_size:
            raise DocumentRefusedError("a delta pack takes pages from what is no block of this size")
        view = memoryview(old)
        for target, at, run in places:
            size = run.count * PAGE_SIZE
            target[at : at + size] = view[run.page * PAGE_SIZE :][:size]
    return block, bytes(dictionary)


def _bytes_of(runs: Iterable[Run]) -> int:
    return sum(run.count for run in runs) * PAGE_SIZE


def _decode(frame: bytes, raw_size: int, dictionary: bytes) -> bytes:
    """The literal pages, the header judged before anything is allocated for them."""
    if not raw_size:
        if frame:
            raise FrameRefusedError("a record of a delta pack has a frame that nothing needs")
        return b""
    if len(dictionary) > MAX_DICTIONARY_BYTES or len(frame) > max_frame_bytes(raw_size) or frame[:4] != MAGIC:
        raise FrameRefusedError("a record of a delta pack is not a frame of its pages")
    try:
        header = zstandard.get_frame_parameters(frame)
        if header.content_size != raw_size or header.window_size > 1 << MAX_WINDOW_LOG or header.dict_id:
            raise FrameRefusedError("a record's frame is not the one that its index describes")
        if dictionary:
            known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            decompressor = zstandard.ZstdDecompressor(dict_data=known, max_window_size=1 << MAX_WINDOW_LOG)
        else:
            decompressor = zstandard.ZstdDecompressor(max_window_size=1 << MAX_WINDOW_LOG)
        raw = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"a record of a delta pack does not decode: {error}") from None
    if len(raw) != raw_size:
        raise FrameRefusedError("a record of a delta pack decodes to another length")
    return raw
