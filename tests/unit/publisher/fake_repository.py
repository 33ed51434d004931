"""ADR 2 in memory, behind httpx's transport seam: enough of a server to publish against, and one that can misbehave.

`faults` are asked before each request and may answer it, raise a transport error, or return None to let it pass.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tuf.api.metadata import Metadata, Targets

from oscirc_blockstore import frame, image_index, keys, manifest, table
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_publisher.rest import Patience, RestClient
from oscirc_publisher.roles import tuf_key

URL = "http://repository.test/r"
TOKEN = "oscirc_test"
Fault = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class FakeDraft:
    id: str
    names: tuple[str, str, str]
    block_size: int
    manifest: bytes | None = None
    state: str = "open"


@dataclass
class FakePublisher:
    keys: list[Ed25519PublicKey]
    role_version: int = 0


@dataclass
class FakeRepository:
    publishers: dict[str, FakePublisher] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    frames: dict[Digest, tuple[int, bytes]] = field(default_factory=dict)
    drafts: dict[str, FakeDraft] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    asked: list[Digest] = field(default_factory=list)
    received_bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def client(self, pauses_s: tuple[float, ...] = (), token: str | None = TOKEN) -> RestClient:
        return RestClient(URL, token=token, patience=Patience(pauses_s), transport=self.transport())

    def add_publisher(self, name: str, *public: Ed25519PublicKey) -> None:
        self.publishers[name] = FakePublisher(list(public))

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for m, path in self.requests if m == method and re.fullmatch(pattern, path))

    def index(self, publisher: str, image: str) -> image_index.ImageIndex:
        version = self.publishers[publisher].role_version
        role = Metadata[Targets].from_bytes(self.files[f"metadata/{version}.{publisher}.json"]).signed
        sha256 = role.targets[f"{publisher}/{image}.json"].hashes["sha256"]
        return image_index.parse(self.files[f"targets/{publisher}/{sha256}.{image}.json"], publisher, image)

    def transport(self) -> httpx.BaseTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            answer = self.handle(request)
            return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

        return httpx.MockTransport(handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        path = request.url.path.removeprefix("/r/")
        self.requests.append((request.method, path))
        for fault in list(self.faults):
            answer = fault(request)
            if answer is not None:
                return answer
        with self.lock:
            if not path.startswith("api/v1/"):
                assert "Authorization" not in request.headers
                raw = self.files[path] if path in self.files else self._block_file(path)
                return httpx.Response(404) if raw is None else httpx.Response(200, content=raw)
            return self._api(request, path.removeprefix("api/v1/"), body)

    def _block_file(self, path: str) -> bytes | None:
        match = re.fullmatch(r"blocks/sha256/../([0-9a-f]{64})\.zst", path)
        return self.frames.get(Digest(bytes.fromhex(match[1])), (0, None))[1] if match else None

    def _api(self, request: httpx.Request, path: str, body: bytes) -> httpx.Response:
        method = request.method
        if method == "GET" and (match := re.fullmatch(r"publishers/([^/]+)", path)):
            publisher = self.publishers.get(match[1])
            if publisher is None:
                return problem(404, "NotFoundError", "no such publisher")
            prints = [keys.fingerprint(key) for key in publisher.keys]
            return httpx.Response(
                200, json={"name": match[1], "fingerprints": prints, "role_version": publisher.role_version}
            )
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "UnauthenticatedError", "no such token")
        if method == "PUT" and (match := re.fullmatch(r"publishers/([^/]+)/role", path)):
            return self._accept(match[1], json.loads(body), None)
        if method == "PUT" and path == "roles/targets":
            version = Metadata[Targets].from_bytes(body).signed.version
            self.files[f"metadata/{version}.targets.json"] = body
            return httpx.Response(204)
        if (method, path) == ("POST", "drafts"):
            return self._open(json.loads(body))
        match = re.fullmatch(r"drafts/([^/]+)(?:/(.*))?", path)
        draft = self.drafts.get(match[1]) if match else None
        if match is None or draft is None or draft.state != "open":
            return problem(404, "NotFoundError", "there is no such draft")
        return self._draft(method, match[2], draft, body)

    def _open(self, wanted: dict) -> httpx.Response:
        names = (wanted["publisher"], wanted["image"], wanted["version"])
        for draft in self.drafts.values():
            if draft.names == names and draft.state == "open":
                return httpx.Response(200, json={"id": draft.id, "state": "open", "block_size": draft.block_size})
        draft = FakeDraft(f"d{len(self.drafts)}", names, wanted["block_size"])
        self.drafts[draft.id] = draft
        return httpx.Response(201, json={"id": draft.id, "state": "open", "block_size": draft.block_size})

    def _draft(self, method: str, what: str | None, draft: FakeDraft, body: bytes) -> httpx.Response:
        if (method, what) == ("POST", "missing"):
            digests = [Digest(body[at : at + 32]) for at in range(0, len(body), 32)]
            self.asked += digests
            assert ZERO_DIGEST not in digests
            return httpx.Response(200, content=b"".join(d for d in digests if d not in self.frames))
        if (method, what) == ("POST", "frames"):
            return self._store(draft, body)
        if (method, what) == ("PUT", "manifest"):
            draft.manifest = body
            return httpx.Response(204)
        if (method, what) == ("POST", "release"):
            return self._accept(draft.names[0], json.loads(body), draft)
        if (method, what) == ("DELETE", None):
            del self.drafts[draft.id]
            return httpx.Response(204)
        return problem(405, "UsageError", "not a call")

    def _store(self, draft: FakeDraft, body: bytes) -> httpx.Response:
        self.received_bytes += len(body)
        stored = present = at = 0
        assert len(body) <= 16 << 20
        while at < len(body):
            digest, raw_size, length = struct.unpack_from("<32sII", body, at)
            raw_frame = body[at + 40 : at + 40 + length]
            at += 40 + length
            assert raw_size in (draft.block_size, table.NODE_SIZE)
            frame.decode_verified(raw_frame, raw_size, digest)
            if digest in self.frames:
                present += 1
            else:
                stored += 1
                self.frames[digest] = (raw_size, raw_frame)
        return httpx.Response(200, json={"stored": stored, "present": present, "stored_bytes": len(body)})

    def _accept(self, name: str, document: dict, draft: FakeDraft | None) -> httpx.Response:
        publisher = self.publishers[name]
        raw = base64.b64decode(document["role"])
        role = Metadata[Targets].from_bytes(raw)
        if role.signed.version != publisher.role_version + 1:
            return problem(409, "RoleConflictError", "somebody was first", current_version=publisher.role_version)
        for key in map(tuf_key, publisher.keys):
            if key.keyid in role.signatures:
                key.verify_signature(role.signatures[key.keyid], role.signed_bytes)
                break
        else:
            return problem(422, "SignatureRefusedError", "not signed by the publisher's key")
        if draft is not None:
            assert draft.manifest is not None
            missing = self._missing(draft.manifest)
            if missing:
                return problem(422, "MissingBlocksError", "blocks are missing", missing=missing)
            self.files[f"manifests/{digest_of(draft.manifest).hex()}.json"] = draft.manifest
            draft.state = "released"
        for image, text in document["indexes"].items():
            index = base64.b64decode(text)
            image_index.parse(index, name, image)
            self.files[f"targets/{name}/{digest_of(index).hex()}.{image}.json"] = index
        self.files[f"metadata/{role.signed.version}.{name}.json"] = raw
        publisher.role_version = role.signed.version
        return httpx.Response(200, json={"role_version": role.signed.version, "snapshot_version": 1})

    def _missing(self, raw: bytes) -> int:
        facts = manifest.parse(raw)

        def load(digest: Digest) -> bytes:
            raw_size, raw_frame = self.frames[digest]
            return frame.decode_verified(raw_frame, raw_size, digest)

        try:
            named = table.contents(facts.geometry, facts.root, load)
        except KeyError:
            return 1
        return sum(1 for digest in named.blocks if digest not in self.frames)

    def disk(self, digest: Digest) -> bytes:
        """The whole disk of a released manifest, read as a client would."""
        facts = manifest.parse(self.files[f"manifests/{digest.hex()}.json"])

        def load(digest: Digest) -> bytes:
            raw_size, raw_frame = self.frames[digest]
            return frame.decode_verified(raw_frame, raw_size, digest)

        size = facts.geometry.block_size
        whole = bytearray(facts.geometry.block_count * size)
        for position, block in table.iterate_blocks(facts.geometry, facts.root, load):
            whole[position * size : (position + 1) * size] = load(block)
        return bytes(whole[: facts.geometry.disk_size])


def problem(status: int, kind: str, detail: str, **members: object) -> httpx.Response:
    return httpx.Response(
        status,
        json={"type": kind, "title": kind, "status": status, "detail": detail, **members},
        headers={"Content-Type": "application/problem+json"},
    )


class Once:
    """A fault that hits the `skip`+1st request that matches, `times` times, then lets everything pass."""

    def __init__(self, method: str, pattern: str, answer: object, *, skip: int = 0, times: int = 1) -> None:
        self.method, self.pattern, self.answer, self.skip, self.times = method, pattern, answer, skip, times
        self.hits = 0

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        path = request.url.path.removeprefix("/r/")
        if request.method != self.method or not re.fullmatch(self.pattern, path):
            return None
        if self.skip:
            self.skip -= 1
            return None
        if self.hits >= self.times:
            return None
        self.hits += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer
