"""A draft on the server (ADR 2): asks which blocks are missing, sends those, names the manifest, asks for the release.

Everything may be done again: a draft that is open is returned by `open_draft`, blocks that arrived are not missing
any more, the manifest may be put twice. A body that failed under way is never sent again as it was: the server is
asked first what of it has arrived.

What the server answers is checked against what was asked: it may be wrong about its own store, which wastes or
withholds bytes, but it cannot name a block, a draft or a number that we would not have.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from oscirc_blockstore.digests import DIGEST_SIZE, Digest
from oscirc_blockstore.errors import DocumentRefusedError, OscircError, TransportError
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_publisher.problems import parse_object
from oscirc_publisher.rest import JSON, Body, RestClient

FRAMES = "application/vnd.oscirc.frames"
MAX_DIGESTS_PER_REQUEST = 65_536
MAX_RECORDS_PER_BODY = 4096
MAX_BODY_BYTES = 16 << 20
_HEADER = struct.Struct("<32sII")
_DRAFT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_COUNT = 1 << 53
_RELEASE_TIMEOUT_S = 900.0  # the server looks at every block of the image before it answers


@dataclass(frozen=True, slots=True)
class Record:
    """One block or node on its way: `raw_size` bytes in `frame`."""

    digest: Digest
    raw_size: int
    frame: bytes

    def encoded(self) -> bytes:
        """The record as it stands in a body: digest, raw size, frame length (u32, little endian), frame."""
        return _HEADER.pack(self.digest, self.raw_size, len(self.frame)) + self.frame

    @property
    def size(self) -> int:
        """Bytes in a body."""
        return _HEADER.size + len(self.frame)


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of records: frames the server kept, frames it had, and the bytes sent for both."""

    stored: int = 0
    present: int = 0
    sent_bytes: int = 0

    def __add__(self, other: Stored) -> Stored:
        return Stored(self.stored + other.stored, self.present + other.present, self.sent_bytes + other.sent_bytes)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A role that the server has taken: its version, and that of the snapshot which shows it to everybody."""

    role_version: int
    snapshot_version: int


class Draft:
    """An open draft; safe for several threads."""

    def __init__(self, rest: RestClient, draft_id: str) -> None:
        self.id = draft_id
        self._rest = rest
        self._path = f"drafts/{draft_id}"

    def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those of `digests` that the server's store lacks, in order."""
        lacking: list[Digest] = []
        for start in range(0, len(digests), MAX_DIGESTS_PER_REQUEST):
            asked = digests[start : start + MAX_DIGESTS_PER_REQUEST]
            raw = self._rest.call(
                "POST", f"{self._path}/missing", Body.of(b"".join(asked)), max_bytes=DIGEST_SIZE * len(asked)
            )
            lacking += _in_order(raw, asked)
        return lacking

    def store(self, records: Sequence[Record]) -> Stored:
        """Send records, in as many bodies as the limits ask for."""
        total = Stored()
        for body in _bodies(records):
            total += self._store_body(body)
        return total

    def _store_body(self, records: Sequence[Record]) -> Stored:
        total, attempt = Stored(), 0
        while True:
            body = _body(records)
            total += Stored(sent_bytes=body.size)
            try:
                answer = _Answer(parse_object(self._rest.call("POST", f"{self._path}/frames", body, once=True)))
            except TransportError as error:
                if not self._rest.pause(attempt, error):
                    raise
                attempt += 1
            else:
                outcome = Stored(answer.count("stored"), answer.count("present"))
                if outcome.stored + outcome.present != len(records):
                    raise DocumentRefusedError(
                        f"the server took {outcome.stored + outcome.present} of {len(records)} frames without a word"
                    )
                return total + outcome
            lacking = set(self.missing([record.digest for record in records]))
            total += Stored(stored=len(records) - len(lacking))
            records = [record for record in records if record.digest in lacking]
            if not records:
                return total

    def put_manifest(self, raw: bytes) -> None:
        """Name the manifest that will be released."""
        self._rest.call("PUT", f"{self._path}/manifest", Body.of(raw, JSON))

    def release(self, role: bytes, indexes: Mapping[str, bytes]) -> Accepted:
        """Make it visible, atomically, under this signed role."""
        return send_role(self._rest, "POST", f"{self._path}/release", role, indexes)

    def discard(self) -> None:
        """Forget the draft; what was uploaded may be collected."""
        self._rest.call("DELETE", self._path)


def open_draft(rest: RestClient, publisher: str, image: str, version: str, block_size: int) -> Draft:
    """A new draft, or the open one of the same three names; one begun with another block size is discarded."""
    wanted = {"publisher": publisher, "image": image, "version": version, "block_size": block_size}
    for _ in range(2):
        answer = _Answer(rest.call_json("POST", "drafts", wanted))
        draft = Draft(rest, answer.identifier("id"))
        if answer.count("block_size") == block_size:
            return draft
        draft.discard()
    raise DocumentRefusedError(f"the server insists on a draft of {publisher}/{image} with another block size")


def send_role(rest: RestClient, method: str, path: str, role: bytes, indexes: Mapping[str, bytes]) -> Accepted:
    """Send signed role metadata and the indexes that it names anew; an answer of 409 means somebody was first."""
    document = {
        "role": base64.b64encode(role).decode(),
        "indexes": {image: base64.b64encode(raw).decode() for image, raw in indexes.items()},
    }
    answer = _Answer(rest.call_json(method, path, document, timeout_s=_RELEASE_TIMEOUT_S))
    return Accepted(answer.count("role_version"), answer.count("snapshot_version"))


class _Answer:
    """Takes checked fields out of a server's JSON; unknown fields are passed over, so that servers can grow."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = document

    def count(self, key: str) -> int:
        value = self._document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
            raise DocumentRefusedError(f"the server's answer states no usable {key}")
        return value

    def identifier(self, key: str) -> str:
        value = self._document.get(key)
        if not isinstance(value, str) or not _DRAFT_ID.fullmatch(value):
            raise DocumentRefusedError(f"the server's answer states no usable {key}")
        return value


def _in_order(raw: bytes, asked: Sequence[Digest]) -> list[Digest]:
    """The digests in `raw` if they are some of `asked`, in the order of `asked`."""
    if len(raw) % DIGEST_SIZE:
        raise DocumentRefusedError("the server's list of missing blocks is cut off")
    lacking = [Digest(raw[at : at + DIGEST_SIZE]) for at in range(0, len(raw), DIGEST_SIZE)]
    rest: Iterator[Digest] = iter(asked)
    if not all(digest in rest for digest in lacking):
        raise DocumentRefusedError("the server's list of missing blocks is not part of what was asked")
    return lacking


def _body(records: Sequence[Record]) -> Body:
    """The records one after another; each is put together when its turn comes, so that no frame is held twice."""
    return Body(sum(record.size for record in records), lambda: (record.encoded() for record in records), FRAMES)


def _bodies(records: Iterable[Record]) -> Iterator[list[Record]]:
    body: list[Record] = []
    size = 0
    for record in records:
        if len(record.frame) > max_frame_bytes(record.raw_size):
            raise OscircError("a compressor made an over-long frame")  # a fault of this program
        if body and (size + record.size > MAX_BODY_BYTES or len(body) == MAX_RECORDS_PER_BODY):
            yield body
            body, size = [], 0
        body.append(record)
        size += record.size
    if body:
        yield body
