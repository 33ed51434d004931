"""Copies accelerators: the files that make an image start sooner, then the two unsigned documents that list them.

A listing here names only what is here, so it is written anew from what its source says. A file is fetched whole and
compared with its digest before it gets its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import Accelerator, Hint, Listing, hint_path, listing_path
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, TransportError
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.upstream import Upstream


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

    def listing_of(self, manifest: Digest) -> Listing | None:
        """What the source lists for a version; None where it lists nothing that can be read."""

        def judged(raw: bytes) -> Listing:
            listing = accelerators.parse_listing(raw)
            if listing.manifest != manifest:
                raise DocumentRefusedError("the listing is of another disk")
            return listing

        try:
            return self._upstream.document(listing_path(manifest), accelerators.MAX_LISTING_BYTES, judged)
        except IntegrityError as error:
            self.refused.append(f"{listing_path(manifest)}: {error}")
            return None

    def copy(self, manifest: Digest) -> Listing | None:
        """Bring what is listed for a version, and list here what came; None where nothing is listed."""
        listed = self.listing_of(manifest)
        if listed is None:
            return None
        here = replace(listed, accelerators=tuple(each for each in listed.accelerators if self._has(each)))
        self._directory.storage.replace(listing_path(manifest), here.serialise())
        return here

    def copy_hint(self, publisher: str, image: str, here: Mapping[Digest, Listing]) -> None:
        """The hint of an image, reduced to what is `here`; none where the source has none."""

        def judged(raw: bytes) -> Hint:
            hint = accelerators.parse_hint(raw)
            if (hint.publisher, hint.image) != (publisher, image):
                raise DocumentRefusedError("the hint is of another image")
            return hint

        path = hint_path(publisher, image)
        try:
            hint = self._upstream.document(path, accelerators.MAX_HINT_BYTES, judged)
        except IntegrityError as error:
            self.refused.append(f"{path}: {error}")
            return
        if hint is None:
            return
        channels = {
            channel: here[listing.manifest] for channel, listing in hint.channels.items() if listing.manifest in here
        }
        self._directory.storage.replace(path, Hint(publisher, image, channels).serialise())

    def _has(self, accelerator: Accelerator) -> bool:
        """Whether it is here, or came now."""
        storage = self._directory.storage
        if storage.size(accelerator.path) == accelerator.length:
            return True
        with tempfile.TemporaryFile(dir=self._directory.root / "tmp") as file:
            try:
                self._upstream.accelerator(accelerator, file)
            except (TransportError, IntegrityError) as error:
                if isinstance(error, TransportError) and error.retryable:
                    raise
                self.refused.append(f"{accelerator.kind} {accelerator.name}: {error}")
                return False
            storage.replace_from(accelerator.path, file)
        self.copied += 1
        self.copied_bytes += accelerator.length
        self._progressed(accelerator.length)
        return True
