"""Block files: one zstd frame (RFC 8878) around exactly one block or node.

A frame is accepted in one form only, and its header is judged before a byte is allocated for it:

- it starts with the zstd magic number (no skippable frame, no older format), and nothing follows it;
- it states its content size, and that is the size that the reader expects;
- it names no dictionary, and its window is at most 1 MiB;
- it is at most 1 KiB longer than the bytes it holds, so that padding cannot bloat every reader's store.

`decompress(frame, max_output_size=n)` of the library ignores n when the header states a size, which is why the
header is compared first. Frames of one digest may differ in bytes (levels, library versions).
"""

from __future__ import annotations

import threading

import zstandard

from oscirc_blockstore.digests import ZERO_DIGEST, Digest, verify
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, FrameRefusedError
from oscirc_blockstore.table import BLOCK_SIZES, NODE_SIZE

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_BYTES = 1 << 20
MAX_OVERHEAD_BYTES = 1024
# With tables for the block's own size, level 2 at 256 KiB gives a Debian disk 1.5% more bytes than level 3 and takes a
# fifth less time; it stays below what content-defined chunks at zstd's own default of 3 come to.
DEFAULT_LEVEL = 2

_local = threading.local()  # zstd contexts are not to be shared between threads, and cost 0.1 ms to make


def max_frame_bytes(raw_size: int) -> int:
    """The greatest length of a block file that holds `raw_size` bytes."""
    return raw_size + MAX_OVERHEAD_BYTES


def encode(raw: bytes | memoryview, level: int = DEFAULT_LEVEL) -> bytes:
    """`raw` (64 KiB to 1 MiB, or a node) as one frame in the accepted form."""
    compressors: dict[tuple[int, int], zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    # tables for this size, not for 1 MiB: at 256 KiB and level 3 a tenth faster, and 1% smaller
    size_class = min(1 << max(len(raw) - 1, 0).bit_length(), MAX_WINDOW_BYTES)
    compressor = compressors.get((level, size_class))
    if compressor is None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=size_class,
            write_content_size=True,
            write_checksum=False,
            write_dict_id=False,
        )
        compressor = compressors[level, size_class] = zstandard.ZstdCompressor(compression_params=parameters)
    return compressor.compress(raw)


def check_header(frame: bytes | memoryview, raw_size: int) -> None:
    """Judge length and header of a frame that should hold `raw_size` bytes; raise `FrameRefusedError`."""
    if len(frame) > max_frame_bytes(raw_size):
        raise FrameRefusedError(f"a frame of {len(frame)} bytes for {raw_size} bytes of content is over-long")
    if bytes(frame[:4]) != MAGIC:
        raise FrameRefusedError("not a zstd frame")
    try:
        header = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"the frame's header is damaged: {error}") from None
    if header.content_size != raw_size:
        stated = "no size" if header.content_size == zstandard.CONTENTSIZE_UNKNOWN else f"{header.content_size} bytes"
        raise FrameRefusedError(f"the frame states {stated} where {raw_size} bytes are expected")
    if header.dict_id:
        raise FrameRefusedError("the frame asks for a dictionary")
    if header.window_size > MAX_WINDOW_BYTES:
        raise FrameRefusedError(f"the frame asks for a window of {header.window_size} bytes")


def stated_size(frame: bytes | memoryview) -> int:
    """How many bytes of content the header states: as a node or a block has them, or `FrameRefusedError`.

    For who knows a digest and not yet what it names; the digest decides.
    """
    try:
        size = zstandard.get_frame_parameters(frame).content_size if bytes(frame[:4]) == MAGIC else 0
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"the frame's header is damaged: {error}") from None
    if size != NODE_SIZE and size not in BLOCK_SIZES:
        raise FrameRefusedError("the frame holds neither a node nor a block")
    return size


def decode(frame: bytes | memoryview, raw_size: int) -> bytes:
    """The `raw_size` bytes inside `frame`, not yet compared with any digest; raise `FrameRefusedError`."""
    check_header(frame, raw_size)
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        raw = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"the frame does not decode: {error}") from None
    if len(raw) != raw_size:
        raise FrameRefusedError(f"the frame decodes to {len(raw)} bytes where {raw_size} are expected")
    return raw


def decode_verified(frame: bytes | memoryview, raw_size: int, digest: Digest) -> bytes:
    """The block named `digest`, or `FrameRefusedError` / `DigestMismatchError`: the one way bytes get in."""
    if digest == ZERO_DIGEST:
        raise DigestMismatchError("the zero digest has no block file")
    raw = decode(frame, raw_size)
    verify(raw, digest)
    return raw


def pack(raw: bytes, *, level: int, window_log: int, checksum: bool = False) -> bytes:
    """An index as one frame, in the form that `unpack` takes; with a `checksum` no damage by chance is overlooked."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(raw),
        window_log=window_log,
        write_content_size=True,
        write_checksum=checksum,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def unpack(packed: bytes, raw_size: int, *, window_log: int, what: str) -> bytes:
    """The content of an index that travels as one frame, which must be the one that its head describes.

    Header first, as above; `what` is told in the `DocumentRefusedError`. The caller has bounded `raw_size`.
    """
    try:
        header = zstandard.get_frame_parameters(packed)
        fits = header.content_size == raw_size and header.window_size <= 1 << window_log and not header.dict_id
        if packed[:4] != MAGIC or not fits:
            raise DocumentRefusedError(f"{what}: not the frame that its head describes")
        raw = zstandard.ZstdDecompressor(max_window_size=1 << window_log).decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DocumentRefusedError(f"{what}: it does not decode: {error}") from None
    if len(raw) != raw_size:
        raise DocumentRefusedError(f"{what}: it is cut off")
    return raw
