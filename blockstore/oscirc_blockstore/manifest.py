"""The manifest: one disk, its table and the facts that a launcher needs; named by the SHA-256 of its bytes.

It holds only what the disk and the publisher's arguments determine, no dates and no version label: the same disk
gives the same manifest, byte for byte. It is canonical JSON of at most 64 KiB and is verified as raw bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    NameRefusedError,
    TableRefusedError,
)
from oscirc_blockstore.fields import Fields, check_text, refuse_bad_names
from oscirc_blockstore.names import check_image, check_publisher
from oscirc_blockstore.table import MAX_DISK_SIZE, Geometry, TableRoot

MAX_MANIFEST_BYTES = 64 * 1024
FORMAT = "oscirc-manifest-1"
HASH = "sha256"
FIRMWARES = ("bios", "uefi")
ARCHITECTURES = ("x86_64", "aarch64", "riscv64", "i386", "arm", "ppc64le", "s390x")
MAX_MEMORY_MIB = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """What a launcher and a catalog need to know about the system on the disk."""

    family: str = "unknown"
    version: str = ""
    architecture: str = "x86_64"
    firmware: str = "bios"
    minimum_memory_mib: int = 512
    default_login: str = ""

    def __post_init__(self) -> None:
        for name, limit in (("family", 64), ("version", 64), ("default_login", 200)):
            check_text(getattr(self, name), f"system.{name}", limit)
        if self.architecture not in ARCHITECTURES:
            raise DocumentRefusedError(
                f"unknown architecture {self.architecture[:40]!r}; known: {', '.join(ARCHITECTURES)}"
            )
        if self.firmware not in FIRMWARES:
            raise DocumentRefusedError(f"unknown firmware {self.firmware[:40]!r}; known: bios, uefi")
        if not 1 <= self.minimum_memory_mib <= MAX_MEMORY_MIB:
            raise DocumentRefusedError(f"a minimum memory of {self.minimum_memory_mib} MiB is not allowed")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One disk. `data_blocks` counts the positions that are not all zeros."""

    publisher: str
    image: str
    geometry: Geometry
    root: TableRoot
    data_blocks: int
    system: SystemFacts

    def __post_init__(self) -> None:
        if self.root.depth != self.geometry.depth:
            raise DocumentRefusedError(
                f"the manifest states a table of depth {self.root.depth}, not {self.geometry.depth}"
            )
        if not 0 <= self.data_blocks <= self.geometry.block_count:
            raise DocumentRefusedError(f"the manifest states {self.data_blocks} blocks on a smaller disk")
        if (self.root.digest == ZERO_DIGEST) != (self.data_blocks == 0):
            raise DocumentRefusedError("the manifest's number of blocks and its table contradict each other")

    def serialise(self) -> bytes:
        """The canonical bytes; `digest_of` them is the manifest's name."""
        system = self.system
        raw = canonical.serialise(
            {
                "format": FORMAT,
                "hash": HASH,
                "publisher": self.publisher,
                "image": self.image,
                "disk_size": self.geometry.disk_size,
                "block_size": self.geometry.block_size,
                "data_blocks": self.data_blocks,
                "table": {"root": self.root.digest.hex(), "depth": self.root.depth},
                "system": {
                    "family": system.family,
                    "version": system.version,
                    "architecture": system.architecture,
                    "firmware": system.firmware,
                    "minimum_memory_mib": system.minimum_memory_mib,
                    "default_login": system.default_login,
                },
            }
        )
        if len(raw) > MAX_MANIFEST_BYTES:
            raise DocumentRefusedError(
                f"the manifest would have {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are allowed"
            )
        return raw


def manifest_path(digest: Digest) -> str:
    """Where a manifest stands below the repository's URL."""
    return f"manifests/{digest.hex()}.json"


def parse(raw: bytes) -> Manifest:
    """The manifest in `raw`; raise `DocumentRefusedError` for anything that `serialise` would not write."""
    fields = Fields(canonical.parse(raw, MAX_MANIFEST_BYTES, "the manifest"), "the manifest")
    fields.constant("format", FORMAT)
    fields.constant("hash", HASH)
    table = Fields(fields.take("table"), "the manifest's table")
    system = Fields(fields.take("system"), "the manifest's system")
    try:
        manifest = Manifest(
            publisher=check_publisher(fields.text("publisher", 63)),
            image=check_image(fields.text("image", 63)),
            geometry=Geometry(fields.integer("disk_size", 1, MAX_DISK_SIZE), fields.integer("block_size", 1, 1 << 20)),
            root=TableRoot(table.digest("root"), table.integer("depth", 1, 8)),
            data_blocks=fields.integer("data_blocks", 0, MAX_DISK_SIZE),
            system=SystemFacts(
                family=system.text("family", 64),
                version=system.text("version", 64),
                architecture=system.text("architecture", 32),
                firmware=system.text("firmware", 16),
                minimum_memory_mib=system.integer("minimum_memory_mib", 1, MAX_MEMORY_MIB),
                default_login=system.text("default_login", 200),
            ),
        )
    except NameRefusedError as error:
        raise refuse_bad_names(error, "the manifest") from None
    except TableRefusedError as error:
        raise DocumentRefusedError(f"the manifest: {error}") from None
    for part in (fields, table, system):
        part.finish()
    return manifest


def parse_verified(raw: bytes, digest: Digest) -> Manifest:
    """The manifest named `digest`, or an `IntegrityError`."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise DocumentRefusedError(f"the manifest has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are allowed")
    if digest_of(raw) != digest:
        raise DigestMismatchError(f"the manifest's bytes do not hash to {digest.hex()}")
    return parse(raw)
