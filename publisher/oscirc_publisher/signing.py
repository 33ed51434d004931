"""A publisher's keys on this workstation, and what was signed with them.

Layout of the directory (`$XDG_DATA_HOME/oscirc/keys`, mode 0700): `NAME.pem` the private key, encrypted, mode 0600;
`NAME.pub` the public key, to be given to administrators; `NAME.json` the memory: for each repository and publisher
name the highest role version that this key is known to have signed. The memory only ever grows. It is what makes a
server that rolls back visible, so it is written when a role was accepted or seen served, never before.

A key file never leaves this module except as a `PublisherKey`; a public key goes out by `export`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from filelock import FileLock, Timeout

from oscirc_blockstore import canonical, keys
from oscirc_blockstore.errors import (
    BusyError,
    DocumentRefusedError,
    LocalError,
    NotFoundError,
    UsageError,
)
from oscirc_blockstore.names import check_local_name
from oscirc_remote.paths import data_directory

_MAX_MEMORY_BYTES = 1 << 20
_MEMORY_FORMAT = "oscirc-key-memory-1"
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What may be shown of a key."""

    name: str
    fingerprint: str


class PublisherKey:
    """A loaded private key and its memory."""

    def __init__(self, name: str, private: Ed25519PrivateKey, memory: Path) -> None:
        self.name = name
        self.private = private
        self._memory = memory

    @property
    def public(self) -> Ed25519PublicKey:
        """The public half."""
        return self.private.public_key()

    @property
    def fingerprint(self) -> str:
        """What two people compare."""
        return keys.fingerprint(self.public)

    def remembered(self, repository: str, publisher: str) -> int:
        """The highest role version known to be signed for this publisher in this repository; 0 for none."""
        return _read_memory(self._memory).get(_memory_key(repository, publisher), 0)

    def repositories(self, publisher: str) -> Sequence[str]:
        """Where this key is known to have signed as this publisher, sorted."""
        entries = (entry.rpartition(" ") for entry in _read_memory(self._memory))
        return sorted(repository for repository, _, name in entries if name == publisher)

    def remember(self, repository: str, publisher: str, version: int) -> None:
        """Never lowers what is remembered."""
        with _locked(self._memory):
            memory = dict(_read_memory(self._memory))
            entry = _memory_key(repository, publisher)
            if memory.get(entry, 0) < version:
                memory[entry] = version
                _write(self._memory, canonical.serialise({"format": _MEMORY_FORMAT, "signed": dict(memory)}))


class KeyRing:
    """The keys in a directory; by default this user's."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or data_directory() / "keys"

    def create(self, name: str, passphrase: str) -> PublisherKey:
        """A new key pair; raises `UsageError` when the name is taken or the passphrase empty."""
        if not passphrase:
            raise UsageError("a publisher key needs a passphrase")
        private_path = self._path(name, "pem")
        key = keys.generate()
        self._make_directory()
        try:
            _write_new(private_path, keys.private_pem(key, passphrase))
        except FileExistsError:
            raise UsageError(f"there is a key {name} already", hint="choose another name") from None
        except OSError as error:
            raise LocalError(f"cannot write {private_path}: {error.strerror}") from None
        _write(self._path(name, "pub"), keys.public_pem(key.public_key()), mode=0o644)
        return PublisherKey(name, key, self._path(name, "json"))

    def load(self, name: str, passphrase: str | None) -> PublisherKey:
        """The key; raises `NotFoundError` that lists the names there are, `UsageError` for a wrong passphrase."""
        private = keys.load_private(self._read(name, "pem"), passphrase, f"the key {name}")
        return PublisherKey(name, private, self._path(name, "json"))

    def export(self, name: str) -> bytes:
        """The public key as PEM: what an administrator is given."""
        return self._read(name, "pub")

    def show(self, name: str) -> KeyFacts:
        """Name and fingerprint, without a passphrase."""
        return KeyFacts(name, keys.fingerprint(keys.load_public(self._read(name, "pub"), f"the key {name}")))

    def names(self) -> Sequence[str]:
        """The keys there are, sorted."""
        return sorted(path.stem for path in self.directory.glob("*.pem"))

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make {self.directory}: {error.strerror}") from None

    def _path(self, name: str, suffix: str) -> Path:
        return self.directory / f"{check_local_name(name, 'key')}.{suffix}"

    def _read(self, name: str, suffix: str) -> bytes:
        path = self._path(name, suffix)
        try:
            with path.open("rb") as file:
                return file.read(keys.MAX_KEY_BYTES)
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none yet; make one with: oscirc key create"
            raise NotFoundError(f"there is no key {name}", hint=f"keys: {known}") from None
        except OSError as error:
            raise LocalError(f"cannot read {path}: {error.strerror}") from None


def _memory_key(repository: str, publisher: str) -> str:
    return f"{repository} {publisher}"


def _read_memory(path: Path) -> Mapping[str, int]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    try:
        signed = canonical.parse(raw, _MAX_MEMORY_BYTES, str(path)).get("signed")
    except DocumentRefusedError:
        signed = None
    if not isinstance(signed, dict) or not all(isinstance(value, int) and value >= 0 for value in signed.values()):
        raise LocalError(
            f"{path} is damaged, so a rolled-back server could not be noticed",
            hint="restore it from a backup, or remove it if you trust what the server serves now",
        )
    return signed


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise BusyError(f"{path} is held by another process") from None
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


def _write_new(path: Path, raw: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, raw: bytes, mode: int = 0o600) -> None:
    """All of it or nothing, and on the disk before it is said."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        _write_new(temporary, raw)
        temporary.chmod(mode)
        temporary.rename(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None
