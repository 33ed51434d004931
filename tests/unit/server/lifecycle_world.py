"""A server whose every step at the storage's and the database's seam can be the last one, or be overtaken by others."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import select

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.frame import decode_verified
from oscirc_server import reconciling, repository
from oscirc_server.installation import Installation
from oscirc_server.locks import WRITER
from oscirc_server.models import BlockRow, Document, ImageRow, SignedRole
from oscirc_server.services import drafts, releases
from oscirc_server.services.uploads import Uploader

from .server_world import BLOCK, Disk, MovableClock, Publisher, Record, World, block, body_of, signed

POOL = 7  # contents that blocks can have
IMAGE = "debian"


class Crash(BaseException):
    """The process ended here."""


@dataclass
class Faults:
    """Counts steps. After `crash_after` of them nothing happens any more; at `overtake_at` somebody else comes first."""

    crash_after: int | None = None
    overtake_at: int | None = None
    overtaker: Callable[[], None] | None = None
    steps: int = 0
    dead: bool = False
    _quiet: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, *, outside: Callable[[], bool] | None = None) -> None:
        """A seam is crossed; `outside` says whether somebody else can act at this moment."""
        if getattr(self._quiet, "on", False):
            return
        with self._lock:
            self.steps += 1
            if self.dead or (self.crash_after is not None and self.steps > self.crash_after):
                self.dead = True
                raise Crash
            due = self.overtaker is not None and self.overtake_at is not None and self.steps > self.overtake_at
            if not due or outside is None or not outside():
                return
            overtaker, self.overtaker = self.overtaker, None
            self._quiet.on = True
        try:
            overtaker()
        finally:
            self._quiet.on = False


class FaultyStorage:
    """The storage, with a step before and after each change, and times of writing by the test's clock."""

    def __init__(self, inner, server) -> None:
        self._inner = inner
        self._server = server

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def _changed(self, path, act):
        self._server.faults.step(outside=self._server.others_can_act)
        done = act()
        if done is not False:  # a file that was there already is as it was, and on disk if it was
            self._server.written[path] = self._server.clock()
            self._server.unsynced.add(path)
        self._server.faults.step()
        return done

    def put_if_absent(self, path, raw):
        return self._changed(path, lambda: self._inner.put_if_absent(path, raw))

    def replace(self, path, raw):
        return self._changed(path, lambda: self._inner.replace(path, raw))

    def remove(self, path):
        return self._changed(path, lambda: self._inner.remove(path))

    def sync(self):
        self._server.faults.step()
        self._server.unsynced.clear()
        self._inner.sync()

    def files(self, prefix):
        for file in self._inner.files(prefix):
            yield replace(file, modified_s=self._server.written.get(file.path, 0))


