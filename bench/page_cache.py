"""Which pages of a file the kernel holds, and how many it has taken back: mincore(2) and /proc/vmstat.

A bound on what reads of cached pages cost can only be asked of pages that are cached. The kernel may take clean pages
back whenever it wants memory for something else: it counts those, so that they are told from pages that somebody
dropped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

PAGE = mmap.PAGESIZE
_VMSTAT = Path("/proc/vmstat")
_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def held(descriptor: int, start: int, stop: int) -> list[tuple[int, int]]:
    """(start, stop) of what the kernel holds of the file's bytes from `start`, a page's border, to `stop`.

    OSError as the system calls raise it. For its owner and who may write it: of others' files the kernel says that it
    holds everything.
    """
    return list(runs(_pages(descriptor, start, stop), start, stop))


def _pages(descriptor: int, start: int, stop: int) -> bytes:
    """One byte a page; the lowest bit is set where the kernel holds it."""
    length = stop - start
    # Python's own mmap gives no address of a mapping that is not writable.
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
    if address == _FAILED:
        raise _error()
    try:
        pages = ctypes.create_string_buffer(-(-length // PAGE))
        if _libc.mincore(address, length, pages):
            raise _error()
        return pages.raw
    finally:
        _libc.munmap(address, length)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def runs(pages: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of held pages, of a vector that begins at the byte `start` and is needed to `stop`."""
    first = None
    for number, page in enumerate([*pages, 0]):
        if page & 1 and first is None:
            first = number
        elif not page & 1 and first is not None:
            yield start + first * PAGE, min(start + number * PAGE, stop)
            first = None


def taken_back(vmstat: str | None = None) -> int:
    """Pages of files that the kernel has reclaimed since it started: by itself, for want of memory anywhere."""
    text = _VMSTAT.read_text(encoding="ascii") if vmstat is None else vmstat
    counts = dict(line.split() for line in text.splitlines())
    return int(counts["pgsteal_file"])
