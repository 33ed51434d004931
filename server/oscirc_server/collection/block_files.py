"""Block files against rows: what no row knows is deleted or adopted, what a row promises and is not there is told.

A part's files are listed first and its rows read afterwards, so that an upload in between looks like nothing: its file
has a row by then, or a lease, which the deletion asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, select

from oscirc_blockstore.digests import DIGEST_SIZE, Digest, block_path
from oscirc_blockstore.errors import IntegrityError
from oscirc_blockstore.frame import check_header, decode_verified, max_frame_bytes
from oscirc_blockstore.table import BLOCK_SIZES, NODE_SIZE
from oscirc_server.collection.report import Report
from oscirc_server.collection.sweeping import Sweeper
from oscirc_server.database import chunks
from oscirc_server.installation import Installation
from oscirc_server.models import BLOCK_DELETING, BlockRow, Lease
from oscirc_server.services import blocks


@dataclass(frozen=True, slots=True)
class Found:
    """A block file: its length, and when it was written."""

    length: int
    modified_s: float


def listed(installation: Installation, part: int) -> dict[Digest, Found]:
    """The block files of a part; what has another name than a block is none."""
    found: dict[Digest, Found] = {}
    for file in installation.storage.files(f"blocks/sha256/{part:02x}"):
        name = file.path.rpartition("/")[2].removesuffix(".zst")
        with_digest = _digest(name)
        if with_digest is not None and file.path == block_path(with_digest):
            found[with_digest] = Found(file.size, file.modified_s)
    return found


def _digest(name: str) -> Digest | None:
    try:
        raw = bytes.fromhex(name)
    except ValueError:
        return None
    return Digest(raw) if len(raw) == DIGEST_SIZE else None


def compare(
    installation: Installation,
    sweeper: Sweeper,
    report: Report,
    files: Mapping[Digest, Found],
    rows: Collection[Digest],
    marked: Collection[Digest],
) -> None:
    """Bring one part's files, rows and marks to agree."""
    horizon_s = installation.now_s() - installation.settings.collection.orphan_age_s
    unknown = [digest for digest in files if digest not in rows]
    for digest in unknown:
        if digest in marked:
            _adopt(installation, report, digest, files[digest].length)
    orphans = [
        (digest, files[digest].length)
        for digest in unknown
        if digest not in marked and files[digest].modified_s <= horizon_s
    ]
    sweeper.delete_orphans(orphans)
    absent = [digest for digest in rows if digest not in files]
    for digest in _really_absent(installation, absent):
        if digest in marked:
            report.lose(digest)
        if not report.dry_run:
            with installation.database.write() as session:  # the next upload brings it
                blocks.forget(session, digest)
    for digest in _unleased(installation, [each for each in marked if each not in files and each not in rows]):
        if installation.storage.size(block_path(digest)) is None:
            report.lose(digest)


def _really_absent(installation: Installation, digests: Collection[Digest]) -> Iterator[Digest]:
    """Those whose file is not there now either, and whose deletion is not under way."""
    for digest in digests:
        if installation.storage.size(block_path(digest)) is not None:
            continue
        with installation.database.read() as session:
            state = session.scalar(select(BlockRow.state).where(BlockRow.digest == digest))
        if state not in (None, BLOCK_DELETING):
            yield digest


def _unleased(installation: Installation, digests: list[Digest]) -> list[Digest]:
    """A draft leases what it is about to bring: that is not lost."""
    leased: set[bytes] = set()
    for chunk in chunks(digests):
        with installation.database.read() as session:
            leased.update(session.scalars(select(Lease.digest).where(Lease.digest.in_(chunk))))
    return [digest for digest in digests if digest not in leased]


def _adopt(installation: Installation, report: Report, digest: Digest, length: int) -> None:
    """A row for a file that something needs, once it has been read and is what it should be."""
    frame = installation.storage.get(block_path(digest), max_frame_bytes(max(BLOCK_SIZES)))
    if frame is None:
        return
    raw_size = size_inside(frame, digest)
    if raw_size is None:
        report.damage(digest)
        return
    report.adopted.add(length)
    if not report.dry_run:
        with installation.database.write() as session:
            blocks.add(
                session,
                [(digest, raw_size, len(frame))],
                durable=installation.storage.durable_on_put,
                now_s=installation.now_s(),
            )


def size_inside(frame: bytes, digest: Digest) -> int | None:
    """The size of the node or block that a frame holds; None where it does not hold that one."""
    for raw_size in (NODE_SIZE, *BLOCK_SIZES):
        try:
            check_header(frame, raw_size)
        except IntegrityError:
            continue
        try:
            decode_verified(frame, raw_size, digest)
        except IntegrityError:
            return None
        return raw_size
    return None


def forget_absent(installation: Installation) -> int:
    """After a database was restored from an older copy: no row promises a file that was deleted since. How many did."""
    forgotten = 0
    for part in range(256):
        files = listed(installation, part)
        low, high = bytes([part]), bytes([part + 1]) if part < 255 else b"\xff" * 33  # noqa: PLR2004
        with installation.database.read() as session:
            rows = session.scalars(select(BlockRow.digest).where(BlockRow.digest > low, BlockRow.digest < high)).all()
        absent = [Digest(digest) for digest in rows if Digest(digest) not in files]
        for chunk in chunks(absent):
            with installation.database.write() as session:
                session.execute(delete(BlockRow).where(BlockRow.digest.in_(chunk)))
        forgotten += len(absent)
    return forgotten
