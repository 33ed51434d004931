"""Uploads: frames are decoded, hashed and written by a few threads while the rest of the body still arrives.

zstd, SHA-256 and writing release the interpreter's lock, so the threads keep every core busy; the event loop only
cuts the body into records and hands them over in batches. Memory is bounded: so many batches may wait, after which
the body is read no further. Rows are written once per body.

A block is leased before its frame is written, so that no file is written which is being deleted at that moment; where
one is, the body ends there and is to be sent again (`BlocksBeingDeletedError`).

The first stored frame of a digest wins: in a directory by a link that refuses to overwrite, in a bucket because
whoever stores a digest holds a claim on it until its row stands, among all processes. A file that is there without a
row (a crash between the two, a database restored from an older copy, a power cut) is verified where it stands: kept if
it is good, replaced if not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import IntegrityError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_server.errors import BlocksBeingDeletedError, RecordRefusedError
from oscirc_server.installation import Installation
from oscirc_server.services import blocks, drafts, quotas
from oscirc_server.services.blocks import StoredBlock
from oscirc_server.services.frame_records import Record, RecordParser

BATCH_BYTES = 1 << 20  # of frames: some 10 ms of one core
WAITING_BATCHES_PER_THREAD = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """What became of a body: frames written, frames that were there, and bytes written."""

    stored: int
    present: int
    stored_bytes: int


@dataclass(slots=True)
class _Outcome:
    """A batch or a whole body: (digest, raw size, length) of files written, records whose file was there, failures."""

    stored: list[tuple[Digest, int, int]] = field(default_factory=list)
    present: list[Record] = field(default_factory=list)
    failures: list[tuple[int, OscircError]] = field(default_factory=list)


class Uploader:
    """One for a running server: it owns the threads. `on_body` is told what became of each body."""

    def __init__(self, installation: Installation, on_body: Callable[[UploadFacts], None] | None = None) -> None:
        self._on_body = on_body
        threads = installation.settings.upload_threads
        self._installation = installation
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._slots = asyncio.Semaphore(threads * (1 + WAITING_BATCHES_PER_THREAD))

    def close(self) -> None:
        """Finish what runs and end the threads."""
        self._pool.shutdown()

    async def store_body(self, draft_id: str, block_size: int, body: AsyncIterator[bytes]) -> UploadFacts:
        """Store the frames of one body and lease them to the draft.

        Raises the error of the first bad record, or of a body that is malformed or broken off; good records before
        it are kept and have their rows.
        """
        parser = RecordParser(block_size)
        outcome = _Outcome()
        running: list[Future[_Outcome]] = []
        try:
            await self._cut(draft_id, parser, body, running, outcome)
        finally:
            # A thread, no task, which a server that stops would cancel once more: the rows come whatever becomes of the
            # request, and the loop waits for its own threads before it ends.
            recorded = asyncio.get_running_loop().run_in_executor(None, self._finish, draft_id, running, outcome)
            facts = await asyncio.shield(recorded)
        if outcome.failures:
            raise min(outcome.failures, key=lambda failure: failure[0])[1]
        parser.finish()
        return facts

    async def _cut(
        self,
        draft_id: str,
        parser: RecordParser,
        body: AsyncIterator[bytes],
        running: list[Future[_Outcome]],
        outcome: _Outcome,
    ) -> None:
        batch: list[Record] = []
        size = 0
        try:
            async for data in body:
                for record in parser.feed(data):
                    batch.append(record)
                    size += len(record.frame)
                    if size >= BATCH_BYTES:
                        running.append(await self._start(draft_id, batch))
                        batch, size = [], 0
                if any(job.done() and job.result().failures for job in running):
                    return
        except RecordRefusedError as error:
            outcome.failures.append((int(str(error.facts["record"])), error))
        finally:
            if batch:
                running.append(await self._start(draft_id, batch))

    async def _start(self, draft_id: str, batch: Sequence[Record]) -> Future[_Outcome]:
        await self._slots.acquire()
        job = self._pool.submit(self._store_batch, draft_id, batch)
        asyncio.wrap_future(job).add_done_callback(self._stored)
        return job

    def _stored(self, batch: asyncio.Future[_Outcome]) -> None:
        """There is room for another; how it went is told by who waits for the job, so that nobody says it was lost."""
        self._slots.release()
        if not batch.cancelled():
            batch.exception()

    def _finish(self, draft_id: str, running: Sequence[Future[_Outcome]], outcome: _Outcome) -> UploadFacts:
        """In a thread: wait for what was handed over, write its rows, tell."""
        for job in running:
            part = job.result()
            outcome.stored += part.stored
            outcome.present += part.present
            outcome.failures += part.failures
        facts = self._record(draft_id, outcome)
        if self._on_body is not None:
            self._on_body(facts)
        return facts

    def _store_batch(self, draft_id: str, batch: Sequence[Record]) -> _Outcome:
        """In a thread: lease, judge and write; stops at the first record that fails.

        Where the store itself cannot tell who was first, the digests are claimed until their rows stand.
        """
        digests = list(dict.fromkeys(record.digest for record in batch))
        try:
            deleting = self._lease(draft_id, digests)
        except OscircError as error:
            return _Outcome(failures=[(batch[0].index, error)])
        if self._installation.storage.first_put_wins:
            return self._write(batch, {}, deleting)
        with self._installation.locks.claimed(digests):
            with self._installation.database.read() as session:
                known = blocks.stored(session, digests)
            outcome = self._write(batch, known, deleting)
            adopted = self._adopted(outcome, set(known))
            with self._installation.database.write(shared=True) as session:
                self._add_rows(session, outcome.stored + adopted)
        return outcome

    def _lease(self, draft_id: str, digests: Sequence[Digest]) -> frozenset[Digest]:
        """Lease them all but those that are being deleted, which are returned."""
        with self._installation.database.write(shared=True) as session:
            drafts.find_open(session, draft_id)
            durable = self._installation.storage.durable_on_put
            return blocks.claim(session, draft_id, digests, durable=durable, absent_too=True).deleting

    def _write(
        self, batch: Sequence[Record], known: Mapping[Digest, StoredBlock], deleting: Collection[Digest]
    ) -> _Outcome:
        outcome = _Outcome()
        storage = self._installation.storage
        for record in batch:
            try:
                if record.digest in deleting:
                    raise BlocksBeingDeletedError(f"record {record.index}: that block is being deleted")
                decode_verified(record.frame, record.raw_size, record.digest)
                if record.digest not in known and storage.put_if_absent(block_path(record.digest), record.frame):
                    outcome.stored.append((record.digest, record.raw_size, len(record.frame)))
                else:
                    outcome.present.append(record)
            except IntegrityError as error:
                refused = RecordRefusedError(
                    f"record {record.index}: {error}", record=record.index, digest=record.digest.hex()
                )
                outcome.failures.append((record.index, refused))
                break
            except OscircError as error:
                outcome.failures.append((record.index, error))
                break
        return outcome

    def _record(self, draft_id: str, outcome: _Outcome) -> UploadFacts:
        """In a thread: the rows of a body, in one transaction."""
        installation = self._installation
        with installation.database.read() as session:
            known = set(blocks.stored(session, [record.digest for record in outcome.present]))
        lacking = [record.digest for record in outcome.present if record.digest not in known]
        with installation.locks.claimed(lacking) if lacking else contextlib.nullcontext():
            adopted = self._adopted(outcome, known)
            with installation.database.write(shared=True) as session:
                publisher = drafts.find_open(session, draft_id).publisher
                self._add_rows(session, outcome.stored + adopted)
                came = {digest: raw_size for digest, raw_size, _ in outcome.stored + adopted}
                came |= {record.digest: record.raw_size for record in outcome.present}
                quotas.arrived(session, publisher, draft_id, came.items())
                drafts.touch(installation, session, draft_id)
        stored_bytes = sum(length for _, _, length in outcome.stored)
        return UploadFacts(len(outcome.stored), len(outcome.present), stored_bytes)

    def _add_rows(self, session: Session, found: Sequence[tuple[Digest, int, int]]) -> None:
        durable = self._installation.storage.durable_on_put
        had_row = blocks.stored(session, [digest for digest, _, _ in found])
        blocks.add(session, found, durable=durable, now_s=self._installation.now_s())
        blocks.put_again(session, [each for each in found if each[0] in had_row], durable=durable)

    def _adopted(self, outcome: _Outcome, known: Collection[Digest]) -> list[tuple[Digest, int, int]]:
        """Rows for files that were there and have none."""
        covered = {digest for digest, _, _ in outcome.stored}.union(known)
        adopted: list[tuple[Digest, int, int]] = []
        for record in outcome.present:
            if record.digest not in covered:
                adopted.append(self._adopt(record))
                covered.add(record.digest)
        return adopted

    def _adopt(self, record: Record) -> tuple[Digest, int, int]:
        """A row for a file that has none: verified first, and replaced by the uploaded frame when it is not good."""
        path = block_path(record.digest)
        frame = self._installation.storage.get(path, max_frame_bytes(record.raw_size))
        with contextlib.suppress(IntegrityError):
            if frame is not None:
                decode_verified(frame, record.raw_size, record.digest)
                return record.digest, record.raw_size, len(frame)
        _log.warning("replaced a damaged block file", extra={"digest": record.digest.hex()})
        self._installation.storage.replace(path, record.frame)
        return record.digest, record.raw_size, len(record.frame)
