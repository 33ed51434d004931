"""Roots from before the pinned one, for readers who pinned an older line: taken as far as they lead to it.

A root is signed by the keys of the one before it, which is what is checked here, backwards. Nobody believes such a root
because this mirror has it: a reader compares the first with the digest in its own line, and follows TUF's chain.
"""

from __future__ import annotations

import logging
from functools import partial

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, OscircError
from oscirc_server.metadata import MAX_ROOT_BYTES, parse, verify
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.publication import put
from oscirc_server.mirroring.upstream import Upstream
from oscirc_server.tree_paths import role_path, root_path
from oscirc_server.tuf_api import Metadata, Root

_log = logging.getLogger(__name__)


def copy(directory: MirrorDirectory, upstream: Upstream) -> int:
    """Store those that are lacking, from the pinned one back; returns how many came. What cannot be had is left out."""
    later = parse(directory.remote.root(), Root, "the pinned root")
    copied = 0
    while later.signed.version > 1:
        version = later.signed.version - 1
        path = role_path("root", version)
        raw = directory.storage.get(path, MAX_ROOT_BYTES)
        try:
            root = None if raw is None else _leading_to(raw, later)
        except OscircError:
            root = None
        if root is None:
            try:
                raw = upstream.document(path, MAX_ROOT_BYTES, partial(_judged, later))
            except OscircError as error:
                _log.warning("an older root was not copied", extra={"version": version, "error": str(error)})
                break
            if raw is None:
                break
            put(directory.storage, root_path(digest_of(raw)), raw)
            put(directory.storage, path, raw)
            root = parse(raw, Root, "a root")
            copied += 1
        later = root
    return copied


def _judged(later: Metadata[Root], raw: bytes) -> bytes:
    _leading_to(raw, later)
    return raw


def _leading_to(raw: bytes, later: Metadata[Root]) -> Metadata[Root]:
    """The root in `raw`, when it is the one before `later`."""
    root = parse(raw, Root, "a root")
    if root.signed.version != later.signed.version - 1:
        raise DocumentRefusedError(f"a root says that it has version {root.signed.version}")
    verify(root.signed, Root.type, root, "a root")
    verify(root.signed, Root.type, later, "the root after it")
    return root
