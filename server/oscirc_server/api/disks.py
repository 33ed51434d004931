"""What a version is made of: its manifest, its mapping table, and what lies between two versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_server.api.answers import IMMUTABLE
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.document import produces
from oscirc_server.api.media import JSON, OCTETS
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.services import versions
from oscirc_server.services.differences import VersionDifference
from oscirc_server.services.versions import TableEntry

VERSION = "/images/{publisher}/{image}/versions/{version}"
HexDigest = Annotated[str, Path(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$", description="A SHA-256.")]
router = APIRouter(tags=["disks"])


class TableDocument(BaseModel):
    """A mapping table: where it starts, how deep it is, what it covers; sizes in bytes.

    Its nodes are at `nodes/{digest}`: 1024 digests of 32 bytes each, from `root` down `depth` levels to blocks.
    """

    manifest: str
    disk_size: int
    block_size: int
    block_count: int
    data_blocks: int
    root: str
    depth: int


class TableEntryDocument(BaseModel):
    """A position that holds data: its block, and how long that block's file `blocks/sha256/…` is."""

    position: int
    digest: str
    length: int | None


class TableEntryList(BaseModel):
    """Some positions in the order of the disk; `next` is the `after` of the following ones, null at the end."""

    entries: list[TableEntryDocument]
    next: str | None


class BlocksDocument(BaseModel):
    """Positions of the newer disk by what became of them, and those of the older one that are zeros now."""

    unchanged: int
    changed: int
    new: int
    removed: int


class DifferenceDocument(BaseModel):
    """From all of one version to all of another: distinct blocks and nodes to fetch, and their bytes.

    `bytes_with_pack`: with the delta pack for just this pair, which rebuilds `rebuilt_blocks`; null where none is
    listed. Not `exact` where there is too much to count: bytes are then estimated, and positions may be incomplete.
    """

    old: str
    new: str
    block_size: int
    positions: BlocksDocument
    blocks: int
    nodes: int
    block_bytes: int
    node_bytes: int
    bytes: int
    bytes_with_pack: int | None
    rebuilt_blocks: int
    exact: bool


def difference_document(old: Digest, new: Digest, found: VersionDifference) -> DifferenceDocument:
    """What lies between two manifests, as the API says it."""
    return DifferenceDocument(
        old=old.hex(),
        new=new.hex(),
        block_size=found.block_size,
        positions=BlocksDocument(**found.positions),
        blocks=found.blocks,
        nodes=found.nodes,
        block_bytes=found.block_bytes,
        node_bytes=found.node_bytes,
        bytes=found.bytes,
        bytes_with_pack=found.bytes_with_pack,
        rebuilt_blocks=found.rebuilt_blocks,
        exact=found.exact,
    )


@router.get("/manifests/{digest}", responses=produces(JSON, "The manifest, byte for byte."), response_class=Response)
def get_manifest(digest: HexDigest, installation: CurrentInstallation) -> Response:
    """A released manifest as it was signed for."""
    with installation.database.read() as session:
        raw = versions.raw_manifest(session, parse_hex(digest))
    return Response(raw, media_type=JSON, headers={"ETag": f'"{digest}"', "Cache-Control": IMMUTABLE})


@router.get(
    "/nodes/{digest}",
    responses=produces(OCTETS, "32,768 bytes: 1024 digests of 32 bytes, the zero digest for zeros."),
    response_class=Response,
)
def get_node(digest: HexDigest, installation: CurrentInstallation) -> Response:
    """A node of a mapping table, unpacked and verified."""
    raw = versions.node(installation, parse_hex(digest))
    return Response(raw, media_type=OCTETS, headers={"ETag": f'"{digest}"', "Cache-Control": IMMUTABLE})


@router.get(VERSION + "/table")
def get_table(publisher: str, image: str, version: str, installation: CurrentInstallation) -> TableDocument:
    """The mapping table of a version: which block stands where."""
    with installation.database.read() as session:
        digest, manifest = versions.manifest_of(session, publisher, image, version)
    geometry = manifest.geometry
    return TableDocument(
        manifest=digest.hex(),
        disk_size=geometry.disk_size,
        block_size=geometry.block_size,
        block_count=geometry.block_count,
        data_blocks=manifest.data_blocks,
        root=manifest.root.digest.hex(),
        depth=manifest.root.depth,
    )


def _entry(entry: TableEntry) -> TableEntryDocument:
    return TableEntryDocument(position=entry.position, digest=entry.digest.hex(), length=entry.stored_length)


@router.get(VERSION + "/table/entries")
def list_table_entries(
    publisher: str,
    image: str,
    version: str,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> TableEntryList:
    """The positions of a disk that hold data, in its order, with their blocks."""
    with installation.database.read() as session:
        _, manifest = versions.manifest_of(session, publisher, image, version)
    entries, place = versions.table_page(installation, manifest, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return TableEntryList(entries=[_entry(entry) for entry in entries], next=place)


@router.get(VERSION + "/diff/{other}")
def get_difference(
    publisher: str,
    image: str,
    version: str,
    other: Annotated[str, Path(description="The version to go to.")],
    request: Request,
    installation: CurrentInstallation,
) -> DifferenceDocument:
    """What lies between two versions of an image, whichever is older: blocks, and the bytes that an update moves."""
    with installation.database.read() as session:
        old = versions.manifest_of(session, publisher, image, version)
        new = versions.manifest_of(session, publisher, image, other)
    found = context_of(request).comparisons.difference(installation, old, new)
    return difference_document(old[0], new[0], found)
