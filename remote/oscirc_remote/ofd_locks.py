"""Open-file-description locks (fcntl(2), F_OFD_SETLK): between processes, gone with their holder however it ends.

They belong to the open file: threads that share it do not exclude each other. Where a file system has no locks every
call raises what the system says; what that means is for the caller to know.
"""

from __future__ import annotations

import fcntl
import os
import struct

SHARED, EXCLUSIVE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, len, pid


def take(descriptor: int, kind: int, start: int = 0, length: int = 0) -> bool:
    """Lock these bytes (length 0: to the end), or unlock them; False at once where somebody else has them."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_held(descriptor: int, start: int = 0, length: int = 0) -> bool:
    """Whether another open file than this one has a lock on these bytes; takes none, so nobody is in anybody's way."""
    asked = _FLOCK.pack(EXCLUSIVE, os.SEEK_SET, start, length, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return kind != NONE
