"""Says beside a released version which packages its disk has: names and versions, read from the disk at hand.

Read is what dpkg or apk noted on the first ext4 file system that has such a note (`oscirc_blockstore.packages`), and
nothing else of the disk. A disk of another kind says nothing. The file system may be anybody's: its reader is bounded.
"""

from __future__ import annotations

from oscirc_blockstore import package_list, packages
from oscirc_blockstore.accelerators import PACKAGES
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.disk_source import DiskSource
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import Ext4
from oscirc_blockstore.file_tree import MAX_STEPS, FileTree
from oscirc_blockstore.partitions import find_partitions
from oscirc_publisher.accelerating import VersionName, listed_accelerators
from oscirc_publisher.rest import Body, RestClient

_MAX_FILE_SYSTEMS = 8


def installed(disk: DiskSource) -> dict[str, str] | None:
    """Name to version; None where no note is found that can be read."""

    def read(offset: int, size: int) -> bytes:
        stop = min(offset + size, disk.size)
        return disk.read(offset, stop - offset) if 0 <= offset < stop else b""

    for partition in find_partitions(read, disk.size)[:_MAX_FILE_SYSTEMS]:
        try:
            tree = FileTree(Ext4(read, partition, max_steps=MAX_STEPS), read)
            for path, parse in packages.DATABASES.items():
                inode = tree.find(path)
                raw = None if inode is None else tree.content(inode, packages.MAX_DATABASE_BYTES)
                if raw is not None:
                    return packages.versions(parse(raw))
        except DocumentRefusedError:
            continue
    return None


def add_list(client: RestClient, name: VersionName, manifest: Digest, found: dict[str, str]) -> int:
    """Put the list beside a released version, unless the very same is there; how many packages it has."""
    listed = package_list.of(manifest, found)
    raw = listed.serialise()
    digest = digest_of(raw)
    there = {(each.kind, each.name, each.sha256) for each in listed_accelerators(client, name)}
    if (PACKAGES, package_list.NAME, digest) not in there:
        path = f"{name.path}/accelerators/{PACKAGES}/{package_list.NAME}"
        client.call("PUT", f"{path}?sha256={digest.hex()}", Body.of(raw))
    return len(listed.packages)
