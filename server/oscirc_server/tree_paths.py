"""The URL tree in rules: which paths can exist, and with which headers each is served.

Everything is immutable except `metadata/timestamp.json` and the unsigned documents that list accelerators
(`accel/<manifest>.json`, `accel/hints/<publisher>/<image>.json`). A path is lower-case names of a small alphabet, none
of which starts with a dot: nothing that a file system, a URL or a shell treats specially gets past `is_tree_path`.
"""

from __future__ import annotations

import re

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.image_index import index_target
from oscirc_blockstore.names import check_publisher

TIMESTAMP_PATH = "metadata/timestamp.json"
IMMUTABLE = "public, max-age=31536000, immutable"
CHANGING = "no-cache"
TOP = ("metadata", "targets", "roots", "manifests", "blocks", "accel")

_PATH = re.compile(rf"(?:{'|'.join(TOP)})(?:/[a-z0-9][a-z0-9.+_-]{{0,190}}){{1,4}}")
_CHANGING = re.compile(r"metadata/timestamp\.json|accel/.+\.json")
_VERSIONED = re.compile(r"metadata/([1-9][0-9]{0,11})\.([a-z0-9][a-z0-9.-]*)\.json")


def is_tree_path(path: str) -> bool:
    """Whether a URL path (decoded, without the leading slash) may name a file of the tree."""
    return _PATH.fullmatch(path) is not None


def content_type(path: str) -> str:
    """The media type; frames are `application/zstd` and never Content-Encoding, so that no proxy unpacks them."""
    if path.endswith(".zst"):
        return "application/zstd"
    return "application/json" if path.endswith(".json") else "application/octet-stream"


def cache_control(path: str) -> str:
    """For how long anybody may keep the file."""
    return CHANGING if _CHANGING.fullmatch(path) else IMMUTABLE


def role_path(role: str, version: int) -> str:
    """Where one version of a role stands (consistent snapshots: all but the timestamp are numbered)."""
    return TIMESTAMP_PATH if role == "timestamp" else f"metadata/{version}.{role}.json"


def role_of_path(path: str) -> tuple[str, int] | None:
    """(role, version) of a numbered metadata file, or None for any other path."""
    match = _VERSIONED.fullmatch(path)
    return (match[2], int(match[1])) if match else None


def root_path(digest: Digest) -> str:
    """Where a root stands under its digest, for remotes whose URL carries it."""
    return f"roots/{digest.hex()}.json"


def target_path(target: str, digest: Digest) -> str:
    """Where a TUF target stands: consistent snapshots prefix the file's name with its digest."""
    directory, slash, name = target.rpartition("/")
    return f"targets/{directory}{slash}{digest.hex()}.{name}"


def index_path(publisher: str, image: str, digest: Digest) -> str:
    """Where an image index stands."""
    return target_path(index_target(check_publisher(publisher), image), digest)
