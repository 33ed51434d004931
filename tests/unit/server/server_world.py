"""A repository in a temporary directory, a clock that tests move, and publishers that build real blocks and roles."""

from __future__ import annotations

import base64
import copy
import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from support.places import OneDirectory, Place
from tuf.api.metadata import Metadata, TargetFile, Targets

from oscirc_blockstore import frame, image_index, keys
from oscirc_blockstore.digests import Digest, block_digest, digest_of
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder
from oscirc_server.administration import Administration
from oscirc_server.clock import Clock
from oscirc_server.initialising import InitResult, initialise
from oscirc_server.installation import Installation
from oscirc_server.settings import Listen, Settings

PASSPHRASE = "a passphrase for tests"
BLOCK = 65536
START_S = 1_800_000_000
DAY_S = 86_400
FRAMES = "application/vnd.oscirc.frames"


class MovableClock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now_s: float = START_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class World:
    """An initialised data directory and how to reach it."""

    data: Path
    keys: Path
    made: InitResult
    clock: Clock
    place: Place

    @property
    def settings(self) -> Settings:
        return Settings(
            data_dir=self.data,
            listen=Listen("127.0.0.1", 0),
            database_url=self.place.database_url,
            blocks_url=self.place.blocks_url,
            upload_threads=2,
            log_level="warning",
        )

    @property
    def tree(self) -> Path:
        return self.place.tree

    @property
    def administration(self) -> Administration:
        return Administration(
            self.data,
            database_url=self.place.database_url,
            blocks_url=self.place.blocks_url,
            clock=self.clock,
        )

    def open(self) -> Installation:
        return Installation.open(self.settings, self.clock)

    def add_publisher(self, name: str) -> Publisher:
        publisher = Publisher(name, clock=self.clock)
        self.administration.add_publisher(name, [publisher.public_pem], self.keys, PASSPHRASE)
        return publisher

    def token(self, *scopes: str, lifetime_s: int | None = None) -> str:
        return self.administration.create_token(scopes, "a test", lifetime_s)[1]


def make_world(
    directory: Path, clock: Clock | None = None, *, offline: bool = True, place: Place | None = None
) -> World:
    clock = clock or MovableClock()
    keys_dir = directory / "offline" if offline else None
    place = place or OneDirectory(directory / "data")
    made = initialise(
        directory / "data",
        keys_dir,
        PASSPHRASE,
        "http://repository.test/r",
        "Test repository",
        database_url=place.database_url,
        blocks_url=place.blocks_url,
        clock=clock,
    )
    return World(directory / "data", made.keys_dir, made, clock, place)


