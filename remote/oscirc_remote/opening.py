"""Puts the layers of the read path together: from a resolved reference and a cache directory to an image reader.

Call these in the process that reads: threads, connections and locks do not survive a fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oscirc_remote import paths
from oscirc_remote.cache import BLOCK_MEMORY_BYTES, NODE_MEMORY_BYTES, CachedSource
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.image import DEFAULT_DEADLINE_S, ImageReader
from oscirc_remote.local_files import make_directory
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.resolving import Resolved


def open_source(
    urls: Sequence[str],
    cache_directory: Path | None = None,
    *,
    block_memory_bytes: int = BLOCK_MEMORY_BYTES,
    node_memory_bytes: int = NODE_MEMORY_BYTES,
) -> CachedSource:
    """Verified blocks from these base URLs (the preferred one first) through the cache in `cache_directory`."""
    mirrors = MirroredSource([HttpFrameSource(url) for url in urls])
    return CachedSource(
        mirrors,
        make_directory(cache_directory or paths.cache_directory()),
        block_memory_bytes=block_memory_bytes,
        node_memory_bytes=node_memory_bytes,
    )


def open_image(
    resolved: Resolved,
    cache_directory: Path | None = None,
    *,
    deadline_s: float = DEFAULT_DEADLINE_S,
    block_memory_bytes: int = BLOCK_MEMORY_BYTES,
    node_memory_bytes: int = NODE_MEMORY_BYTES,
) -> ImageReader:
    """The reader of a resolved image; `cache_directory` is the user's own unless given. Close it when done."""
    source = open_source(
        resolved.remote.sources(),
        cache_directory,
        block_memory_bytes=block_memory_bytes,
        node_memory_bytes=node_memory_bytes,
    )
    return ImageReader(resolved.manifest, source, deadline_s=deadline_s)
