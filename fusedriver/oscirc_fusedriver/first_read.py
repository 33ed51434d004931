"""The first and the last page of the disk, read through the kernel, before anybody is told "ready".

A process of its own reads, never this one. A thread that waits for a file of its own process's mount cannot be killed,
and keeps the process's descriptors open, so that the mount would never die with its driver: the kernel would
wait for an answer from a process that waits for the kernel. Even an open descriptor is too much: whoever starts
a program copies it, and its close in the child asks the driver while Python's lock is held here.
For the same reason nobody waits for that process's end, only for its answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

_PAGE = 4096
_PROGRAM = """
import os, sys
place, name, size, page = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
try:
    os.listdir(place)
    disk = os.open(os.path.join(place, name), os.O_RDONLY)
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_RANDOM)
    for offset in {0, max(0, size - page) // page * page}:
        wanted = min(page, size - offset)
        if len(os.pread(disk, wanted, offset)) != wanted:
            sys.exit("short")
    os.close(disk)
except OSError as error:
    sys.exit(error.strerror)
print("read", flush=True)
"""


async def first_read(disk: Path, size: int, timeout_s: float) -> str:
    """What went wrong, or nothing; raises `trio.TooSlowError`."""
    # -I -S: the interpreter alone, in 12 ms
    process = subprocess.Popen(  # noqa: ASYNC220  # trio's own would wait for the end of what it cannot end
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(disk.parent), disk.name, str(size), str(_PAGE)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
    )
    assert process.stdout is not None  # noqa: S101  # it was asked for
    said = b""
    try:
        with process.stdout, trio.fail_after(timeout_s):
            while b"\n" not in said:
                await trio.lowlevel.wait_readable(process.stdout)
                chunk = os.read(process.stdout.fileno(), _PAGE)
                if not chunk:
                    break
                said += chunk
    finally:
        if process.poll() is None:
            process.kill()
    words = said.decode(errors="replace").strip()
    return "" if words == "read" else words or "the process that tried it was killed"
