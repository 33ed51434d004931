"""`oscirc mirror sync`: one run that brings a replica up to date.

1. Metadata is refreshed and verified; roles and image indexes are fetched. Nothing of it is shown to readers yet.
2. For each selected version that is not complete: its manifest, then nodes and blocks, then its accelerators; the
   manifest gets its place in the tree when all blocks are there. Then listings and hints.
3. The metadata is published (`publication`), the timestamp last.

A run that is called off, finds no network or no space publishes nothing, and the next goes on with what is stored. A
version that the source lacks or serves wrongly is reported, and does not keep the others from being published. After
a power cut what the run before had written last is verified before anything relies on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from oscirc_blockstore.accelerators import Listing
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, NotServedError, OscircError, TransportError
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_remote.deadlines import Cancellation
from oscirc_remote.rate_limits import RateLimit
from oscirc_server.mirroring import older_roots, unfinished
from oscirc_server.mirroring.accelerating import AcceleratorCopier
from oscirc_server.mirroring.copying import Copier
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.frames import FrameStore
from oscirc_server.mirroring.gathering import State, Wanted, gather
from oscirc_server.mirroring.publication import publish, put
from oscirc_server.mirroring.selection import Selection
from oscirc_server.mirroring.upstream import Upstream

DEFAULT_JOBS = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """Told what a run is about: the bytes of disks that are to be gone through, then each step towards them."""

    total: Callable[[int], object] = lambda _: None
    step: Callable[[int], object] = lambda _: None
    say: Callable[[str], object] = lambda _: None


SILENT = Progress()


@dataclass(slots=True)
class SyncReport:
    """What a run did. `absent` and `refused` name versions with the reason.

    `published` is false where a newer state was being served already.
    """

    versions: int = 0
    completed: int = 0
    blocks: int = 0
    block_bytes: int = 0
    accelerators: int = 0
    accelerator_bytes: int = 0
    snapshot_version: int = 0
    published: bool = False
    absent: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sync(
    directory: MirrorDirectory,
    selection: Selection,
    *,
    jobs: int = DEFAULT_JOBS,
    rate_limit: RateLimit | None = None,
    with_accelerators: bool = True,
    verify_stored: bool = False,
    progress: Progress = SILENT,
    cancellation: Cancellation | None = None,
) -> tuple[SyncReport, State]:
    """Bring the replica up to date; the caller is the one sync. Raises what ends a run: no network, space, trust."""
    called_off = cancellation or Cancellation()
    frames = FrameStore(directory.storage)
    report = SyncReport()
    with contextlib.ExitStack() as held:
        held.enter_context(unfinished.noted(directory, frames, everything=verify_stored, say=progress.say))
        upstream = Upstream(
            directory.remote, directory.sources, rate_limit=rate_limit, on_frame=frames.keep, cancellation=called_off
        )
        held.callback(upstream.close)
        state = gather(directory, upstream, jobs)
        older_roots.copy(directory, upstream)
        report.notes += state.notes
        copier = Copier(frames, upstream, jobs, progress.step)
        held.callback(copier.close)
        held.callback(called_off.cancel, "the sync has ended")
        copying = _Copying(directory, upstream, copier, report, progress)
        copying.run(state.wanted(selection))
        if with_accelerators:
            copying.accelerate(state, selection)
        report.published = publish(directory, state.verified, state.roles)
        report.snapshot_version = state.verified.snapshot_version
        report.blocks, report.block_bytes = frames.kept, frames.kept_bytes
    return report, state


@dataclass(slots=True)
class _Copying:
    """The versions of a run, one after the other."""

    directory: MirrorDirectory
    upstream: Upstream
    copier: Copier
    report: SyncReport
    progress: Progress

    def run(self, wanted: list[Wanted]) -> None:
        """Copy the versions that are lacking."""
        self.report.versions = len(wanted)
        manifests: list[tuple[Wanted, Manifest, bytes]] = []
        for each in wanted:
            if not self.directory.is_complete(each.manifest) or not self._has_manifest(each):
                with self._told(each):
                    manifests.append((each, *self._manifest(each)))
        self.progress.total(sum(manifest.data_blocks * manifest.geometry.block_size for _, manifest, _ in manifests))
        for each, manifest, raw in manifests:
            self.progress.say(each.reference)
            with self._told(each):
                self.copier.copy(manifest)
                put(self.directory.storage, manifest_path(each.manifest), raw)
                self.directory.storage.sync()
                self.directory.note_complete(each.manifest)
                self.report.completed += 1

    def accelerate(self, state: State, selection: Selection) -> None:
        """Copy accelerators of what is complete, then listings, then hints."""
        files = AcceleratorCopier(self.directory, self.upstream)
        listings: dict[Digest, Listing] = {}
        for each in state.wanted(selection):
            self.progress.say(f"accelerators of {each.reference}")
            with contextlib.suppress(IntegrityError, NotServedError):  # told when its blocks were to be copied
                if self.directory.is_complete(each.manifest):
                    listing = files.copy(each.manifest, self._manifest(each)[0])
                    if listing is not None:
                        listings[each.manifest] = listing
        for index in state.indexes:
            if selection.takes(index.publisher, index.image):
                files.copy_hint(index.publisher, index.image, listings)
        self.report.notes += files.refused
        self.report.accelerators, self.report.accelerator_bytes = files.copied, files.copied_bytes

    @contextlib.contextmanager
    def _told(self, wanted: Wanted) -> Iterator[None]:
        """Note what keeps one version from being here; what would keep every other from it is raised."""
        try:
            yield
        except NotServedError as error:
            self.report.absent.append((wanted.reference, str(error)))
        except IntegrityError as error:
            self.report.refused.append((wanted.reference, str(error)))

    def _has_manifest(self, wanted: Wanted) -> bool:
        return self.directory.storage.size(manifest_path(wanted.manifest)) is not None

    def _manifest(self, wanted: Wanted) -> tuple[Manifest, bytes]:
        def judged(raw: bytes) -> tuple[Manifest, bytes]:
            manifest = parse_verified(raw, wanted.manifest)
            if (manifest.publisher, manifest.image) != (wanted.publisher, wanted.image):
                raise DocumentRefusedError(f"{wanted.reference} names the disk of another image")
            return manifest, raw

        path = manifest_path(wanted.manifest)
        kept = self.directory.storage.get(path, MAX_MANIFEST_BYTES)
        if kept is not None:
            with contextlib.suppress(IntegrityError):
                return judged(kept)
        found = self.upstream.document(path, MAX_MANIFEST_BYTES, judged)
        if found is None:
            raise NotServedError(f"no source has the manifest of {wanted.reference}")
        return found


def worst(report: SyncReport) -> OscircError | None:
    """What the run ends with, when not all of what was selected is here."""
    if report.refused:
        names = ", ".join(name for name, _ in report.refused[:5])
        return IntegrityError(f"{len(report.refused)} versions were served wrongly and are not here: {names}")
    if report.absent:
        names = ", ".join(name for name, _ in report.absent[:5])
        return TransportError(f"{len(report.absent)} versions could not be had and are not here: {names}")
    return None
