"""Unix sockets in a folder whose path may be longer than an address can hold.

An address has room for 107 bytes (unix(7)), a home folder may need more. A longer path is reached through
`/proc/self/fd/N`, N being its open folder, so that an instance's sockets always stand in the instance's own folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from oscirc_blockstore.errors import LocalError

_ADDRESS_LIMIT_BYTES = 107
_QUEUED_CONNECTIONS = 8


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in place of whatever was left there; connections queue until it is served."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            listener.bind(address)
        listener.listen(_QUEUED_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise LocalError(f"cannot make the socket {path}: {error.strerror}") from error
    return listener


def connect(path: Path) -> socket.socket:
    """A connected, non-blocking socket; LocalError when nothing listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(0)
    try:
        with _address(path) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        raise LocalError(f"nothing answers at {path}: {error.strerror}") from error
    return connection


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _ADDRESS_LIMIT_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
