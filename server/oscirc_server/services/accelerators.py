"""Accelerators of released versions: kept, listed, hinted at. Unsigned: a client checks what they carry.

A file arrives whole and hashed before it is judged: a bundle or delta pack by its index, a profile by its form, all by
the manifest that they name and by a bound on their length. Then the row is written and, under the writer's lock, the
two unsigned documents: the listing of the manifest and the hint of the image. A file that was replaced stays for
clients that are reading it until the next start of the server.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import IO

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore import bundle, delta, image_index, package_list, profile, screenshot
from oscirc_blockstore.accelerators import (
    BUNDLE,
    DELTA,
    FLEET_PREFIX,
    LENGTHS,
    MAX_ACCELERATORS,
    MAX_CHANNELS,
    MAX_HINT_BYTES,
    PACKAGES,
    PROFILE,
    SCREENSHOT,
    Accelerator,
    Hint,
    Listing,
    hint_path,
    listing_path,
)
from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError, OscircError, UsageError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_channel, check_image, check_publisher
from oscirc_blockstore.trust import DAY_S
from oscirc_server import pending_files
from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.locks import WRITER
from oscirc_server.models import AcceleratorRow, Document, ImageRow, ManifestRow, ProfileRun
from oscirc_server.services import audit, jobs, screenshots
from oscirc_server.storage import Storage

_PREFIX = "accel/"
_HINT = re.compile(r"accel/hints/([^/]+)/([^/]+)\.json")
_HINT_HEAD_BYTES = 512  # the document around its channels

_log = logging.getLogger(__name__)


Precondition = Callable[[str], None]
"""Given the validator of what is listed (its SHA-256 in quotes, or empty), returns or raises."""


def any_state(_etag: str) -> None:
    """The precondition that always holds."""


def index_of(session: Session, publisher: str, image: str) -> ImageIndex:
    """The index in force of a listed image, or `NotFoundError`."""
    row = session.get(ImageRow, (check_publisher(publisher), check_image(image)))
    document = None if row is None or not row.listed else session.get(Document, row.index_path)
    if document is None:
        raise NotFoundError(f"this repository has no image {publisher}/{image}")
    return image_index.parse(document.raw, publisher, image)


def manifest_of(session: Session, publisher: str, image: str, version: str) -> tuple[Digest, Manifest]:
    """The manifest of a released version, or `NotFoundError`."""
    for known in index_of(session, publisher, image).versions:
        if known.label == version:
            return known.manifest, parse_manifest(session.get_one(ManifestRow, known.manifest).raw)
    raise NotFoundError(f"{publisher}/{image} has no version {version[:63]!r}")


def put(
    installation: Installation,
    names: tuple[str, str, str],
    kind: str,
    name: str,
    sha256: Digest,
    file: IO[bytes],
    *,
    actor: str,
    condition: Precondition = any_state,
) -> Accelerator:
    """Keep a whole, hashed file as the accelerator of that kind and name, instead of any that was there."""
    check_channel(name)
    _refuse_own(kind)
    if name.startswith(FLEET_PREFIX):
        raise UsageError(f"names with {FLEET_PREFIX}… are the server's own", hint="choose another name")
    with installation.database.read() as session:
        digest, manifest = manifest_of(session, *names)
    accelerator = judged(digest, manifest, kind, name, sha256, file)
    installation.storage.replace_from(accelerator.path, file)
    publisher, image, version = names
    with installation.database.write() as session:
        condition(_etag(session.get(AcceleratorRow, (digest, kind, name))))
        if not has_room(session, digest, kind, name):
            raise ConflictError(f"a version has at most {MAX_ACCELERATORS} accelerators", hint="remove one first")
        row = put_row(session, digest, accelerator, installation.now_s())
        if kind == SCREENSHOT:
            screenshots.describe(row, file)
        if kind == PROFILE:  # its bundle is made here, if none comes
            jobs.note(session, publisher, [image], installation.now_s())
        subject = f"{publisher}/{image}@{version}"
        audit.record(session, installation.now_s(), actor, "accelerator.put", subject, kind=kind, name=name)
    project(installation, publisher, [image], digest)
    return accelerator


def keep_profile(installation: Installation, publisher: str, image: str, merged: profile.Profile) -> bool:
    """List a profile that the server made instead of the one it made before; False where the list is full."""
    raw = merged.serialise()
    accelerator = Accelerator(PROFILE, merged.name, digest_of(raw), len(raw))
    installation.storage.replace(accelerator.path, raw)
    with installation.database.write() as session:
        if not has_room(session, merged.manifest, PROFILE, merged.name):
            return False
        before = session.get(AcceleratorRow, (merged.manifest, PROFILE, merged.name))
        replaced = None if before is None else before.sha256
        put_row(session, merged.manifest, accelerator, installation.now_s())
        session.flush()
        if replaced is not None and session.scalar(still_named(replaced)):
            replaced = None
    project(installation, publisher, [image], merged.manifest)
    if replaced is not None:  # made by the hour: they are not to gather until the next start
        installation.storage.remove(f"accel/{replaced.hex()}")
    return True


def keep_lengths(
    installation: Installation, manifest: Manifest, digest: Digest, accelerator: Accelerator, raw: bytes
) -> None:
    """List the block lengths that the server made of a released disk; `ConflictError` where the list is full."""
    installation.storage.replace(accelerator.path, raw)
    with installation.database.write() as session:
        if not has_room(session, digest, accelerator.kind, accelerator.name):
            raise ConflictError(f"a version has at most {MAX_ACCELERATORS} accelerators", hint="remove one first")
        put_row(session, digest, accelerator, installation.now_s())
    project(installation, manifest.publisher, [manifest.image], digest)


def _etag(row: AcceleratorRow | None) -> str:
    return "" if row is None else f'"{row.sha256.hex()}"'


def remove(
    installation: Installation,
    names: tuple[str, str, str],
    kind: str,
    name: str,
    *,
    actor: str,
    condition: Precondition = any_state,
) -> None:
    """List it no more; `NotFoundError` when it is not there."""
    _refuse_own(kind)
    with installation.database.write() as session:
        digest, _ = manifest_of(session, *names)
        row = session.get(AcceleratorRow, (digest, kind, name))
        if row is None:
            raise NotFoundError(f"{names[0]}/{names[1]}@{names[2]} has no {kind[:16]} called {name[:63]!r}")
        condition(_etag(row))
        session.delete(row)
        if name.startswith(FLEET_PREFIX):  # else the next run would bring it back
            base = name.removeprefix(FLEET_PREFIX)
            session.execute(delete(ProfileRun).where(ProfileRun.manifest == digest, ProfileRun.name == base))
            made = session.get(AcceleratorRow, (digest, BUNDLE, name))
            if kind == PROFILE and made is not None:  # it was made of it
                session.delete(made)
        subject = f"{names[0]}/{names[1]}@{names[2]}"
        audit.record(session, installation.now_s(), actor, "accelerator.remove", subject, kind=kind, name=name)
        _note_change(session, digest, installation.now_s())
    project(installation, names[0], [names[1]], digest)


def listing(session: Session, manifest: Digest) -> Listing:
    """What there is for a manifest."""
    rows = session.scalars(
        select(AcceleratorRow)
        .where(AcceleratorRow.manifest == manifest)
        .order_by(AcceleratorRow.kind, AcceleratorRow.name)
    )
    return Listing(
        manifest,
        tuple(Accelerator(row.kind, row.name, Digest(row.sha256), row.length, row.index_length) for row in rows),
    )


def hint(session: Session, index: ImageIndex) -> Hint:
    """What there is for what the channels of an image point at; withdrawn versions are not hinted at.

    Channels that a hint has no room for are left out: their clients ask for the listing, a round trip later.
    """
    channels: dict[str, Listing] = {}
    room = MAX_HINT_BYTES - _HINT_HEAD_BYTES
    for channel in list(index.channels)[:MAX_CHANNELS]:
        version = index.channel(channel)
        if version.yanked is not None:
            continue
        listed = listing(session, version.manifest)
        room -= len(listed.serialise()) + len(channel) + 4  # two quotes, a colon and a comma around it
        if room < 0:
            break
        channels[channel] = listed
    return Hint(index.publisher, index.image, channels)


def project(installation: Installation, publisher: str, images: Iterable[str], manifest: Digest | None = None) -> None:
    """Write the hints of these images, and the listing of a manifest, as they are to be now."""
    paths = [hint_path(publisher, image) for image in images]
    _write_documents(installation, [*paths, *([] if manifest is None else [listing_path(manifest)])])


def complete(installation: Installation) -> None:
    """Write the documents that a process which died, or an error, has left behind."""
    with installation.database.read() as session:
        paths = list(pending_files.marked(session, _PREFIX))
    if paths:
        _write_documents(installation, paths)


def _write_documents(installation: Installation, paths: Iterable[str]) -> None:
    storage = installation.storage
    with installation.locks.held(WRITER) as held:
        with installation.database.read() as session:
            marks = pending_files.marked(session, _PREFIX)
            made = {path: _document(session, path) for path in paths}
        for path, raw in made.items():
            held.confirm()
            if raw is None:
                storage.remove(path)
            else:
                _write(storage, path, raw)
        pending_files.done(installation.database, {path: marks[path] for path in made if path in marks})


def _document(session: Session, path: str) -> bytes | None:
    """A listing or a hint as it is to be now; None when there is to be none."""
    of_image = _HINT.fullmatch(path)
    if of_image is None:
        return listing(session, parse_hex(path.removeprefix(_PREFIX).removesuffix(".json"))).serialise()
    try:
        return hint(session, index_of(session, of_image[1], of_image[2])).serialise()
    except NotFoundError:
        return None


def _note_change(session: Session, manifest: Digest, now_s: int) -> None:
    """In the transaction that changes its rows: the listing of a manifest and its image's hint are behind."""
    facts = parse_manifest(session.get_one(ManifestRow, manifest).raw)
    pending_files.mark(session, [hint_path(facts.publisher, facts.image), listing_path(manifest)], now_s)


