"""A mirror's directory: the tree that is served, what it trusts, and what it remembers.

    tree/    the URL tree: what a web server is pointed at       tmp/    files being written, on the same file system
    trust/   a remote, as a workstation has it: the pinned root and TUF's state
    state/   which versions are complete, what is to go          sync.lock, publish.lock

Two syncs never run at once (`only_sync`). A sync and a server that fetches on demand may: metadata is written under
`publishing`, blocks under names that can hold one content only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError, LocalError, NotFoundError, StoreFullError, UsageError
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.remotes import Remote, Remotes
from oscirc_remote.sources import OpenDocuments
from oscirc_server.storage import DirectoryStorage

REMOTE = "upstream"
_PUBLISH_WAIT_S = 60.0


class MirrorDirectory:
    """A directory that is a mirror of `remote`, read from `sources`: its address, and those given beside it."""

    def __init__(self, root: Path, remote: Remote) -> None:
        self.root = root
        self.remote = remote
        self.tree = root / "tree"
        self.storage = DirectoryStorage(self.tree, root / "tmp")
        self._complete = root / "state" / "complete"
        try:
            self._complete.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make {self._complete}: {error.strerror}") from None

    @classmethod
    def open(
        cls, root: Path, line: str, others: Sequence[str] = (), *, open_documents: OpenDocuments = HttpDocumentSource
    ) -> MirrorDirectory:
        """Make `root` a mirror of what `line` names, or go on with one that is; `others` may serve the same."""
        remotes = Remotes(root / "trust")
        try:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make {root}: {error.strerror}") from None
        if not (remotes.base / REMOTE / "remote.json").exists() and (root / "oscirc.db").exists():
            raise UsageError(
                f"{root} is the data directory of a server", hint="choose another directory for the mirror"
            )
        try:
            remotes.add(REMOTE, line, open_documents=open_documents)
        except UsageError as error:
            with contextlib.suppress(NotFoundError):
                present = remotes.load(REMOTE)
                raise UsageError(
                    f"{root} is a mirror of {present.line}",
                    hint="choose another directory; for a new address of the same repository: --from URL",
                ) from None
            raise error from None
        return cls(root, remotes.set_mirrors(REMOTE, tuple(others)))

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it is read from. Not what the repository names: this mirror may be among that."""
        return tuple(dict.fromkeys((self.remote.url, *self.remote.own_mirrors)))

    @contextlib.contextmanager
    def only_sync(self) -> Iterator[None]:
        """Be the one sync, or `BusyError` at once."""
        with _locked(self.root / "sync.lock", 0, f"another sync of {self.root} is running"):
            yield

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        """Be the one who writes metadata."""
        with _locked(
            self.root / "publish.lock", _PUBLISH_WAIT_S, f"another process writes the metadata of {self.root}"
        ):
            yield

    @contextlib.contextmanager
    def scratch_file(self, size_bytes: int) -> Iterator[IO[bytes]]:
        """A file without a name on the tree's file system, with room for that much; `StoreFullError` without."""
        try:
            with tempfile.TemporaryFile(dir=self.root / "tmp") as file:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
                yield file
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreFullError(
                    f"no space left in {self.root} for {size_bytes} bytes", hint="free space on that disk"
                ) from None
            raise LocalError(f"cannot write in {self.root}: {error.strerror}") from None

    @property
    def condemned_file(self) -> Path:
        """What nothing named at the last look, and since when."""
        return self.root / "state" / "condemned"

    @property
    def under_way_file(self) -> Path:
        """Stands while a sync runs: what a power cut left is verified by the next."""
        return self.root / "state" / "under-way"

    def is_complete(self, manifest: Digest) -> bool:
        """Whether a sync has stored every block of a version."""
        return (self._complete / manifest.hex()).exists()

    def complete_versions(self) -> int:
        """How many versions a sync has stored."""
        return sum(1 for _ in self._complete.iterdir())

    def note_complete(self, manifest: Digest) -> None:
        """A sync has."""
        (self._complete / manifest.hex()).touch()

    def forget_complete(self, manifest: Digest | None = None) -> None:
        """Blocks of it (None: of any version) were removed: look again."""
        for path in self._complete.iterdir() if manifest is None else (self._complete / manifest.hex(),):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, wait_s: float, problem: str) -> Iterator[None]:
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise BusyError(problem, hint="wait until it has ended") from None
    except OSError as error:
        raise LocalError(f"cannot lock {path}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
