"""Whole disks as files, made while they are read: raw or qcow2, any range, nothing written anywhere.

Every block is verified before its bytes are passed on; one that is missing or damaged ends the download. Memory is one
block, one node of each level, and a count for each 512 positions of the disks that were asked for last.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.disk_files import BlockPart, Piece, Qcow2File, Zeros, raw_pieces
from oscirc_blockstore.errors import BusyError, IntegrityError, LocalError, WithdrawnError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import Manifest
from oscirc_server.installation import Installation
from oscirc_server.services import versions

Form = Literal["raw", "qcow2"]
MEDIA_TYPES: Final = {"raw": "application/octet-stream", "qcow2": "application/x-qemu-disk"}
MAX_DOWNLOADS = 16  # at once in one process
ZEROS_BYTES = 1 << 18
_REMEMBERED = 8

_zeros = bytes(ZEROS_BYTES)
_layouts: OrderedDict[Digest, Qcow2File] = OrderedDict()
_layouts_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Download:
    """A disk as a file: `size` in bytes, a validator, and its parts."""

    size: int
    etag: str
    media_type: str
    pieces: Callable[[int, int], Iterator[bytes]]


class Turns:
    """How many downloads run; a download gives its turn back once, however it ends."""

    def __init__(self, most: int = MAX_DOWNLOADS) -> None:
        self._free = threading.BoundedSemaphore(most)

    def take(self) -> Callable[[], None]:
        """A turn, and how to give it back; `BusyError` when there is none."""
        if not self._free.acquire(blocking=False):
            raise BusyError("too many disks are being downloaded at the moment")
        return self._free.release


def open_disk(
    installation: Installation, names: tuple[str, str, str], form: Form, *, allow_revoked: bool = False
) -> Download:
    """A version's disk; `WithdrawnError` where it was yanked for security, unless that is allowed."""
    with installation.database.read() as session:
        row = versions.find(session, *names)
        if row.security and not allow_revoked:
            raise WithdrawnError(
                f"{row.name}@{row.label} was withdrawn for security reasons: {row.state_why}",
                hint="with allow_revoked=true it is served all the same",
            )
        digest, manifest = versions.manifest_of(session, *names)
    load = versions.node_loader(installation)
    geometry, root = manifest.geometry, manifest.root
    if form == "raw":
        size = geometry.disk_size

        def pieces(start: int, stop: int) -> Iterator[Piece]:
            return raw_pieces(geometry, root, load, start, stop)

    else:
        layout = _layout(installation, digest, manifest)
        size = layout.size

        def pieces(start: int, stop: int) -> Iterator[Piece]:
            return layout.pieces(load, start, stop)

    return Download(
        size=size,
        etag=f'"{digest.hex()}-{form}-1"',
        media_type=MEDIA_TYPES[form],
        pieces=lambda start, stop: _bytes(installation, geometry.block_size, pieces(start, stop)),
    )


def _layout(installation: Installation, digest: Digest, manifest: Manifest) -> Qcow2File:
    """The layout of a disk, remembered by its manifest's digest, which determines it."""
    with _layouts_lock:
        known = _layouts.get(digest)
        if known is not None:
            _layouts.move_to_end(digest)
            return known
    made = Qcow2File(manifest.geometry, manifest.root, versions.node_loader(installation))
    with _layouts_lock:
        _layouts[digest] = made
        while len(_layouts) > _REMEMBERED:
            _layouts.popitem(last=False)
    return made


def _bytes(installation: Installation, block_size: int, pieces: Iterator[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, Zeros):
            left = piece.length
            while left:
                yield _zeros[: min(left, ZEROS_BYTES)]
                left -= min(left, ZEROS_BYTES)
        else:
            yield _block(installation, block_size, piece)


def _block(installation: Installation, block_size: int, part: BlockPart) -> bytes:
    frame = installation.storage.get(block_path(part.digest), max_frame_bytes(block_size))
    try:
        raw = decode_verified(frame or b"", block_size, part.digest)
    except IntegrityError as error:
        raise LocalError(f"the block {part.digest.hex()} cannot be read from the store: {error}") from None
    return raw[part.start : part.stop]