def follow(installation: Installation, publisher: str, images: Iterable[str]) -> None:
    """Let the hints follow what has taken force: that stands, whatever becomes of them."""
    try:
        project(installation, publisher, images)
    except OscircError as error:
        _log.error("hints were not written", extra={"publisher": publisher, "error": str(error)})


def project_all(installation: Installation) -> None:
    """At the start: every document, and none of the files that no row has named for a day (somebody may be at it)."""
    with installation.database.read() as session:
        paths = [
            hint_path(row.publisher, row.image) for row in session.scalars(select(ImageRow).where(ImageRow.listed))
        ]
        manifests = session.scalars(select(AcceleratorRow.manifest).distinct())
        paths += [listing_path(Digest(digest)) for digest in manifests]
        paths += [path for path in pending_files.marked(session, _PREFIX) if path not in paths]
        named = {f"accel/{sha256.hex()}" for sha256 in session.scalars(select(AcceleratorRow.sha256))}
    _write_documents(installation, paths)
    horizon_s = installation.now_s() - DAY_S
    files = [file for file in installation.storage.files("accel") if not file.path.endswith(".json")]
    for file in files:
        if file.path not in named and file.modified_s < horizon_s:
            installation.storage.remove(file.path)


def _refuse_own(kind: str) -> None:
    if kind == LENGTHS:
        raise UsageError("block lengths are the server's own: it makes them at the release, once")


