"""Which two versions are to be compared, with what their image's index says of them: dates, changelogs, yanks.

To compare is not to use: no receipt is written, so that offline a channel still means what was last used of it. A
version that was withdrawn can be compared as well, with a warning. Where the repository cannot be reached, what is
known here is compared, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from oscirc_blockstore.errors import (
    BusyError,
    NotFoundError,
    TransportError,
    TrustError,
    UsageError,
)
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_remote import news, paths, readiness, references
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.references import Reference
from oscirc_remote.remotes import Remote, Remotes
from oscirc_remote.resolving import Resolved, Resolver
from oscirc_remote.session import Session


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its verified manifest, and its entry in the index where a known version has that manifest."""

    resolved: Resolved
    version: ImageVersion | None

    @property
    def name(self) -> str:
        """`REMOTE:PUBLISHER/IMAGE@VERSION`, by its digest where no version is known."""
        label = self.resolved.version_label or f"sha256:{self.resolved.manifest_digest.hex()[:12]}…"
        return f"{self.resolved.remote.name}:{self.resolved.publisher}/{self.resolved.image}@{label}"


@dataclass(slots=True)
class Finder:
    """Finds what references mean; each image's index is asked for once. `tell` is given warnings."""

    tell: Callable[[str], None]
    remotes: Remotes = field(default_factory=Remotes)
    cache_directory: Path = field(default_factory=paths.cache_directory)
    _indexes: dict[tuple[str, str, str], ImageIndex | None] = field(default_factory=dict)

    def pair(self, first: str, second: str | None) -> tuple[Side, Side]:
        """The old and the new version; of one reference alone, what this machine has before it, and it."""
        one = references.parse(first)
        if second is None:
            new = self.side(one)
            return self._before(new), new
        if second.startswith(("@", "#")):
            second = f"{f'{one.remote}:' if one.remote else ''}{one.publisher}/{one.image}{second}"
        return self.side(one), self.side(references.parse(second))

    def side(self, reference: Reference) -> Side:
        """What a reference means now, or as far as is known here."""
        remote = self._remote(reference)
        index = self._index(remote, reference.publisher, reference.image)
        version = None if index is None else _version_in(index, reference)
        digest = reference.digest if version is None else version.manifest
        if digest is None:
            raise NotFoundError(
                f"{reference} was never resolved on this machine", hint="look again with the network at hand"
            )
        exact = Reference(reference.publisher, reference.image, remote.name, digest=digest)
        resolved = Resolver(self.remotes).resolve(exact, allow_revoked=True)
        label = version.label if version else resolved.version_label
        if version is not None and version.yanked is not None:
            self.tell(f"{reference.name}@{label} was yanked by its publisher: {version.yanked.why}")
        return Side(replace(resolved, version_label=label), version)

    def _before(self, new: Side) -> Side:
        """The newest earlier version of which something is here; if there is none, the one before."""
        resolved = new.resolved
        index = self._index(resolved.remote, resolved.publisher, resolved.image)
        versions = list(index.versions) if index is not None else []
        at = next((at for at, each in enumerate(versions) if each.manifest == resolved.manifest_digest), 0)
        earlier = [each for each in reversed(versions[:at]) if each.manifest != resolved.manifest_digest]
        if not earlier:
            raise UsageError(
                f"no version before {new.name} is known", hint="name two versions: oscirc diff OLD-REF NEW-REF"
            )
        book = ReceiptBook(resolved.remote.directory)
        used = {receipt.manifest for receipt in book.of(resolved.publisher, resolved.image)}
        chosen = next((each for each in earlier if each.manifest in used and self._is_here(book, each)), earlier[0])
        return self.side(Reference(resolved.publisher, resolved.image, resolved.remote.name, version=chosen.label))

    def _is_here(self, book: ReceiptBook, version: ImageVersion) -> bool:
        manifest = book.manifest(version.manifest)
        return (
            manifest is not None
            and readiness.look(self.cache_directory, version.manifest, manifest, "").blocks_here > 0
        )

    def _remote(self, reference: Reference) -> Remote:
        if reference.remote:
            return self.remotes.load(reference.remote)

        def refresh(remote: Remote) -> None:
            self._index(remote, reference.publisher, reference.image)

        return self.remotes.find_publisher(reference.publisher, refresh=refresh)

    def _index(self, remote: Remote, publisher: str, image: str) -> ImageIndex | None:
        """As the repository signs it now; where it cannot be asked, as it was verified here last, or None."""
        key = (remote.name, publisher, image)
        if key not in self._indexes:
            try:
                with Session(remote) as session:
                    session.repository_facts()
                    self._indexes[key] = session.image_index(publisher, image)
            except (TransportError, TrustError, BusyError, NotFoundError) as error:
                self._indexes[key] = news.kept(remote, publisher, image)
                if self._indexes[key] is None:
                    raise
                self.tell(f"comparing as far as this machine knows: {error}")
        return self._indexes[key]


def _version_in(index: ImageIndex, reference: Reference) -> ImageVersion | None:
    if reference.digest is not None:
        return next((each for each in reversed(index.versions) if each.manifest == reference.digest), None)
    return index.version(reference.version) if reference.version else index.channel(reference.channel)
