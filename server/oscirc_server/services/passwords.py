"""Passwords of users: argon2id, with the library's own choice of cost, renewed when that choice changes.

A hash takes 64 MiB and some hundredths of a second, so few are made at a time: whoever waits longer than `WAIT_S` is
told to come back. An account without a password, or one that does not exist, costs a hash as well: the time of an
answer says nothing about who is known here.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from oscirc_blockstore.errors import BusyError, UsageError

MIN_CHARS = 10
MAX_CHARS = 256
AT_ONCE = 2
WAIT_S = 10.0

_hasher = PasswordHasher()
_turns = threading.BoundedSemaphore(AT_ONCE)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=WAIT_S):
        raise BusyError("too many are logging in at this moment", hint="try again")
    try:
        yield
    finally:
        _turns.release()


def check(password: str) -> str:
    """The password, if it may be one; `UsageError` else."""
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise UsageError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    return password


def hash_of(password: str) -> str:
    """What is stored of a password."""
    with _turn():
        return _hasher.hash(check(password))


@functools.cache
def _of_nobody() -> str:
    return _hasher.hash("the password of nobody")


def matches(stored: str | None, password: str) -> bool:
    """Whether this is the password; takes as long where there is none."""
    if len(password) > MAX_CHARS:
        return False
    with _turn(), contextlib.suppress(VerificationError, InvalidHashError):
        return _hasher.verify(stored or _of_nobody(), password) and stored is not None
    return False


def is_outdated(stored: str) -> bool:
    """Whether it should be hashed anew, the password being at hand."""
    return _hasher.check_needs_rehash(stored)