def _write(storage: Storage, path: str, raw: bytes) -> None:
    if storage.get(path, len(raw)) != raw:
        storage.replace(path, raw)


def still_named(sha256: bytes) -> Select[int]:
    """How many rows name that file."""
    return select(func.count()).select_from(AcceleratorRow).where(AcceleratorRow.sha256 == sha256)


def has_room(session: Session, manifest: Digest, kind: str, name: str) -> bool:
    """Whether one of that kind and name may be listed: it is there already, or the list is not full."""
    rows = list(session.scalars(select(AcceleratorRow).where(AcceleratorRow.manifest == manifest)))
    return len(rows) < MAX_ACCELERATORS or any((row.kind, row.name) == (kind, name) for row in rows)


def put_row(session: Session, manifest: Digest, accelerator: Accelerator, now_s: int) -> AcceleratorRow:
    """List it instead of any of its kind and name; the documents follow with `project`."""
    row = session.merge(
        AcceleratorRow(
            manifest=manifest,
            kind=accelerator.kind,
            name=accelerator.name,
            sha256=accelerator.sha256,
            length=accelerator.length,
            index_length=accelerator.index_length,
            created_s=now_s,
        )
    )
    _note_change(session, manifest, now_s)
    return row


def judged(digest: Digest, manifest: Manifest, kind: str, name: str, sha256: Digest, file: IO[bytes]) -> Accelerator:
    """A whole file as the accelerator of that kind and name; `DocumentRefusedError` for what is none of this disk."""
    length = file.seek(0, 2)
    file.seek(0)
    if kind == PROFILE:
        return _judged_profile(digest, manifest, name, sha256, file.read())
    if kind == PACKAGES:
        return _judged_packages(digest, name, sha256, file.read(package_list.MAX_BYTES + 1))
    if kind == SCREENSHOT:
        return screenshots.judged(digest, name, sha256, file.read(screenshot.MAX_BYTES + 1))
    if kind == DELTA:
        return _judged_pack(digest, manifest, name, sha256, length, file)
    if kind != BUNDLE:
        known = f"{BUNDLE}, {DELTA}, {PACKAGES}, {PROFILE} or {SCREENSHOT}"
        raise UsageError(f"no kind of accelerator: {kind[:16]!r}", hint=known)
    head = file.read(bundle.HEAD_SIZE)
    bounds = bundle.bounds(manifest.geometry, manifest.data_blocks)
    index_length = bundle.index_length(head, bounds.entries)
    index = bundle.parse_index(head + file.read(index_length - bundle.HEAD_SIZE), bounds.entries)
    if index.manifest != digest or index.block_size != manifest.geometry.block_size:
        raise DocumentRefusedError("the bundle was made for another disk")
    if length > bounds.length:
        raise DocumentRefusedError("the bundle is longer than all data of its disk: no client would take it")
    if index.length != length:
        raise DocumentRefusedError(f"the bundle has {length} bytes; its index says {index.length}")
    return Accelerator(BUNDLE, name, sha256, length, index_length)


