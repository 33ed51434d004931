"""A session with a repository: authority and freshness through TUF, from whichever source can give them.

The rules:

1. One session at a time works on a remote's directory: it holds `session.lock` from start to end.
2. One refresh uses one source. The repository itself comes first, then its mirrors; each is asked once a session.
3. A source that is unreachable, stale, older than what was seen, or that offers what does not verify, is passed over
   with a note. What was seen is raised only when no source is left: a rollback when all of them are old, else what the
   first of them did.
4. Nothing is read from a target before python-tuf has verified it. An image index that forgets or changes a version
   which an earlier one released is refused even though it is signed: as long as the name is delegated to a key that it
   was delegated to then. Other keys throughout are another authority, put there by the repository's offline keys after
   a theft; what the thief released would else bind every client that saw it for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from filelock import FileLock, Timeout

from oscirc_blockstore import image_index, repository_facts
from oscirc_blockstore.errors import (
    BusyError,
    DocumentRefusedError,
    IntegrityError,
    NotFoundError,
    OscircError,
    RollbackError,
    TransportError,
    TrustError,
)
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, ImageIndex, index_target
from oscirc_blockstore.repository_facts import RepositoryFacts
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.local_files import read_bytes, write_atomically
from oscirc_remote.remotes import Remote
from oscirc_remote.sources import DocumentSource, OpenDocuments

if TYPE_CHECKING:
    from oscirc_remote.updating import TopLevel, Update

SESSION_S = 30.0
NOT_USED = "nothing of it was used; another mirror may have the right one, else tell the repository's operator"
_MAX_KEYS_BYTES = 64 * 1024
SHARE_S = 6.0  # what one source may cost while another is left

T = TypeVar("T")


def utc_now() -> datetime:
    """The clock that expiry dates are told by."""
    return datetime.now(UTC)


class Session:
    """Use as a context manager, in one thread. Every answer is verified; errors are those of the docstring above.

    `sources` are asked instead of those that the remote names.
    """

    def __init__(
        self,
        remote: Remote,
        *,
        open_documents: OpenDocuments = HttpDocumentSource,
        deadline: Deadline | None = None,
        now: Callable[[], datetime] = utc_now,
        sources: Sequence[str] | None = None,
    ) -> None:
        self.remote = remote
        self._open_documents = open_documents
        self._deadline = deadline or Deadline.after(SESSION_S)
        self._now = now
        self._lock = FileLock(remote.directory / "session.lock", mode=0o600)
        self._sources = remote.sources() if sources is None else tuple(sources)
        self._left = list(self._sources)
        self._documents: dict[str, DocumentSource] = {}
        self._update: Update | None = None
        self._refused: list[tuple[str, OscircError]] = []
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=self._deadline.remaining_s())
        except Timeout:
            raise BusyError(
                f"another oscirc is refreshing remote {self.remote.name}", hint="try again in a moment"
            ) from None
        except OSError as error:
            raise BusyError(f"cannot lock remote {self.remote.name}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for documents in self._documents.values():
            documents.close()
        self._lock.release()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, one line each."""
        return (*(str(error) for _, error in self._refused), *self._notes)

    def refresh(self) -> None:
        """Bring the repository's state up to date through the first source that can."""
        self._ask(lambda _: None)

    def signed_roles(self) -> tuple[bytes, bytes]:
        """The root and the targets role in force, as they were signed."""
        return self._ask(lambda update: (update.signed_role("root"), update.signed_role("targets")))

    def top_level(self) -> TopLevel:
        """The verified metadata above the publishers' roles, as signed."""
        return self._ask(lambda update: update.top_level())

    def publishers(self) -> frozenset[str]:
        """The publishers that the repository delegates to now."""
        return self._ask(lambda update: update.publishers())

    def repository_facts(self) -> RepositoryFacts | None:
        """What the repository says of itself, kept for `Remote.facts`; None when it says nothing that can be read.

        That is a convenience: what is wrong with it is noted, and no reason to leave a source.
        """
        update = self._ask(lambda update: update)
        try:
            raw = update.target(repository_facts.TARGET, repository_facts.MAX_BYTES)
            facts = None if raw is None else repository_facts.parse(raw)
        except (TransportError, TrustError, IntegrityError) as error:
            self._notes.append(f"{repository_facts.TARGET}: {error}")
            return None
        if raw is not None and read_bytes(self.remote.directory / repository_facts.TARGET) != raw:
            write_atomically(self.remote.directory / repository_facts.TARGET, raw)
        return facts

    def image_index(self, publisher: str, image: str) -> ImageIndex:
        """The image's index; raises `NotFoundError` for a publisher or image that the repository does not have."""
        target = index_target(publisher, image)
        raw, keys = self._ask(
            lambda update: (_find(update, self.remote.name, publisher, target), update.keys_of(publisher))
        )
        try:
            index = image_index.parse(raw, publisher, image)
        except DocumentRefusedError as error:
            raise DocumentRefusedError(
                f"the index that publisher {publisher} signed for {publisher}/{image} is refused: {error}",
                hint="ask the publisher what happened, or see whether a newer oscirc reads it",
            ) from None
        self._keep(publisher, image, index, raw, keys)
        return index

    def _keep(self, publisher: str, image: str, index: ImageIndex, raw: bytes, keys: frozenset[str]) -> None:
        """Remember the index and whose it is; rule 4 of the docstring above."""
        kept = self.remote.directory / "indexes" / index_target(publisher, image)
        whose = kept.with_suffix(".keys")
        previous = read_bytes(kept, MAX_INDEX_BYTES)
        known = (read_bytes(whose, _MAX_KEYS_BYTES) or b"").decode("ascii", "replace").split()
        if previous is not None and previous != raw:
            try:
                _check_successor(image_index.parse(previous, publisher, image), index)
            except DocumentRefusedError as error:
                if not known or not keys.isdisjoint(known):
                    raise
                self._notes.append(f"{publisher} has other keys since this was last looked at, and {error}")
        if previous != raw:
            write_atomically(kept, raw)
        if frozenset(known) != keys:
            write_atomically(whose, "\n".join(sorted(keys)).encode())

    def expires(self, *publishers: str) -> datetime:
        """When what this session verified stops to be fresh."""
        return self._ask(lambda update: update.expires(*publishers))

    def fetch_document(self, path: str, max_bytes: int, accept: Callable[[bytes], T]) -> T:
        """What `accept` makes of a document that its digest names: from any source whose bytes it accepts."""
        problem: OscircError = NotFoundError(f"remote {self.remote.name} has no source")
        for url in self._sources:
            try:
                return accept(self._open(url).fetch_document(path, max_bytes, self._share(others=True)))
            except TransportError as error:
                problem = error
            except IntegrityError as error:
                problem = type(error)(f"{url} offers a wrong {path}: {error}", hint=NOT_USED)
        raise problem

    def _ask(self, question: Callable[[Update], T]) -> T:
        while True:
            update = self._update or self._next_update()
            try:
                return question(update)
            except (TransportError, TrustError, IntegrityError) as error:
                self._refused.append((update.source, error))
                self._update = None

    def _next_update(self) -> Update:
        from oscirc_remote.updating import Update  # noqa: PLC0415  # loads python-tuf: only when a session needs it

        while self._left:
            url = self._left.pop(0)
            try:
                documents, share = self._open(url), self._share(others=bool(self._left))
                update = Update(self.remote.directory, self.remote.root(), documents, share, self._now)
                update.refresh()
            except (TransportError, TrustError, IntegrityError) as error:
                self._refused.append((url, error))
            else:
                self._update = update
                return update
        raise self._final_error()

    def _open(self, url: str) -> DocumentSource:
        documents = self._documents.get(url)
        if documents is None:
            documents = self._documents[url] = self._open_documents(url)
        return documents

    def _share(self, *, others: bool) -> Deadline:
        return self._deadline.at_most(SHARE_S) if others else self._deadline

    def _final_error(self) -> OscircError:
        """Rule 3: what to say when no source is left."""
        (_, first), *others = self._refused
        if not others:
            return first
        told = "; ".join(f"{url}: {error}" for url, error in others)
        if all(isinstance(error, RollbackError) for _, error in self._refused):
            return RollbackError(f"every source is older than what was seen here: {first}; {told}", hint=first.hint)
        first.args = (f"{first} (other sources: {told})",)
        return first


def _find(update: Update, remote: str, publisher: str, target: str) -> bytes:
    if publisher not in update.publishers():
        known = ", ".join(sorted(update.publishers())) or "none yet"
        raise NotFoundError(f"remote {remote} has no publisher {publisher!r}", hint=f"publishers: {known}")
    if not update.has_released(publisher):
        raise NotFoundError(f"publisher {publisher} of remote {remote} has released nothing yet")
    raw = update.target(target, MAX_INDEX_BYTES)
    if raw is None:
        names = ", ".join(
            name.removeprefix(f"{publisher}/").removesuffix(".json") for name in update.targets_of(publisher)
        )
        raise NotFoundError(
            f"remote {remote} has no image {target.removesuffix('.json')}", hint=f"images: {names or 'none'}"
        )
    return raw


def _check_successor(previous: ImageIndex, index: ImageIndex) -> None:
    try:
        image_index.check_successor(previous, index)
    except DocumentRefusedError as error:
        raise DocumentRefusedError(
            f"{index.publisher}/{index.image}: {error}",
            hint="a release is for ever: ask the publisher what happened; versions verified here before still boot",
        ) from None
