"""Reads that go past this process: where a file of the tree can be had from the bucket or a CDN itself.

Only what never changes is redirected (307), so that no cache can keep an older timestamp between a reader and this
server: blocks, manifests and accelerators, which are nearly all bytes. Everything signed stays here. A question with a
query (`?bad=<digest>`, past a cache that lies) and a HEAD are answered here, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore.errors import DocumentRefusedError, UsageError
from oscirc_blockstore.repository_facts import check_url
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import IMMUTABLE, cache_control

SIGNED = "signed"
LIFETIME_S = 3600  # a bundle of a gigabyte takes that long on a slow line

_TOPS = ("blocks/", "manifests/", "accel/")
_A_PATH = "blocks/sha256/00/" + 64 * "0" + ".zst"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a file is, and for how long caches may remember that."""

    url: str
    cache_control: str


class DirectReads:
    """`base_url` None: a URL that the store signs for each file."""

    def __init__(self, storage: Storage, base_url: str | None) -> None:
        self._storage = storage
        self._base_url = base_url

    @classmethod
    def parse(cls, storage: Storage, text: str | None) -> DirectReads | None:
        """None for nothing, `signed`, or the URL below which the tree's paths stand; else `UsageError`."""
        if text is None:
            return None
        if text == SIGNED:
            if storage.signed_url(_A_PATH, LIFETIME_S) is None:
                raise UsageError("this block storage signs no URLs", hint="signed URLs need --blocks s3://…")
            return cls(storage, None)
        try:
            return cls(storage, check_url(text, "the address for direct reads"))
        except DocumentRefusedError as error:
            raise UsageError(str(error), hint=f"write {SIGNED}, or the public URL of the bucket or CDN") from None

    def elsewhere(self, path: str) -> Elsewhere | None:
        """Where a tree path may be read instead, or None when here alone."""
        if not path.startswith(_TOPS) or cache_control(path) != IMMUTABLE:
            return None
        if self._base_url is not None:
            return Elsewhere(f"{self._base_url}/{path}", "public, max-age=3600")
        url = self._storage.signed_url(path, LIFETIME_S)
        return None if url is None else Elsewhere(url, "no-store")
