"""One refresh through one source: python-tuf's `Updater` over our bounded documents.

Imported when a session asks for it and not before: python-tuf and cryptography take a while to load. Only one
`Updater` may use a directory at a time; the session holds the lock.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar

from tuf.api import exceptions
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NotServedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
)
from oscirc_remote.deadlines import Deadline
from oscirc_remote.local_files import make_directory
from oscirc_remote.refusals import expiry, translate
from oscirc_remote.sources import DocumentSource

TOP_LEVEL_ROLES = ("root", "timestamp", "snapshot", "targets")
_MAX_DELEGATIONS = 1  # the top-level targets and one publisher: publishers delegate to nobody
_NOT_FOUND = 404

T = TypeVar("T")


class _Fetcher(FetcherInterface):
    """python-tuf's view of a `DocumentSource`; keeps the last answers for the words of a refusal."""

    def __init__(self, documents: DocumentSource, deadline: Deadline) -> None:
        self._documents = documents
        self._deadline = deadline
        self.last: dict[str, bytes] = {}

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("downloads are bounded: see download_file")

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """The answer as a file; every failure is one of python-tuf's `DownloadError`s, caused by one of ours."""
        try:
            raw = self._documents.fetch_document(url, max_length, self._deadline)
        except NotServedError as error:
            raise exceptions.DownloadHTTPError(str(error), _NOT_FOUND) from error
        except ServerRefusedError as error:
            raise exceptions.DownloadHTTPError(str(error), error.status) from error
        except OversizedResponseError as error:
            raise exceptions.DownloadLengthMismatchError(str(error)) from error
        except OscircError as error:
            raise exceptions.DownloadError(str(error)) from error
        if url.startswith("metadata/"):
            self.last[url.rsplit("/", 1)[-1]] = raw
        with io.BytesIO(raw) as file:
            yield file


@dataclass(frozen=True, slots=True)
class TopLevel:
    """Verified metadata as signed; `roots` from the pinned one on, the one in force last."""

    roots: tuple[bytes, ...]
    timestamp: bytes
    snapshot: bytes
    targets: bytes


class Update:
    """The verified state of a repository after `refresh` through one source. Errors are those of our tree."""

    def __init__(
        self, directory: Path, root: bytes, documents: DocumentSource, deadline: Deadline, now: Callable[[], datetime]
    ) -> None:
        self.source = documents.name
        self._metadata = make_directory(directory / "tuf")
        self._now = now
        self._fetcher = _Fetcher(documents, deadline)
        self._updater: Updater = self._translated(
            lambda: Updater(
                metadata_dir=str(self._metadata),
                metadata_base_url="metadata/",
                target_dir=str(make_directory(directory / "targets")),
                target_base_url="targets/",
                fetcher=self._fetcher,
                config=UpdaterConfig(max_delegations=_MAX_DELEGATIONS),
                bootstrap=root,
            )
        )

    def refresh(self) -> None:
        """Bring root, timestamp, snapshot and targets up to date; once."""
        self._translated(self._updater.refresh)

    def top_level(self) -> TopLevel:
        """What `refresh` verified, as python-tuf keeps it."""
        found = {int(path.name.split(".")[0]): path for path in (self._metadata / "root_history").glob("*.root.json")}
        newest = int(json.loads(self._held("root") or b"")["signed"]["version"])
        roots = tuple(found[version].read_bytes() for version in sorted(found) if version <= newest)
        timestamp, snapshot, targets = (self._held(role) or b"" for role in TOP_LEVEL_ROLES[1:])
        return TopLevel(roots, timestamp, snapshot, targets)

    def target(self, path: str, max_bytes: int) -> bytes | None:
        """The verified bytes of a target, None when nobody who may has signed one of that name."""
        return self._translated(lambda: self._target(path, max_bytes))

    def _target(self, path: str, max_bytes: int) -> bytes | None:
        info = self._updater.get_targetinfo(path)
        if info is None:
            return None
        if info.length > max_bytes:
            raise DocumentRefusedError(f"{path} is signed with a length of {info.length}; {max_bytes} are allowed")
        file = self._updater.find_cached_target(info) or self._updater.download_target(info)
        return Path(file).read_bytes()

    def publishers(self) -> frozenset[str]:
        """The publishers that the repository delegates to."""
        delegations = self._signed("targets").get("delegations")
        roles = delegations.get("roles", []) if isinstance(delegations, dict) else []
        return frozenset(role["name"] for role in roles)

    def keys_of(self, publisher: str) -> frozenset[str]:
        """The ids of the keys that a publisher's name is delegated to."""
        delegations = self._signed("targets").get("delegations")
        roles = delegations.get("roles", []) if isinstance(delegations, dict) else []
        return frozenset(keyid for role in roles if role["name"] == publisher for keyid in role["keyids"])

    def signed_role(self, role: str) -> bytes:
        """A top-level role's metadata, which python-tuf keeps only after verifying it."""
        return self._held(role) or b""

    def has_released(self, publisher: str) -> bool:
        """Whether the snapshot names a role of this publisher."""
        meta = self._signed("snapshot").get("meta")
        return isinstance(meta, dict) and f"{publisher}.json" in meta

    def targets_of(self, publisher: str) -> tuple[str, ...]:
        """The targets in the publisher's role that was verified last."""
        targets = self._signed(publisher).get("targets")
        return tuple(sorted(targets)) if isinstance(targets, dict) else ()

    def expires(self, *publishers: str) -> datetime:
        """When the first of the roles expires that this state rests on."""
        dates = [expiry(self._held(role)) for role in (*TOP_LEVEL_ROLES, *publishers)]
        return min(date for date in dates if date is not None)

    def _signed(self, role: str) -> dict[str, object]:
        """The signed part of a role as python-tuf keeps it, which it does only after verifying it."""
        signed = json.loads(self._held(role) or b"{}").get("signed", {})
        return signed if isinstance(signed, dict) else {}

    def _held(self, role: str) -> bytes | None:
        file = self._metadata / f"{role}.json"
        return file.read_bytes() if file.is_file() else None

    def _offered(self, role: str) -> bytes | None:
        name = f"{role}.json"
        found = [raw for key, raw in self._fetcher.last.items() if key == name or key.partition(".")[2] == name]
        return found[-1] if found else None

    def _translated(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as error:
            raise translate(error, self.source, offered=self._offered, held=self._held, now=self._now()) from error
