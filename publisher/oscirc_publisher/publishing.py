"""Publishing, as a user means it: one call from an opened disk to a released version. Composes the other modules.

Order, and what it is for:

1. What can be refused without reading is refused: names, facts, changelog, level.
2. What the publisher has signed so far is read and verified: a version label that is released already is compared
   with this disk by hashing alone, and nothing is sent.
3. The draft is opened (or found open), blocks and nodes go up, the file is checked for change, the manifest goes up.
4. The index with the new version is signed and released, atomically. Until then nothing is visible.

Ctrl-C, a crash or a lost connection at any point leaves a draft: the same call again sends what is still missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from oscirc_blockstore.about import About
from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.disk_source import DiskSource
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    ServerRefusedError,
    TableRefusedError,
    UsageError,
)
from oscirc_blockstore.image_index import DEFAULT_CHANNEL, ImageIndex, ImageVersion
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.names import check_channel, check_image, check_version
from oscirc_blockstore.table import DEFAULT_BLOCK_SIZE, Geometry
from oscirc_publisher.building import BlockSink, BuiltTable, build_table, data_bytes
from oscirc_publisher.earlier_version import EarlierVersion
from oscirc_publisher.effort import Effort
from oscirc_publisher.opened_file import check_disk_size
from oscirc_publisher.releasing import Released, Signatory, date_text
from oscirc_publisher.uploading import Draft, Stored, open_draft

MIN_LEVEL, MAX_LEVEL = 1, 22
_MAX_PASSES = 3


class Progress(Protocol):
    """What a progress bar is told, in the caller's thread; `phase` is one of the names below."""

    def __call__(self, phase: str, done_bytes: int, total_bytes: int, uploaded_bytes: int) -> None:
        """Bytes of the disk read so far, bytes that will be read, and bytes sent."""


COMPARING, UPLOADING, RELEASING = "comparing", "uploading", "releasing"


