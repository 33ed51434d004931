"""Files that are written after minutes of work: looked at before it, and kept elsewhere where it went wrong after it.

That a file can be written is tried, not computed: a nameless file is made beside it, which leaves no trace.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from oscirc_blockstore.errors import LocalError


def check_file(place: Path) -> None:
    """Refuse a place where no file could be written now; one that is there may be overwritten."""
    if place.is_dir():
        raise LocalError(f"{place} is a directory", hint="name a file")
    if place.exists():
        if not os.access(place, os.W_OK):
            raise LocalError(f"{place} cannot be overwritten")
        return
    _try(place.parent, f"cannot write {place}")


def check_directory(place: Path) -> None:
    """Make a directory for files to come; refuse where that is not possible, or none could be written into it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make the directory {place}: {error.strerror}") from None
    _try(place, f"cannot write into {place}")


def write(place: Path, raw: bytes) -> None:
    """Write a file; where that fails, its content is kept in the temporary directory, and the error says where."""
    try:
        place.write_bytes(raw)
    except OSError as error:
        kept = _kept(place.name, raw)
        raise LocalError(
            f"cannot write {place}: {error.strerror}", hint=f"it was kept as {kept}" if kept else ""
        ) from None


def _try(directory: Path, what: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise LocalError(
            f"{what}: {error.strerror}", hint=f"is {directory} a directory that you may write to?"
        ) from None


def _kept(name: str, raw: bytes) -> Path | None:
    with contextlib.suppress(OSError):
        descriptor, kept = tempfile.mkstemp(prefix="oscirc-", suffix=f"-{name}")
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        return Path(kept)
    return None
