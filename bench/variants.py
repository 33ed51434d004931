"""Which options serve the peers best, tried on one link: so that `peers.py` gives each what a careful user would.

    python bench/variants.py [--disk NAME] [--link MBIT:MS]

Prints a table for docs/performance.md; keeps nothing. What `peers.py` uses is marked.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from boot_cold import STAGES, link_of, measure
from cells import Disk, Place
from harness import DISKS
from peers import Nbdkit, Programs, QemuHttp, Rclone
from staging import prepare, stage_disk


def variants() -> Iterator[tuple[str, Programs]]:
    """(what is tried, the contender)."""
    yield "no overlay, readahead 256 KiB", QemuHttp(copy_on_read=False)
    for readahead in (64, 256, 512):
        yield f"overlay with copy-on-read, readahead {readahead} KiB", QemuHttp(readahead_kib=readahead)
    for block in ("64K", "128K", "256K", "512K", "1M"):
        yield f"cache filter, cache-on-read, blocks of {block}", Nbdkit(block=block)
    yield "full cache, otherwise its defaults", Rclone(chunk=())
    for chunk, buffer in (("1M", "256k"), ("512k", "0"), ("256k", "0"), ("128k", "0")):
        options = ("--vfs-read-chunk-size", chunk, "--buffer-size", buffer)
        yield f"full cache, chunks of {chunk}, buffer {buffer}", Rclone(chunk=options)


def is_used(contender: Programs) -> bool:
    """Whether it is what `peers.py` gives this peer."""
    return contender == type(contender)()


def main() -> None:
    """Try them one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--disk", default="debian12", choices=list(STAGES))
    parser.add_argument("--link", default=(100, 20), type=link_of, metavar="MBIT:MS")
    arguments = parser.parse_args()
    stage = prepare(arguments.disk, stage_disk(arguments.disk))
    touched = stage.touched()
    disk = Disk(STAGES[arguments.disk], "", touched.blocks, touched.raw_bytes, touched.frame_bytes)
    work = Path(tempfile.mkdtemp(prefix="oscirc-bench-", dir=DISKS))
    print("| peer | options | whole way, s | MB moved | requests |\n|---|---|---:|---:|---:|")
    try:
        for tried, contender in variants():
            run = measure(contender, stage, disk, Place(arguments.disk, *arguments.link, contender.name), work)
            words = f"**{tried}**" if is_used(contender) else tried
            more = "> " if run.stopped else ""
            figures = f"{more}{run.whole_s:.1f} | {run.bytes_down / 1e6:.0f} | {run.requests}"
            print(f"| {contender.label} | {words} | {figures} |", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