@runtime_checkable
class WatchedDisk(Protocol):
    """A disk that can tell whether it changed since it was opened."""

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` if so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What a publication was and what it took. `changed` False: this version was released already, with this disk."""

    publisher: str
    image: str
    version: str
    manifest: Digest
    role_version: int
    changed: bool
    channels: Sequence[str]
    disk_size: int
    block_size: int
    data_blocks: int
    read_bytes: int
    blocks: int
    new_blocks: int
    nodes: int
    new_nodes: int
    uploaded_bytes: int
    seconds: float
    changed_blocks: int = 0

    @property
    def new_bytes(self) -> int:
        """Uncompressed bytes of the blocks that the server lacked."""
        return self.new_blocks * self.block_size


def publish(
    disk: DiskSource,
    signatory: Signatory,
    image: str,
    version: str,
    *,
    system: SystemFacts | None = None,
    channel: str | None = DEFAULT_CHANNEL,
    changelog: str = "",
    level: int | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
    workers: int | None = None,
    progress: Progress | None = None,
    base_is_there: bool = False,
    say: Callable[[About], About] | None = None,
) -> PublishResult:
    """Release `disk` as `version` of the image, and point `channel` (None: no channel) at it.

    The same version with the same disk again is a success that changes nothing, channels included; with another
    disk it is a `UsageError`. Raises every branch of the error tree; see the module's text for what is left behind.
    `level` None: as `effort` finds right.

    `base_is_there` is for a `changed_disk.ChangedDisk` whose base was released by this very server: its blocks are not
    asked about, unless the server misses some all the same. `say` changes, with the release, what is said of the image.
    """
    started = time.monotonic()
    work = _Publication(
        disk,
        signatory,
        check_image(image),
        _checked_version(signatory, image, version, changelog),
        system or SystemFacts(),
        _geometry(disk, block_size),
        None if channel is None else check_channel(channel),
        Effort(_checked_level(level)),
        workers,
        progress or _silent,
        base_is_there,
        say,
    )
    index = signatory.served_index(signatory.served_role(), image)
    existing = next((known for known in index.versions if known.label == version), None)
    if existing is None:
        index.with_version(work.version)  # refuses a label that was deleted, before a byte is read
    if level is None:
        work.effort = Effort(is_update=bool(index.versions))
    work.before = _before(work, index)
    result = work.send() if existing is None else work.compare(existing)
    return replace(result, seconds=time.monotonic() - started)


@dataclass(slots=True)
class _Publication:
    """The checked arguments of one publication."""

    disk: DiskSource
    signatory: Signatory
    image: str
    version: ImageVersion
    system: SystemFacts
    geometry: Geometry
    channel: str | None
    effort: Effort
    workers: int | None
    progress: Progress
    base_is_there: bool
    say: Callable[[About], About] | None
    before: EarlierVersion | None = None

    def send(self) -> PublishResult:
        """Upload and release. A server that lost blocks between the two is asked, and given, once more."""
        rest = self.signatory.rest
        spent = Stored()
        for final_pass in (False,) * (_MAX_PASSES - 1) + (True,):
            draft = open_draft(rest, self.signatory.publisher, self.image, self.version.label, self.geometry.block_size)
            built, manifest = self._build(draft, UPLOADING)
            spent += built.uploaded
            draft.put_manifest(manifest)
            self.progress(RELEASING, built.read_bytes, built.read_bytes, spent.sent_bytes)
            try:
                released = self._release(draft, digest_of(manifest))
            except ServerRefusedError as error:
                if final_pass or not error.problem.get("missing"):
                    raise
                self.base_is_there, self.before = False, None
            else:
                return self._result(built, manifest, released, spent)
        raise AssertionError("the last pass returns or raises")

    def compare(self, existing: ImageVersion) -> PublishResult:
        """Hash the disk and hold it against a version that is released already."""
        built, manifest = self._build(None, COMPARING)
        index = ImageIndex(self.signatory.publisher, self.image, (existing,))
        index.with_version(replace(self.version, manifest=digest_of(manifest)))  # raises for another disk
        there = self.signatory.change(self.image, self._described)
        return self._result(built, manifest, replace(there, changed=False), Stored())

    def _described(self, index: ImageIndex) -> ImageIndex:
        return index if self.say is None else replace(index, about=self.say(index.about))

    def _build(self, sink: BlockSink | None, phase: str) -> tuple[BuiltTable, bytes]:
        total = data_bytes(self.disk, self.geometry.block_size)
        self.progress(phase, 0, total, 0)
        built = build_table(
            self.disk,
            self.geometry,
            sink,
            effort=self.effort,
            workers=self.workers,
            stop=self.signatory.rest.stop,
            on_read=lambda done, sent: self.progress(phase, done, total, sent.sent_bytes),
            base_is_there=self.base_is_there,
            before=self.before,
        )
        if isinstance(self.disk, WatchedDisk):
            self.disk.check_unchanged()
        manifest = Manifest(
            self.signatory.publisher, self.image, self.geometry, built.root, built.data_blocks, self.system
        )
        return built, manifest.serialise()

    def _release(self, draft: Draft, manifest: Digest) -> Released:
        version = replace(self.version, manifest=manifest)

        def merge(index: ImageIndex) -> ImageIndex:
            merged = self._described(index.with_version(version))
            return merged if self.channel is None else merged.with_channel(self.channel, version.label)

        return self.signatory.change(self.image, merge, draft.release, draft=draft.id)

    def _result(self, built: BuiltTable, manifest: bytes, released: Released, spent: Stored) -> PublishResult:
        label = self.version.label
        return PublishResult(
            publisher=self.signatory.publisher,
            image=self.image,
            version=label,
            manifest=digest_of(manifest),
            role_version=released.role_version,
            changed=released.changed,
            channels=tuple(sorted(name for name, at in released.index.channels.items() if at == label)),
            disk_size=self.geometry.disk_size,
            block_size=self.geometry.block_size,
            data_blocks=built.data_blocks,
            read_bytes=built.read_bytes,
            blocks=built.blocks,
            new_blocks=built.new_blocks,
            nodes=built.nodes,
            new_nodes=built.new_nodes,
            uploaded_bytes=spent.sent_bytes,
            seconds=0.0,
            changed_blocks=built.changed_blocks,
        )


def _before(work: _Publication, index: ImageIndex) -> EarlierVersion | None:
    """What most of the disk probably has been before: what the channel points at, else what was released last."""
    if not index.versions or isinstance(work.disk, ChangedDisk):
        return None
    pointed = index.channels.get(work.channel or DEFAULT_CHANNEL)
    version = index.version(pointed) if pointed is not None else index.versions[-1]
    return EarlierVersion(work.signatory.rest.fetch, version.manifest, work.geometry.block_size)


def _checked_version(signatory: Signatory, image: str, label: str, changelog: str) -> ImageVersion:
    """The version still without its manifest; what no index can hold is refused before a byte is read."""
    version = ImageVersion(check_version(label), ZERO_DIGEST, date_text(signatory.clock()), changelog)
    try:
        ImageIndex(signatory.publisher, image).with_version(version).serialise()
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None
    return version


def _checked_level(level: int | None) -> int | None:
    if level is not None and not MIN_LEVEL <= level <= MAX_LEVEL:
        raise UsageError(f"compression level {level} is not allowed", hint=f"{MIN_LEVEL} to {MAX_LEVEL}")
    return level


def _geometry(disk: DiskSource, block_size: int) -> Geometry:
    check_disk_size(disk.size, "the disk")
    try:
        return Geometry(disk.size, block_size)
    except TableRefusedError as error:
        raise UsageError(str(error)) from None


def _silent(phase: str, done_bytes: int, total_bytes: int, uploaded_bytes: int) -> None:
    """Nobody watches."""
