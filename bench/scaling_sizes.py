"""How long signed documents get, how large rows are, and what storage costs: measured with the real code, or computed.

Metadata: documents of this project's own making with many entries and with fewer; the difference is an entry's bytes.
Rows: the server's own tables, filled, in SQLite and, where one is to be had, PostgreSQL, indexes included. Prices are
assumptions (`Prices`), in the order of a large cloud's list prices.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from sqlalchemy import insert, text
from tuf.ngclient.config import UpdaterConfig

from oscirc_blockstore import keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex, ImageVersion
from oscirc_publisher import roles
from oscirc_server import delegations
from oscirc_server.database import Database, chunks, sqlite_url
from oscirc_server.metadata import sign, sign_snapshot
from oscirc_server.models import AuditRow, Base, BlockRow, JobRow, ManifestRow
from oscirc_server.tuf_api import Targets

NOW = datetime(2027, 1, 1, tzinfo=UTC)
FEW, MANY = 50, 450
ROWS = 200_000
_LABEL = "2027.01.{:02}-{:03}"


@dataclass(frozen=True, slots=True)
class Growth:
    """A document: what an entry is, its bytes, the document's bytes without any, the most that clients read."""

    document: str
    entry: str
    entry_bytes: float
    empty_bytes: float
    limit_bytes: int

    @property
    def most_entries(self) -> int:
        """How many there may be."""
        return int((self.limit_bytes - self.empty_bytes) / self.entry_bytes)


def _growth(document: str, entry: str, limit: int, size: Callable[[int], int]) -> Growth:
    few, many = size(FEW), size(MANY)
    each = (many - few) / (MANY - FEW)
    return Growth(document, entry, each, few - FEW * each, limit)


def growths() -> list[Growth]:
    """Of every document that grows with a repository."""
    config = UpdaterConfig()
    private = keys.generate()
    signer = CryptoSigner(private)
    expires = NOW + timedelta(days=7)
    publics = [keys.generate().public_key() for _ in range(MANY)]

    def name(number: int) -> str:
        return f"publisher-{number:05}"

    def snapshot(count: int) -> int:
        listed = {name(number): (100 + number, b"x" * number) for number in range(count)}
        return len(sign_snapshot(1000, expires, listed, [signer]).raw)

    def targets(count: int) -> int:
        role = Targets(version=1000, expires=expires)
        for number in range(count):
            role = delegations.with_publisher(role, name(number), publics[number : number + 1])
        return len(sign("targets", role, [signer]).raw)

    def role(count: int) -> int:
        indexes = {f"image-{number:05}": b"x" * (5000 + number) for number in range(count)}
        return len(roles.next_role(roles.no_role("publisher-00001"), indexes, private, NOW))

    def index(count: int) -> int:
        found = ImageIndex("publisher-00001", "image-00001")
        for number in range(count):
            label = _LABEL.format(number % 28 + 1, number)
            digest = digest_of(label.encode())
            changelog = "security fixes of the week, and a newer browser; see the site for the rest"
            found = found.with_version(ImageVersion(label, digest, "2027-01-15T08:00:00Z", changelog))
        return len(found.serialise())

    return [
        _growth("snapshot", "publisher", config.snapshot_max_length, snapshot),
        _growth("targets", "publisher", config.targets_max_length, targets),
        _growth("a publisher's role", "image", config.targets_max_length, role),
        _growth("an image's index", "version", MAX_INDEX_BYTES, index),
    ]


def _digest(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def _block(number: int) -> dict[str, object]:
    state = {"raw_size": 262_144, "stored_length": 69_000 + number % 1000, "state": "live", "created_s": 1_800_000_000}
    return {"digest": _digest(number), **state}


def _manifest(number: int) -> dict[str, object]:
    return {"digest": _digest(number), "raw": b"m" * 430, "stored_bytes": 310_000_000, "created_s": 1_800_000_000}


def _audit(number: int) -> dict[str, object]:
    subject = f"publisher-00001/image-{number % 5000:05}@2027.01.15-001"
    fixed = {"at_s": 1_800_000_000, "actor": "0123456789abcdef", "action": "release"}
    return {**fixed, "subject": subject, "detail": f'{{"manifest": "{_digest(number).hex()}"}}'}


def _job(number: int) -> dict[str, object]:
    fixed = {"kind": "delta", "publisher": "publisher-00001", "version": "2027.01.15-001", "argument": "2027.01.08-001"}
    state = {"state": "done", "priority": 1, "attempts": 1, "not_before_s": 0, "requested_by": "policy"}
    times = {"created_s": 1_800_000_000, "started_s": 1_800_000_001, "ended_s": 1_800_000_100}
    result = f'{{"blocks": 269, "length": 3098578, "sha256": "{_digest(number).hex()}"}}'
    return {**fixed, **state, **times, "image": f"image-{number:06}", "result": result}


TABLES: tuple[tuple[type[Base], Callable[[int], dict[str, object]], int], ...] = (
    (BlockRow, _block, ROWS),
    (ManifestRow, _manifest, ROWS // 10),
    (AuditRow, _audit, ROWS // 10),
    (JobRow, _job, ROWS // 10),
)


def _filled(database: Database, size: Callable[[Database, str], int]) -> Iterator[tuple[str, float]]:
    database.migrate()
    for model, row, count in TABLES:
        before = size(database, model.__tablename__)
        with database.write() as session:
            for some in chunks(range(count)):
                session.execute(insert(model), [row(number) for number in some])
        yield model.__tablename__, (size(database, model.__tablename__) - before) / count


def _sqlite_bytes(database: Database, _table: str) -> int:
    with database.write() as session:
        return int(session.scalar(text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")))


def _postgresql_bytes(database: Database, table: str) -> int:
    with database.read() as session:
        return int(session.scalar(text("SELECT pg_total_relation_size(CAST(:name AS regclass))"), {"name": table}))


def row_bytes(directory: Path) -> dict[str, dict[str, float]]:
    """Bytes of a row with its part of the indexes, by database and table."""
    found: dict[str, dict[str, float]] = {}
    with contextlib.closing(Database(sqlite_url(directory / "rows.db"))) as database:
        found["SQLite"] = dict(_filled(database, _sqlite_bytes))
    from support.postgresql import cluster  # noqa: PLC0415  # of the tests, which the harness puts on the path

    with cluster() as started, contextlib.closing(Database(started.url(started.create()))) as database:
        found["PostgreSQL"] = dict(_filled(database, _postgresql_bytes))
    return found


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars. Assumed, not quoted: what matters is which term is the largest."""

    stored_gb_month: float = 0.023
    put_million: float = 5.0
    get_million: float = 0.4
    egress_gb: float = 0.02


@dataclass(frozen=True, slots=True)
class Scale:
    """A store of so many bytes, and what comes with it."""

    stored_bytes: int
    blocks: int
    database_bytes: int
    month_dollars: float
    upload_dollars: float


def scale(stored_bytes: int, frame_bytes: float, block_row_bytes: float, prices: Prices) -> Scale:
    """By the mean length of a frame and the bytes of a block's row."""
    blocks = round(stored_bytes / frame_bytes)
    return Scale(
        stored_bytes,
        blocks,
        round(blocks * block_row_bytes),
        stored_bytes / 1e9 * prices.stored_gb_month,
        blocks / 1e6 * prices.put_million,
    )
