"""What a path of the tree names, as far as it tells itself: the kind, and the digest that its bytes must have. Pure.

Only such paths are fetched on demand; every other one is answered with what is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from oscirc_blockstore.digests import Digest
from oscirc_server.mirroring.frames import digest_of_path
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_of_path


class Kind(Enum):
    """How an object is verified."""

    TIMESTAMP = auto()
    """By a refresh, which verifies everything that it leads to."""
    ROOT = auto()
    """By the chain of roots; `version` says which."""
    ROLE = auto()
    """By the verified snapshot, which states its version; `role` and `version` say which."""
    BLOCK = auto()
    """By its digest, once decoded."""
    DOCUMENT = auto()
    """By its digest: an index, a manifest, a root under its own name."""
    ACCELERATOR = auto()
    """By its digest, once it is here as a whole."""
    LISTING = auto()
    """Unsigned and changing: by its form alone. `digest` is the manifest's."""
    HINT = auto()
    """The same; `role` is the publisher, `image` the image."""


@dataclass(frozen=True, slots=True)
class TreeObject:
    """One path of the tree."""

    path: str
    kind: Kind
    digest: Digest | None = None
    role: str = ""
    image: str = ""
    version: int = 0


_HEX = r"([0-9a-f]{64})"
_DOCUMENT = re.compile(rf"(?:manifests|roots)/{_HEX}\.json|targets/(?:[a-z0-9][a-z0-9.-]*/)?{_HEX}\.[a-z0-9.-]+\.json")
_ACCELERATOR = re.compile(rf"accel/{_HEX}")
_LISTING = re.compile(rf"accel/{_HEX}\.json")
_HINT = re.compile(r"accel/hints/([a-z0-9][a-z0-9.-]{0,62})/([a-z0-9][a-z0-9.-]{0,62})\.json")


def recognise(path: str) -> TreeObject | None:
    """What a path that `is_tree_path` allows names, or None."""
    if path == TIMESTAMP_PATH:
        return TreeObject(path, Kind.TIMESTAMP)
    numbered = role_of_path(path)
    if numbered is not None:
        role, version = numbered
        return TreeObject(path, Kind.ROOT if role == "root" else Kind.ROLE, role=role, version=version)
    if path.startswith("blocks/"):
        digest = digest_of_path(path)
        return None if digest is None else TreeObject(path, Kind.BLOCK, digest)
    for pattern, kind in ((_DOCUMENT, Kind.DOCUMENT), (_ACCELERATOR, Kind.ACCELERATOR), (_LISTING, Kind.LISTING)):
        found = pattern.fullmatch(path)
        if found is not None:
            return TreeObject(path, kind, Digest(bytes.fromhex(found[1] or found[found.lastindex or 1])))
    hint = _HINT.fullmatch(path)
    return None if hint is None else TreeObject(path, Kind.HINT, role=hint[1], image=hint[2])
