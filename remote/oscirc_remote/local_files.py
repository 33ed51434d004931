"""Small files that must survive: written whole or not at all, synced, private to the user; read with a bound."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from oscirc_blockstore import canonical
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, StoreFullError

MAX_LOCAL_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def make_directory(path: Path) -> Path:
    """`path` with its parents, mode 0700 where they are new; raises `LocalError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {path}: {error.strerror}") from None
    return path


def children(directory: Path, suffix: str = "") -> list[Path]:
    """What stands in a directory now, by name, but what is hidden; nothing where it is gone or is a file.

    Unlike `Path.glob`, which raises `FileNotFoundError` when one is removed while it looks.
    """
    try:
        found = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LocalError(f"cannot look at {directory}: {error.strerror}") from None
    return [path for path in found if path.name.endswith(suffix) and not path.name.startswith(".")]


def write_atomically(path: Path, raw: bytes, *, synced: bool = True) -> None:
    """Replace the file by one of mode 0600 that holds `raw`; after a power cut it holds the old or the new bytes.

    Not so without `synced`: for what costs nothing to lose.
    """
    make_directory(path.parent)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if error.errno in _FULL:
            raise StoreFullError(
                f"no space left for {path}", hint="free space on that disk; if the cache is on it, run: oscirc cache gc"
            ) from None
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


def read_bytes(path: Path, max_bytes: int = MAX_LOCAL_BYTES) -> bytes | None:
    """The file's bytes, None when there is no such file; raises `LocalError` for one that cannot be or is too long."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > max_bytes:
        raise LocalError(f"{path} has more than {max_bytes} bytes")
    return raw


def read_document(path: Path) -> dict[str, object] | None:
    """The canonical JSON object in a file that this room wrote, None when there is none; `LocalError` if damaged."""
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        return canonical.parse(raw, MAX_LOCAL_BYTES, str(path))
    except DocumentRefusedError as error:
        raise LocalError(str(error), hint=f"remove {path}, then do again what made it") from None
