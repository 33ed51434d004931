"""Profiles and the versions they belong to: what `publish --profile` and `oscirc profile add` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc.output import human_bytes, progress, say
from oscirc_blockstore import profile as profiles
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_blockstore.names import check_channel
from oscirc_blockstore.profile import MAX_PROFILE_BYTES, Profile

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc.output import Bar
    from oscirc.recording import RecordingOptions, Screen
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.disk_source import DiskSource
    from oscirc_blockstore.manifest import SystemFacts
    from oscirc_fusedriver.readers import MountOptions, PreparedImage
    from oscirc_publisher.accelerating import Accelerated
    from oscirc_publisher.disks import DiskFormat
    from oscirc_publisher.rest import RestClient
    from oscirc_remote.resolving import Resolved

AUTO = "auto"


def read_profile(file: Path) -> Profile:
    """The profile in a file, or an error that names the file."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_PROFILE_BYTES + 1)
        return profiles.parse(raw)
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except DocumentRefusedError as error:
        raise UsageError(f"{file} is not a profile: {error}", hint="record one with: oscirc record REF") from None


def _named(text: str) -> Profile:
    """`FILE`, or `NAME=FILE` for the profile in it under another name."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or Path(text).exists():
        return read_profile(Path(text))
    return replace(read_profile(Path(rest)), name=check_channel(name))


def read_profiles(texts: Sequence[str]) -> list[Profile]:
    """The profiles in these files, `FILE` or `NAME=FILE`; two of one name are an error."""
    read = [_named(text) for text in texts]
    names = [each.name for each in read]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two of the profiles are called {name!r}", hint="write NAME=FILE for one of them")
    return read


def check_positions(recorded: Sequence[Profile], disk_size: int, block_size: int) -> None:
    """Refuse a profile of another, larger disk before anything is released."""
    count = -(-disk_size // block_size)
    for each in recorded:
        if any(position >= count for position in each.positions):
            raise UsageError(
                f"the profile {each.name} names blocks beyond the end of this disk",
                hint="was it recorded on another disk, or with another --block-size? Record one: --profile auto",
            )


def record_before_release(
    client: RestClient,
    wanted: VersionReference,
    disk: Path,
    declared: DiskFormat | None,
    system: SystemFacts,
    block_size: int,
    options: RecordingOptions,
    screen: Screen | None = None,
) -> list[Profile]:
    """Boot the disk on this machine, before anybody else can, and record it; nothing where that was done before.

    Raises what ends a boot that does not reach its prompt: such a disk is not to be released.
    """
    from oscirc import recording
    from oscirc_blockstore.digests import ZERO_DIGEST
    from oscirc_publisher.accelerating import VersionName, has_profile

    if has_profile(client, VersionName(wanted.publisher, wanted.image, wanted.version), options.name):
        say(f"the profile {options.name} of {wanted.version} is there already")
        return []
    place = disk.resolve()

    def prepare(_: MountOptions) -> PreparedImage:
        return recording.prepare_disk(place, declared, block_size)

    return [recording.record(prepare, system, ZERO_DIGEST, block_size, options, screen)]


def add_profiles(
    client: RestClient,
    resolved: Resolved,
    recorded: Sequence[Profile],
    *,
    blocks: Callable[[int], bytes] | None = None,
    quiet: bool = False,
) -> list[Accelerated]:
    """Build and upload the bundles of these profiles for a released version.

    `blocks` gives a block by position where the disk is at hand; else blocks come from the cache and the repository.
    """
    from oscirc_publisher.accelerating import VersionName, add_profile
    from oscirc_remote.deadlines import Deadline
    from oscirc_remote.opening import open_source

    name = VersionName(resolved.publisher, resolved.image, resolved.version_label)
    added = []
    with contextlib.closing(open_source(resolved.remote.sources())) as source:

        def fetch(digest: Digest, raw_size: int) -> bytes:
            return source.fetch(digest, raw_size, Deadline.after(60.0))

        def load(digest: Digest, raw_size: int, position: int) -> bytes:
            return fetch(digest, raw_size) if position < 0 or blocks is None else blocks(position)

        for each in recorded:
            with progress(f"bundle {each.name}", None, quiet=quiet) as bar:
                show = _Shown(bar)
                added.append(
                    add_profile(client, name, resolved.manifest_digest, resolved.manifest, each, load, progress=show)
                )
    return added


@dataclass(frozen=True, slots=True)
class Difference:
    """How the profile `source`, of `runs` boots, differs from the one that it would replace; counts of blocks."""

    source: str
    target: str
    runs: int
    blocks: int
    new_blocks: int
    lost_blocks: int


def compared(client: RestClient, resolved: Resolved, source: str, target: str) -> tuple[Profile, Difference]:
    """The server's profile `source` under the name `target`, and how it differs from the `target` that is there."""
    from oscirc_publisher.accelerating import VersionName, listed_profile

    name = VersionName(resolved.publisher, resolved.image, resolved.version_label)
    found = listed_profile(client, name, resolved.manifest_digest, source)
    before: set[int] = set()
    if target != source:
        with contextlib.suppress(NotFoundError):
            before = set(listed_profile(client, name, resolved.manifest_digest, target).positions)
    blocks = set(found.positions)
    difference = Difference(source, target, found.runs, len(blocks), len(blocks - before), len(before - blocks))
    return replace(found, name=target), difference


def tell_difference(difference: Difference) -> None:
    """The same, for people."""
    say(
        f"{difference.source}: {difference.blocks} blocks, agreed on by {difference.runs} boots; "
        f"{difference.new_blocks} of them are not in {difference.target}, which has {difference.lost_blocks} others"
    )


def add_to_published(
    wanted: VersionReference, client: RestClient, recorded: Sequence[Profile], disk: DiskSource, *, quiet: bool
) -> list[Accelerated]:
    """The same for a version that was published just now from a disk that is at hand."""
    if not recorded:
        return []
    from oscirc_remote.resolving import resolve

    resolved = resolve(f"{wanted.remote.name}:{wanted.publisher}/{wanted.image}@{wanted.version}")
    size = resolved.manifest.geometry.block_size

    def block(position: int) -> bytes:
        offset = position * size
        return disk.read(offset, min(size, disk.size - offset)).ljust(size, b"\0")

    return add_profiles(client, resolved, recorded, blocks=block, quiet=quiet)


class _Shown:
    """Draws how far a bundle is."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Move the bar."""
        self._bar.total = total_bytes
        self._bar.update(done_bytes - self._done)
        self._done = done_bytes


def tell(added: Sequence[Accelerated]) -> None:
    """What was put there, for people."""
    for each in added:
        say(
            f"profile {each.name}: {each.blocks} blocks, {human_bytes(each.raw_bytes)}, "
            f"{human_bytes(each.bundle_bytes)} as a bundle{'' if each.uploaded else ' (was there already)'}"
        )
