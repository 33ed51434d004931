"""Where signed metadata may be had from when the store lost it: a mirror, a copy of the tree, a reader's own state.

Each gives bytes by their path in the tree, bounded and unverified; None where it has nothing. A reader keeps the
newest version of each role that it looked at, under names of its own (`oscirc_remote`, ADR 5): this module knows both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, NotServedError, UsageError
from oscirc_blockstore.repository_facts import check_url
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpDocumentSource
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_of_path

_PATIENCE_S = 60.0


class Elsewhere(Protocol):
    """The seam."""

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """The file at a path of the tree, at most one byte more than `max_bytes`."""

    def close(self) -> None:
        """Drop connections."""


class MirrorElsewhere:
    """A mirror by its URL."""

    def __init__(self, url: str) -> None:
        self._documents = HttpDocumentSource(url)

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See `Elsewhere`."""
        try:
            return self._documents.fetch_document(path, max_bytes, Deadline.after(_PATIENCE_S))
        except NotServedError:
            return None

    def close(self) -> None:
        """See `Elsewhere`."""
        self._documents.close()


class TreeElsewhere:
    """A copy of the tree in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See `Elsewhere`."""
        return _bounded(self._root / path, max_bytes)

    def close(self) -> None:
        """See `Elsewhere`."""


class ReaderElsewhere:
    """What a workstation keeps of a remote: `$XDG_DATA_HOME/oscirc/remotes/NAME`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See `Elsewhere`."""
        role = role_of_path(path)
        if path == TIMESTAMP_PATH:
            return _bounded(self._directory / "tuf" / "timestamp.json", max_bytes)
        if role is not None and role[0] == "root":
            return _bounded(self._directory / "tuf" / "root_history" / f"{role[1]}.root.json", max_bytes)
        if role is not None:
            raw = _bounded(self._directory / "tuf" / f"{role[0]}.json", max_bytes)
            return raw if raw is not None and _version(raw) == role[1] else None
        if path.startswith("targets/"):
            return self._target(path.removeprefix("targets/"), max_bytes)
        return _bounded(self._directory / path, max_bytes)

    def close(self) -> None:
        """See `Elsewhere`."""

    def _target(self, path: str, max_bytes: int) -> bytes | None:
        publisher, _, name = path.rpartition("/")
        plain = name.partition(".")[2]  # without the digest, which whoever asks compares
        places = (self._directory / "indexes" / publisher / plain, self._directory / "targets" / plain)
        return next((raw for place in places if (raw := _bounded(place, max_bytes)) is not None), None)


def elsewhere(source: str) -> Elsewhere:
    """The place that a URL or a directory names; `UsageError` or `NotFoundError` when it is none."""
    if urlsplit(source).scheme in ("http", "https"):
        try:
            return MirrorElsewhere(check_url(source, "the mirror"))
        except DocumentRefusedError as error:
            raise UsageError(str(error)) from None
    directory = Path(source)
    if (directory / "metadata").is_dir():
        return TreeElsewhere(directory)
    if (directory / "tuf").is_dir():
        return ReaderElsewhere(directory)
    raise NotFoundError(
        f"{source} is neither a mirror's URL nor a directory with a copy",
        hint="a tree holds metadata/, a reader's remotes/NAME holds tuf/",
    )


def _bounded(path: Path, max_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError:
        return None


def _version(raw: bytes) -> object:
    try:
        return json.loads(raw)["signed"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
