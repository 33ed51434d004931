"""Copies accelerators: the files that make an image start sooner, then the two unsigned documents that list them.

A listing here names only what is here, so it is written anew from what its source says. A file is fetched whole, no
longer than one of its kind can be for that disk, and compared with its digest before it gets its name. What cannot be
had of all this is a note: nobody needs it. When no source answers any more, the rest is left to the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import Accelerator, Hint, Listing, hint_path, listing_path
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, OscircError, TransportError
from oscirc_blockstore.manifest import Manifest
from oscirc_server.accelerator_bounds import limit_bytes
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.upstream import Upstream

T = TypeVar("T")


class AcceleratorCopier:
    """One for a run; counts what came. `progressed` is told bytes."""

    def __init__(
        self, directory: MirrorDirectory, upstream: Upstream, progressed: Callable[[int], object] = lambda _: None
    ) -> None:
        self._directory = directory
        self._upstream = upstream
        self._progressed = progressed
        self.copied = 0
        self.copied_bytes = 0
        self.refused: list[str] = []
        self._gave_up = False

    def listing_of(self, manifest: Digest) -> Listing | None:
        """What the source lists for a version; None where it lists nothing that can be read."""

        def judged(raw: bytes) -> Listing:
            listing = accelerators.parse_listing(raw)
            if listing.manifest != manifest:
                raise DocumentRefusedError("the listing is of another disk")
            return listing

        return self._document(listing_path(manifest), accelerators.MAX_LISTING_BYTES, judged)

    def _document(self, path: str, max_bytes: int, judged: Callable[[bytes], T]) -> T | None:
        """The document, or None where there is none that can be had."""
        if self._gave_up:
            return None
        try:
            return self._upstream.document(path, max_bytes, judged)
        except (TransportError, IntegrityError) as error:
            self._note(path, error)
            return None

    def _note(self, what: str, error: OscircError) -> None:
        self._upstream.check_wanted()
        self.refused.append(f"{what}: {error}")
        self._gave_up = isinstance(error, TransportError) and error.retryable

    def copy(self, digest: Digest, manifest: Manifest) -> Listing | None:
        """Bring what is listed for a version, and list here what came; None where nothing is listed."""
        listed = self.listing_of(digest)
        if listed is None:
            return None
        here = replace(listed, accelerators=tuple(each for each in listed.accelerators if self._has(manifest, each)))
        self._directory.storage.replace(listing_path(digest), here.serialise())
        return here

    def copy_hint(self, publisher: str, image: str, here: Mapping[Digest, Listing]) -> None:
        """The hint of an image, reduced to what is `here`; none where the source has none."""

        def judged(raw: bytes) -> Hint:
            hint = accelerators.parse_hint(raw)
            if (hint.publisher, hint.image) != (publisher, image):
                raise DocumentRefusedError("the hint is of another image")
            return hint

        path = hint_path(publisher, image)
        hint = self._document(path, accelerators.MAX_HINT_BYTES, judged)
        if hint is None:
            return
        channels = {
            channel: here[listing.manifest] for channel, listing in hint.channels.items() if listing.manifest in here
        }
        self._directory.storage.replace(path, Hint(publisher, image, channels).serialise())

    def _has(self, manifest: Manifest, accelerator: Accelerator) -> bool:
        """Whether it is here, or came now."""
        storage = self._directory.storage
        if storage.size(accelerator.path) == accelerator.length:
            return True
        what = f"{accelerator.kind} {accelerator.name} of {manifest.publisher}/{manifest.image}"
        if accelerator.length > limit_bytes(manifest, accelerator.kind):
            self._note(what, DocumentRefusedError("it is longer than one of that disk can be"))
        if self._gave_up or accelerator.length > limit_bytes(manifest, accelerator.kind):
            return False
        with self._directory.scratch_file(accelerator.length) as file:
            try:
                self._upstream.accelerator(accelerator, file)
            except (TransportError, IntegrityError) as error:
                self._note(what, error)
                return False
            storage.replace_from(accelerator.path, file)
        self.copied += 1
        self.copied_bytes += accelerator.length
        self._progressed(accelerator.length)
        return True
