"""What a guest's display shows, asked of QEMU's monitor: pixels, whatever adapter and mode the guest chose.

QEMU writes them as PPM (`P6`, width, height, 255, three bytes for each pixel) into a file of the instance's directory,
which is read within bounds and removed. The guest must have a display (`launching.start(graphics=True)`): without one
QEMU refuses.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.png import MAX_PIXELS
from oscirc_blockstore.png_making import Picture
from oscirc_vmlaunch.launching import RunningMachine

DEADLINE_S = 30.0  # a large screen, written by a busy machine
_HEAD = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")
_MAX_HEAD_BYTES = 20


async def take(machine: RunningMachine) -> Picture:
    """The display as it is now."""
    file = machine.instance.directory / "screen.ppm"
    try:
        async with machine.monitor() as monitor:
            await monitor.screendump(file, deadline_s=DEADLINE_S)
        return await asyncio.to_thread(read, file)
    finally:
        file.unlink(missing_ok=True)


def read(file: Path) -> Picture:
    """The picture in a file that QEMU wrote; `LocalError` for anything else, or for more than 3840 x 2160."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_HEAD_BYTES + 3 * MAX_PIXELS + 1)
    except OSError as error:
        raise LocalError(f"cannot read what QEMU wrote of the display: {error.strerror}") from None
    return parse(raw)


def parse(raw: bytes) -> Picture:
    """The pixels of a PPM file, or `LocalError`."""
    head = _HEAD.match(raw)
    if head is None:
        raise LocalError("QEMU wrote no picture of the display")
    width, height = int(head[1]), int(head[2])
    if not 0 < width * height <= MAX_PIXELS:
        raise LocalError(f"the display has {width} x {height} pixels: 3840 x 2160 are allowed")
    if len(raw) - head.end() != 3 * width * height:
        raise LocalError("QEMU wrote a picture of the display that is not whole")
    return Picture(width, height, raw[head.end() :])
