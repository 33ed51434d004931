"""Learns which files boots read, from recorded boots of several releases: makes `oscirc_remote/boot_paths.txt`.

    python bench/learn_boot_paths.py NAME=DISK,TRACE … [--print]

A read of a traced boot belongs to the file that stands there. Paths lose what differs between releases (numbers,
architectures) and become patterns, in the order in which the boots came to them. Listed is what most of the systems
read that have it. Of each file as much is listed as the boots read from its beginning without a gap; a file of which
they read most is listed whole. What only some systems read, after a program that the same ones run (`ldconfig`, at a
first boot), is listed on condition of that program.
"""

from __future__ import annotations

import argparse
import bisect
import re
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from replay import reads_of

from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE, Ext4, Inode
from oscirc_blockstore.partitions import find_partitions

PLACE = Path(__file__).resolve().parents[1] / "remote" / "oscirc_remote" / "boot_paths.txt"
PAGE = 4096
GAP_PAGES = 64
MOSTLY = 0.6
BLOCK = 256 << 10
SCATTERED_BLOCKS = 8
SCATTERED = 0.4
"""What of a file's blocks is read, where at least so many are: a hardware database that is searched, for one."""
HEAD = """\
# Which files a boot of a Linux system reads, in the order of reading: what is fetched ahead where no boot of an image
# was recorded. Learnt from boots of {names} by bench/learn_boot_paths.py.
# The form is that of oscirc_blockstore.boot_paths.
"""


@dataclass(slots=True)
class Found:
    """One pattern: mean place in the order (0 to 1), and how much of such a file is read, in KiB (None: all)."""

    ranks: list[float] = field(default_factory=list)
    heads: list[int | None] = field(default_factory=list)
    readers: set[int] = field(default_factory=set)
    systems: int = 0


def pattern_of(path: str) -> str:
    """A path without what differs between releases."""
    path = re.sub(r"(x86_64|i386|aarch64|arm)-linux-gnu\w*", "*-linux-gnu*", path)
    path = re.sub(r"\.ko\.(xz|zst|gz)$", ".ko*", path)
    path = re.sub(r"/lib/modules/[^/]+/", "/lib/modules/*/", path)
    path = re.sub(r"(?<=[-.])\d[\w.+~-]*?(?=\.so|/|$)", "*", path)
    path = re.sub(r"\.so\.[\d.]+$", ".so.*", path)
    path = re.sub(r"/(vmlinuz|initrd\.img)-.*$", r"/\1-*", path)
    return re.sub(r"\*+", "*", path).strip("/")


@dataclass(frozen=True, slots=True)
class Learnt:
    """One boot: pattern to (rank, KiB of the head or None, path) of what was read; patterns of all that is there."""

    read: dict[str, tuple[int, int | None, str]]
    there: frozenset[str]


def learn(disk: Path, trace: Path) -> Learnt:
    """What one boot of a system read."""
    with disk.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        size = disk.stat().st_size
        pieces: list[tuple[int, int, str, int]] = []
        sizes: dict[str, int] = {}
        for partition in find_partitions(read, size):
            try:
                file_system = Ext4(read, partition)
            except DocumentRefusedError:
                continue
            for path, inode in _walk(file_system):
                at = 0
                sizes[path] = inode.size
                for piece in file_system.ranges(inode):
                    pieces.append((piece.start, piece.stop, path, at))
                    at += piece.size
    pieces.sort()
    starts = [piece[0] for piece in pieces]
    pages: dict[str, set[int]] = defaultdict(set)
    for offset, length in reads_of(str(trace)):
        at = max(0, bisect.bisect_right(starts, offset) - 1)
        while at < len(pieces) and pieces[at][0] < offset + length:
            start, stop, path, before = pieces[at]
            low, high = max(start, offset), min(stop, offset + length)
            if low < high:
                pages[path].update(range((low - start + before) // PAGE, (high - start + before - 1) // PAGE + 1))
            at += 1
    read_in_order = {
        pattern_of(path): (rank, _head_kib(touched, sizes[path]), path)
        for rank, (path, touched) in reversed(list(enumerate(pages.items())))
    }
    return Learnt(read_in_order, frozenset(map(pattern_of, sizes)))


def _head_kib(touched: set[int], size: int) -> int | None:
    """How far from its beginning a file was read, passing over small gaps; None where most of it was, or where reads
    are scattered over so much of it that fetching all costs less than waiting for each.
    """
    if len(touched) * PAGE >= MOSTLY * size:
        return None
    parts = {page * PAGE // BLOCK for page in touched}
    if len(parts) >= SCATTERED_BLOCKS and len(parts) * BLOCK >= SCATTERED * size:
        return None
    end = 0
    for page in sorted(touched):
        if page > end + GAP_PAGES:
            break
        end = page + 1
    return end * PAGE // 1024


def _walk(file_system: Ext4) -> list[tuple[str, Inode]]:
    found: list[tuple[str, Inode]] = []
    pending = [("", ROOT_INODE)]
    while pending:
        path, number = pending.pop()
        inode = file_system.inode(number)
        if stat.S_ISDIR(inode.mode):
            pending += [(f"{path}/{name}", child) for name, child in file_system.entries(inode).items()]
        elif stat.S_ISREG(inode.mode):
            found.append((path, inode))
    return found


def merged(learnt: list[Learnt]) -> list[str]:
    """The lines of the list."""
    found: dict[str, Found] = defaultdict(Found)
    for number, one in enumerate(learnt):
        for pattern, (rank, head, _) in one.read.items():
            found[pattern].systems = sum(pattern in other.there for other in learnt)
            found[pattern].ranks.append(rank / max(1, len(one.read)))
            found[pattern].heads.append(head)
            found[pattern].readers.add(number)
    ordered = sorted(found.items(), key=lambda item: (sum(item[1].ranks) / len(item[1].ranks), item[0]))
    lines = []
    programs: dict[frozenset[int], str] = {}
    for pattern, each in ordered:
        not_all = len(each.readers) < each.systems
        readers = frozenset(each.readers)
        if not_all and pattern.startswith(("usr/sbin/", "usr/bin/")) and "*" not in pattern:
            programs.setdefault(readers, pattern)
        program = programs.get(readers, "") if not_all else ""
        if 2 * len(each.readers) < each.systems or program == pattern:
            continue
        heads = [head for head in each.heads if head is not None]
        head = max(heads) if heads and 2 * len(heads) >= len(each.heads) else None
        newest = pattern.endswith(("vmlinuz-*", "initrd.img-*"))
        words = [pattern, *([f"{head}K"] if head is not None else []), *(["newest"] if newest else [])]
        words += ["if", program] if program else []
        if head != 0:
            lines.append(" ".join(words))
    return lines


def text(names: list[str], learnt: list[Learnt]) -> str:
    """The file, learnt from boots of systems of these names."""
    return HEAD.format(names=", ".join(names)) + "".join(f"{line}\n" for line in merged(learnt))


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boots", nargs="+", metavar="NAME=DISK,TRACE")
    parser.add_argument("--print", action="store_true", dest="shown", help="to standard output, not to its place")
    arguments = parser.parse_args()
    names, learnt = [], []
    for boot in arguments.boots:
        name, _, files = boot.partition("=")
        disk, _, trace = files.partition(",")
        names.append(name)
        learnt.append(learn(Path(disk), Path(trace)))
    made = text(names, learnt)
    if arguments.shown:
        print(made, end="")
    else:
        PLACE.write_text(made, encoding="utf-8")
        print(f"{len(made.splitlines())} lines: {PLACE}")


if __name__ == "__main__":
    main()
