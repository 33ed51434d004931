"""Brings the blocks of a version into the store, through the path of an upload: decoded, hashed, leased, given rows.

Frames are read by a few threads and cut into bodies; a block that the store has a row for is passed over, so that what
was interrupted goes on. The lease is that of a draft that belongs to nobody and lives for thirty days: until then the
blocks of a version that nothing names yet are not collected.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import IntegrityError, NotFoundError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE, TableContents, contents
from oscirc_server.elsewhere import Elsewhere
from oscirc_server.errors import RecordRefusedError
from oscirc_server.installation import Installation
from oscirc_server.models import DRAFT_OPEN, Draft
from oscirc_server.services import blocks
from oscirc_server.services.uploads import Uploader

KEPT_S = 30 * 86_400
BODY_BYTES = 8 << 20
BODY_RECORDS = 1024
_DRAFT = "import"
_RECORD = struct.Struct("<32sII")


@dataclass(slots=True)
class Copied:
    """Blocks and nodes: written, that were here, and that the tree lacks or has wrong."""

    stored: int = 0
    stored_bytes: int = 0
    present: int = 0
    lacking: list[Digest] = field(default_factory=list)


class BlockImporter:
    """One for a run; `progressed` is told bytes of frames. Close it when done."""

    def __init__(
        self,
        installation: Installation,
        source: Elsewhere,
        *,
        jobs: int,
        progressed: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.copied = Copied()
        self._installation = installation
        self._source = source
        self._progressed = progressed
        self._readers = ThreadPoolExecutor(jobs, thread_name_prefix="oscirc-import")
        self._known: set[Digest] = set()
        self._draft_id = self._draft()

    def bring(self, manifest: Manifest) -> bool:
        """Have every block and node of a version in the store; False where the tree lacks some."""
        before = len(self.copied.lacking)
        try:
            table = contents(manifest.geometry, manifest.root, self._node)
        except OscircError:  # a node that is missing or wrong: what hangs from it is not known
            return False
        self._bring(list(table.nodes), NODE_SIZE, manifest.geometry.block_size)
        self._bring(list(table.blocks), manifest.geometry.block_size, manifest.geometry.block_size)
        self._settle(table)
        return len(self.copied.lacking) == before

    def _node(self, digest: Digest) -> bytes:
        for frame in (
            self._installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE)),
            self._source.read(block_path(digest), max_frame_bytes(NODE_SIZE)),
        ):
            try:
                return decode_verified(frame or b"", NODE_SIZE, digest)
            except IntegrityError:
                continue
        self.copied.lacking.append(digest)
        raise NotFoundError(f"the tree has no right node {digest.hex()}")

    def _bring(self, digests: Sequence[Digest], raw_size: int, block_size: int) -> None:
        unknown = [digest for digest in digests if digest not in self._known]
        with self._installation.database.read() as session:
            stored = blocks.stored(session, unknown)
        self._known.update(unknown)
        self.copied.present += len(stored)
        wanted = [digest for digest in unknown if digest not in stored]
        for start in range(0, len(wanted), BODY_RECORDS):
            self._send(wanted[start : start + BODY_RECORDS], raw_size, block_size)

    def _send(self, digests: Sequence[Digest], raw_size: int, block_size: int) -> None:
        limit = max_frame_bytes(raw_size)
        body: list[tuple[Digest, bytes]] = []
        size = 0
        frames = self._readers.map(lambda digest: self._source.read(block_path(digest), limit), digests)
        for digest, frame in zip(digests, frames, strict=True):
            if frame is None or len(frame) > limit:
                self.copied.lacking.append(digest)
                continue
            body.append((digest, frame))
            size += len(frame)
            if size >= BODY_BYTES:
                self._store(body, raw_size, block_size)
                body, size = [], 0
        if body:
            self._store(body, raw_size, block_size)

    def _store(self, body: list[tuple[Digest, bytes]], raw_size: int, block_size: int) -> None:
        """Upload a body; what is refused of it is left out, and the rest sent again."""
        while body:
            try:
                asyncio.run(self._upload(body, raw_size, block_size))
            except RecordRefusedError as error:
                refused = str(error.facts["digest"])
                self.copied.lacking += [digest for digest, _ in body if digest.hex() == refused]
                body = [(digest, frame) for digest, frame in body if digest.hex() != refused]
            else:
                self._progressed(sum(len(frame) for _, frame in body))
                return

    async def _upload(self, body: Sequence[tuple[Digest, bytes]], raw_size: int, block_size: int) -> None:
        async def records() -> AsyncIterator[bytes]:
            for digest, frame in body:
                yield _RECORD.pack(digest, raw_size, len(frame)) + frame

        uploader = Uploader(self._installation)
        try:
            facts = await uploader.store_body(self._draft_id, block_size, records())
        finally:
            await asyncio.to_thread(uploader.close)
        self.copied.stored += facts.stored
        self.copied.present += facts.present
        self.copied.stored_bytes += facts.stored_bytes

    def _settle(self, table: TableContents) -> None:
        """What was written survives a power cut from here on."""
        self._installation.storage.sync()
        with self._installation.database.write() as session:
            blocks.promote(session, [*table.nodes, *table.blocks])

    def _draft(self) -> str:
        """The draft that leases for imports: a new one each time, which expires by itself."""
        now_s = self._installation.now_s()
        draft_id = secrets.token_hex(16)
        with self._installation.database.write() as session:
            session.add(
                Draft(
                    id=draft_id,
                    publisher="",
                    image="",
                    version=f"{_DRAFT}-{draft_id[:8]}",
                    block_size=1 << 18,
                    state=DRAFT_OPEN,
                    created_s=now_s,
                    expires_s=now_s + KEPT_S,
                )
            )
        return draft_id

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown(cancel_futures=True)
