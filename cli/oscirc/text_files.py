"""Text files that a user names: a README, a changelog, a secret. Read here and nowhere else, so that all are bounded.

A pipe is read to its end like a file, as a shell's `<(…)` and `/dev/stdin` need it; what has no end reaches the bound.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from oscirc_blockstore.errors import LocalError, UsageError


def bounded_text(path: Path, limit: int, what: str, *, hint: str = "") -> str:
    """The UTF-8 text of a file or pipe of at most `limit` bytes, its line ends made `\\n`; `what` names it in errors.

    `UsageError`, with `hint`, for more bytes; `LocalError` for what is missing, cannot be read, is a folder or is not
    UTF-8.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)  # a terminal must not become this process's own
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise LocalError(f"cannot read {what} from {path}: it is a folder, not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                raw = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise LocalError(f"cannot read {what} from {path}: there is no such file") from None
    except OSError as error:
        raise LocalError(f"cannot read {what} from {path}: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise LocalError(f"cannot read {what} from {str(path)!r}: no file can be called that") from None
    if len(raw) > limit:
        raise UsageError(f"cannot take {what} from {path}: it has more than {limit} bytes", hint=hint)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LocalError(f"cannot read {what} from {path}: it is not UTF-8 text (byte {error.start})") from None
    return io.StringIO(text, newline=None).read()