class Server:
    """One publisher's server on a directory; it can be killed, cut off from its power, and started again."""

    def __init__(self, template, directory: Path) -> None:
        made, key, _ = template
        shutil.copytree(made.data.parent, directory, dirs_exist_ok=True)
        self.clock = MovableClock()
        data = directory / "data"
        self.world: World = replace(
            made, data=data, keys=directory / "offline", clock=self.clock, place=made.place.copy(data)
        )
        self.publisher = Publisher("alice", clock=self.clock, key=key)
        self.faults = Faults()
        self.written: dict[str, float] = {}
        self.unsynced: set[str] = set()
        self.boots = 0
        self.start()

    def start(self) -> None:
        self.faults = Faults()
        self.installation: Installation = Installation.open(self.world.settings, self.clock)
        self.installation.storage = FaultyStorage(self.installation.storage, self)
        real = self.installation.database.write

        @contextlib.contextmanager
        def write(**options):
            self.faults.step(outside=self.others_can_act)
            with real(**options) as session:
                yield session
                self.faults.step()
            self.faults.step(outside=self.others_can_act)

        self.installation.database.write = write
        reconciling.reconcile(self.installation)
        self.uploader = Uploader(self.installation)

    def stop(self) -> None:
        self.uploader.close()
        self.installation.close()

    def others_can_act(self) -> bool:
        """Whether the writer's lock is free, which an overtaker may need."""
        with self.installation.locks.try_held(WRITER) as held:
            return held is not None

    def kill(self) -> None:
        self.faults.dead = True
        self.stop()
        self.start()
        self.learn()

    def cut_power(self, losses: Callable[[list[str]], list[str]], boot_id: Path) -> None:
        """What was not synced may be cut short, where it can be; rows are as they were at the worst moment."""
        self.faults.dead = True
        self.stop()
        lost = losses(sorted(path for path in self.unsynced if path.startswith("blocks/")))
        for path in [] if self.world.place.keeps_what_is_put else lost:
            place = self.world.tree / path
            if place.exists():
                place.write_bytes(place.read_bytes()[:100])
        self.boots += 1
        boot_id.write_text(f"boot {self.boots}")
        self.unsynced.clear()
        self.start()
        self.learn()

    def learn(self) -> None:
        """What the publisher's client does after an error: it reads what is in force."""
        with self.installation.database.read() as session:
            self.publisher.role_version = repository.current_version(session, "alice")
            row = session.get(ImageRow, ("alice", IMAGE))
            self.publisher.indexes = {}
            if row is not None:
                raw = session.get_one(Document, row.index_path).raw
                self.publisher.indexes[IMAGE] = image_index.parse(raw, "alice", IMAGE)

    def snapshot_expires_s(self) -> int:
        with self.installation.database.read() as session:
            newest = (
                select(SignedRole.expires_s).where(SignedRole.role == "snapshot").order_by(SignedRole.version.desc())
            )
            return session.scalars(newest.limit(1)).one()

    def disk(self, contents: tuple[int, ...]) -> Disk:
        return _disk(self.publisher, contents)

    def open(self, label: str) -> str:
        return drafts.open_draft(self.installation, "alice", IMAGE, label, BLOCK)[0].id

    def negotiate(self, draft: str, disk: Disk) -> list[Record]:
        records = {record.digest: record for record in disk.records}
        raw = drafts.missing(self.installation, draft, b"".join(records))
        return [records[Digest(raw[at : at + 32])] for at in range(0, len(raw), 32)]

    def upload(self, draft: str, records: list[Record]) -> None:
        async def pieces():
            yield body_of(records)

        asyncio.run(self.uploader.store_body(draft, BLOCK, pieces()))

    def release(self, draft: str, label: str, disk: Disk) -> None:
        drafts.put_manifest(self.installation, draft, disk.raw)
        indexes = {**self.publisher.indexes, IMAGE: self.publisher.index_with(IMAGE, label, disk.digest)}
        raw = signed(self.publisher.role(indexes), self.publisher.key)
        documents = {image: index.serialise() for image, index in indexes.items()}
        releases.release(self.installation, draft, raw, documents, actor="a test")
        self.publisher.took_force(indexes)

    def publish(self, label: str, contents: tuple[int, ...]) -> None:
        disk = self.disk(contents)
        draft = self.open(label)
        self.upload(draft, self.negotiate(draft, disk))
        self.release(draft, label, disk)

    def sign(self, index: image_index.ImageIndex) -> None:
        indexes = {**self.publisher.indexes, IMAGE: index}
        raw = signed(self.publisher.role(indexes), self.publisher.key)
        documents = {image: each.serialise() for image, each in indexes.items()}
        releases.update_role(self.installation, "alice", raw, documents, actor="a test")
        self.publisher.took_force(indexes)

    def index(self) -> image_index.ImageIndex:
        return self.publisher.indexes.get(IMAGE, image_index.ImageIndex("alice", IMAGE))

    def assert_whole(self, disk: Disk) -> None:
        """Every block and node stands in the store, good."""
        for record in disk.records:
            raw = (self.world.tree / block_path(record.digest)).read_bytes()
            if raw != record.frame:
                decode_verified(raw, record.raw_size, record.digest)

    def block_files(self) -> set[Digest]:
        found = self.world.tree.glob("blocks/sha256/*/*.zst")
        return {Digest(bytes.fromhex(path.name.removesuffix(".zst"))) for path in found}

    def block_rows(self) -> set[Digest]:
        with self.installation.database.read() as session:
            return {Digest(digest) for digest in session.scalars(select(BlockRow.digest))}


_built: dict[tuple[int, ...], Disk] = {}


def _disk(publisher: Publisher, contents: tuple[int, ...]) -> Disk:
    if contents not in _built:
        _built[contents] = publisher.build(IMAGE, [block(f"content {number}") for number in contents])
    return _built[contents]


@contextlib.contextmanager
def server_of(template, directory: Path) -> Iterator[Server]:
    server = Server(template, directory)
    try:
        yield server
    finally:
        server.faults.dead = False
        server.stop()
