"""What C code and its children write to standard error while something is tried: libfuse explains itself only there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_STDERR = 2
_MAXIMUM_BYTES = 4096


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Yields a function that returns what was written so far. Whatever nobody asked for is passed on at the end."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    asked = False
    with open(os.memfd_create("stderr"), "rb") as memory:  # noqa: PTH123  # a descriptor, not a path
        saved = os.dup(_STDERR)
        os.dup2(memory.fileno(), _STDERR)

        def said() -> str:
            nonlocal asked
            asked = True
            return os.pread(memory.fileno(), _MAXIMUM_BYTES, 0).decode(errors="replace").strip()

        try:
            yield said
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
            if not asked and (left := os.pread(memory.fileno(), _MAXIMUM_BYTES, 0)):
                os.write(_STDERR, left)