def block(text: str, size: int = BLOCK) -> bytes:
    """A block whose bytes follow from `text`, half of them compressible."""
    seed = hashlib.sha256(text.encode()).digest()
    return (hashlib.shake_256(seed).digest(size // 2) + seed * (size // 64))[:size]


@dataclass(frozen=True)
class Record:
    digest: Digest
    raw_size: int
    frame: bytes

    def encoded(self) -> bytes:
        return struct.pack("<32sII", self.digest, self.raw_size, len(self.frame)) + self.frame


@dataclass(frozen=True)
class Disk:
    """A built disk: its manifest and everything that must be uploaded."""

    manifest: Manifest
    blocks: tuple[Record, ...]
    nodes: tuple[Record, ...]

    @property
    def raw(self) -> bytes:
        return self.manifest.serialise()

    @property
    def digest(self) -> Digest:
        return digest_of(self.raw)

    @property
    def records(self) -> tuple[Record, ...]:
        return self.blocks + self.nodes


def body_of(records: Iterable[Record]) -> bytes:
    return b"".join(record.encoded() for record in records)


def signed(role: Targets, *private: Ed25519PrivateKey) -> bytes:
    metadata = Metadata(role)
    for key in private:
        metadata.sign(CryptoSigner(key), append=True)
    return metadata.to_bytes()


@dataclass
class Publisher:
    """Keeps its own indexes and role version, as the real client does."""

    name: str
    clock: Clock
    key: Ed25519PrivateKey = field(default_factory=keys.generate)
    role_version: int = 0
    indexes: dict[str, ImageIndex] = field(default_factory=dict)

    @property
    def public_pem(self) -> bytes:
        return keys.public_pem(self.key.public_key())

    def build(self, image: str, contents: Iterable[bytes | None], **system: object) -> Disk:
        """A disk of 64 KiB blocks; None is a hole."""
        pieces = list(contents)
        nodes: list[Record] = []
        geometry = Geometry(len(pieces) * BLOCK, BLOCK)
        builder = TableBuilder(
            geometry, lambda digest, node: nodes.append(Record(digest, NODE_SIZE, frame.encode(node)))
        )
        blocks: dict[Digest, Record] = {}
        data = 0
        for position, piece in enumerate(pieces):
            if piece is None:
                continue
            digest = block_digest(piece)
            builder.add(position, digest)
            blocks[digest] = Record(digest, BLOCK, frame.encode(piece))
            data += 1
        root = builder.finish()
        manifest = Manifest(self.name, image, geometry, root, data, SystemFacts(**system))
        return Disk(manifest, tuple(blocks.values()), tuple(nodes))

    def index_with(self, image: str, version: str, digest: Digest, *, channel: str | None = "stable") -> ImageIndex:
        index = self.indexes.get(image, ImageIndex(self.name, image))
        index = index.with_version(ImageVersion(version, digest, "2027-01-15T08:00:00Z", f"what is new in {version}"))
        return index.with_channel(channel, version) if channel else index

    def role(self, indexes: Mapping[str, ImageIndex], **changes: object) -> Targets:
        """The next role over these indexes; `changes` overwrite its attributes."""
        expires = datetime.fromtimestamp(int(self.clock()) + 300 * DAY_S, UTC)
        role = Targets(version=self.role_version + 1, expires=expires)
        for image, index in indexes.items():
            raw = index.serialise()
            path = image_index.index_target(self.name, image)
            role.targets[path] = TargetFile(len(raw), {"sha256": digest_of(raw).hex()}, path)
        for attribute, value in changes.items():
            setattr(role, attribute, value)
        return role

    def offer(self, indexes: Mapping[str, ImageIndex], role: Targets | None = None) -> dict[str, object]:
        """The body of a release: the role signed, and every index."""
        raw = signed(role or self.role(indexes), self.key)
        return offer_of(raw, indexes)

    def took_force(self, indexes: Mapping[str, ImageIndex]) -> None:
        self.role_version += 1
        self.indexes = dict(indexes)


def offer_of(role: bytes, indexes: Mapping[str, ImageIndex]) -> dict[str, object]:
    encoded = {image: base64.b64encode(index.serialise()).decode() for image, index in indexes.items()}
    return {"role": base64.b64encode(role).decode(), "indexes": encoded}


@dataclass
class Api:
    """The REST API as one token sees it."""

    http: httpx.Client
    token: str | None

    def call(self, method: str, path: str, **options: object) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return self.http.request(method, f"/api/v1/{path}", headers=headers, **options)

    def with_token(self, token: str | None) -> Api:
        return replace(self, token=token)

    def draft(self, publisher: str, image: str, version: str, block_size: int = BLOCK) -> str:
        names = {"publisher": publisher, "image": image, "version": version, "block_size": block_size}
        answer = self.call("POST", "drafts", json=names)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["id"]

    def missing(self, draft: str, digests: Iterable[Digest]) -> list[Digest]:
        answer = self.call("POST", f"drafts/{draft}/missing", content=b"".join(digests))
        assert answer.status_code == 200, answer.text
        return [Digest(answer.content[at : at + 32]) for at in range(0, len(answer.content), 32)]

    def upload(self, draft: str, records: Iterable[Record]) -> httpx.Response:
        return self.call("POST", f"drafts/{draft}/frames", content=body_of(records), headers={"Content-Type": FRAMES})

    def stage(self, publisher: Publisher, image: str, version: str, disk: Disk) -> str:
        """A draft with everything uploaded and its manifest put: ready for release."""
        draft = self.draft(publisher.name, image, version)
        lacking = set(self.missing(draft, [record.digest for record in disk.records]))
        answer = self.upload(draft, [record for record in disk.records if record.digest in lacking])
        assert answer.status_code == 200, answer.text
        answer = self.call("PUT", f"drafts/{draft}/manifest", content=disk.raw)
        assert answer.status_code == 204, answer.text
        return draft

    def publish(self, publisher: Publisher, image: str, version: str, disk: Disk) -> httpx.Response:
        """The whole of it; the publisher remembers what took force."""
        draft = self.stage(publisher, image, version, disk)
        indexes = {**publisher.indexes, image: publisher.index_with(image, version, disk.digest)}
        answer = self.call("POST", f"drafts/{draft}/release", json=publisher.offer(indexes))
        if answer.status_code == 200:
            publisher.took_force(indexes)
        return answer


def fork(publisher: Publisher) -> Publisher:
    """The same publisher on another machine, with what it knows now."""
    return replace(publisher, indexes=copy.copy(publisher.indexes))
