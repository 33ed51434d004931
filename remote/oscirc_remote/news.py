"""What an image's index says of a version that is in use here: is there a newer one, and was it withdrawn?

The rules:

- To ask is not to resolve: no receipt is written, so that offline a channel still means what was last used of it. But
  what the index says of yanks is noted on the receipts there are, and the index is kept, and both are what counts
  where nobody can be asked.
- "Newer" is what the channel points at now, whatever its label: a channel that was moved back is followed back.
- An image or a publisher that the repository no longer has is withdrawn, as in `resolving`. A version that its
  publisher deleted is not: what is here of it can be used, and the rest fetched for as long as it is served.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import NotFoundError, OscircError, WithdrawnError
from oscirc_blockstore.image_index import MAX_INDEX_BYTES, Deleted, ImageIndex, ImageVersion, Yank, index_target
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_remote.local_files import read_bytes
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.remotes import Remote
from oscirc_remote.session import Session
from oscirc_remote.sources import OpenDocuments


@dataclass(frozen=True, slots=True)
class News:
    """Of one version: what the index calls it ("" for nothing), its yank, and what its channel means instead."""

    label: str
    yanked: Yank | None
    newer: ImageVersion | None
    is_behind: bool = False
    """Whether the newer one was released earlier: the channel was moved back."""
    deleted: Deleted | None = None


def ask(
    remote: Remote,
    publisher: str,
    image: str,
    deadline: Deadline,
    *,
    open_documents: OpenDocuments = HttpDocumentSource,
) -> ImageIndex:
    """The index as the repository signs it now; its yanks are noted on the receipts.

    Raises `WithdrawnError` where the repository no longer has an image that was verified here before, `NotFoundError`
    where nothing is known of one of that name, and what a session raises.
    """
    with Session(remote, open_documents=open_documents, deadline=deadline) as session:
        try:
            index = session.image_index(publisher, image)
        except NotFoundError as error:
            if not _was_here(remote, publisher, image):
                raise
            raise WithdrawnError(
                f"{publisher}/{image} was withdrawn from remote {remote.name}: {error}",
                hint="what was verified here before can be used with --allow-revoked",
            ) from None
        ReceiptBook(remote.directory).learn(index)
    return index


def _was_here(remote: Remote, publisher: str, image: str) -> bool:
    """Whether an image of this name was ever verified here: only that can have been withdrawn."""
    receipts = ReceiptBook(remote.directory).of(publisher, image)
    return kept(remote, publisher, image) is not None or next(iter(receipts), None) is not None


def kept(remote: Remote, publisher: str, image: str) -> ImageIndex | None:
    """The index that was verified here last; None where none was, or it cannot be read."""
    try:
        raw = read_bytes(remote.directory / "indexes" / index_target(publisher, image), MAX_INDEX_BYTES)
        return None if raw is None else image_index.parse(raw, publisher, image)
    except OscircError:
        return None


def judge(index: ImageIndex, digest: Digest, channel: str = "") -> News:
    """What an index says of the version with this manifest, for somebody who follows a channel, or none."""
    at = next((at for at, version in enumerate(index.versions) if version.manifest == digest), None)
    version = None if at is None else index.versions[at]
    gone = next((each for each in index.deleted if each.manifest == digest), None) if version is None else None
    newer = index.version(index.channels[channel]) if channel in index.channels else None
    if newer is not None and newer.manifest == digest:
        newer = None
    return News(
        label=version.label if version else gone.label if gone else "",
        yanked=version.yanked if version else None,
        newer=newer,
        is_behind=newer is not None and at is not None and index.versions.index(newer) < at,
        deleted=gone,
    )
