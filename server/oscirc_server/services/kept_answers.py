"""Answers that are kept under an Idempotency-Key, so that a call whose answer was lost is not made twice.

A key belongs to a token and a route. Its row is pending while the first call runs, which whoever comes meanwhile is
told (`ConflictError`); a process that died leaves a row that lapses after ten minutes. Only successes are kept, for a
day: what was refused changed nothing and is judged anew.

An answer may hold a secret (a new token's text). It is therefore sealed with a key made of the caller's own token, of
which the database has only a hash: a copy of the database opens no answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import delete, func, select

from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import KeptAnswer

KEPT_S = 86_400
PENDING_S = 600
MAX_KEPT = 1000  # of one token: beyond, the oldest go
MAX_ANSWER_BYTES = 64 * 1024
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Key:
    """What a row is found by, and what its answer is sealed with."""

    id: bytes
    token_id: str
    secret: bytes

    @classmethod
    def of(cls, token: str, token_id: str, route: str, text: str) -> Key:
        """The key that a caller calls `text`, for one route."""
        parts = json.dumps([token_id, route, text]).encode()
        identity = hashlib.sha256(parts).digest()
        derivation = HKDF(SHA256(), 32, salt=identity, info=b"oscirc kept answer")
        return cls(identity, token_id, derivation.derive(token.encode()))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept under a key: of which body, and the answer unless it cannot be opened."""

    body_hash: bytes
    answer: Answer


def begin(installation: Installation, key: Key) -> Kept | None:
    """The kept answer, or None and the key is pending from now on; `ConflictError` while another call runs."""
    now_s = installation.now_s()
    with installation.database.write() as session:
        session.execute(delete(KeptAnswer).where(KeptAnswer.expires_s <= now_s))
        row = session.get(KeptAnswer, key.id)
        if row is not None and row.status is None:
            raise ConflictError("a call with this Idempotency-Key is still running", hint="ask again in a moment")
        if row is not None and row.sealed is not None:
            answer = _opened(key, row.status or 0, row.sealed)
            if answer is not None:
                return Kept(row.body_hash or b"", answer)
            session.delete(row)
            session.flush()
        of_token = KeptAnswer.token_id == key.token_id
        count = session.scalar(select(func.count()).select_from(KeptAnswer).where(of_token)) or 0
        if count >= MAX_KEPT:
            oldest = select(KeptAnswer.id).where(of_token).order_by(KeptAnswer.expires_s).limit(count - MAX_KEPT + 1)
            session.execute(delete(KeptAnswer).where(KeptAnswer.id.in_(list(session.scalars(oldest)))))
        session.add(KeptAnswer(id=key.id, token_id=key.token_id, expires_s=now_s + PENDING_S))
    return None


def keep(installation: Installation, key: Key, body_hash: bytes, answer: Answer) -> None:
    """Keep the answer of the call that began."""
    sealed = _sealed(key, answer)
    with installation.database.write(durable=True) as session:
        row = session.get(KeptAnswer, key.id)
        if row is not None:
            row.body_hash, row.status, row.sealed = body_hash, answer.status, sealed
            row.expires_s = installation.now_s() + KEPT_S


def abandon(installation: Installation, key: Key) -> None:
    """The call that began changed nothing: the key is free again."""
    with installation.database.write() as session:
        session.execute(delete(KeptAnswer).where(KeptAnswer.id == key.id, KeptAnswer.status.is_(None)))


def _sealed(key: Key, answer: Answer) -> bytes:
    body = base64.b64encode(answer.body).decode()
    plain = json.dumps({"headers": dict(answer.headers), "body": body}).encode()
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key.secret).encrypt(nonce, plain, key.id)


def _opened(key: Key, status: int, sealed: bytes) -> Answer | None:
    try:
        plain = AESGCM(key.secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.id)
    except InvalidTag:
        return None
    document = json.loads(plain)
    return Answer(status, document["headers"], base64.b64decode(document["body"]))