def _judged_profile(digest: Digest, manifest: Manifest, name: str, sha256: Digest, raw: bytes) -> Accelerator:
    recorded = profile.parse(raw)
    if recorded.manifest != digest or recorded.name != name:
        raise DocumentRefusedError("the profile was recorded on another disk, or has another name")
    if any(position >= manifest.geometry.block_count for position in recorded.positions):
        raise DocumentRefusedError("the profile names a position beyond the end of the disk")
    return Accelerator(PROFILE, name, sha256, len(raw))


def _judged_packages(digest: Digest, name: str, sha256: Digest, raw: bytes) -> Accelerator:
    if name != package_list.NAME:
        raise DocumentRefusedError(f"a list of packages is called {package_list.NAME}")
    if package_list.parse(raw).manifest != digest:
        raise DocumentRefusedError("the list of packages was read from another disk")
    return Accelerator(PACKAGES, name, sha256, len(raw))


def _judged_pack(
    digest: Digest, manifest: Manifest, name: str, sha256: Digest, length: int, file: IO[bytes]
) -> Accelerator:
    head = file.read(delta.HEAD_SIZE)
    index_length = delta.index_length(head)
    most_made = bundle.bounds(manifest.geometry, manifest.data_blocks).entries
    index = delta.parse_index(head + file.read(index_length - delta.HEAD_SIZE), most_made)
    if index.manifest != digest or index.block_size != manifest.geometry.block_size:
        raise DocumentRefusedError("the delta pack was made for another disk")
    if name != delta.name_for(index.base):
        raise DocumentRefusedError(f"a delta pack from that version is called {delta.name_for(index.base)}")
    if index.length != length:
        raise DocumentRefusedError(f"the delta pack has {length} bytes; its index says {index.length}")
    return Accelerator(DELTA, name, sha256, length, index_length)
