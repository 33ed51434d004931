"""What must stay in the cache, and its limit: pins and bases of instances, put together where both are known."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import BusyError, DocumentRefusedError, LocalError, OscircError
from oscirc_remote import paths, preferences

if TYPE_CHECKING:
    from oscirc_blockstore.manifest import Manifest
    from oscirc_remote.eviction import Evicted, Evictor
    from oscirc_remote.quota import Quota
    from oscirc_remote.resolving import Resolved

log = logging.getLogger(__name__)


def needed() -> list[Manifest]:
    """The manifests whose blocks must stay besides those in use: pinned, or the base of an instance.

    Raises `LocalError` when it cannot be known what must stay.
    """
    from oscirc_remote.pins import Pins

    return [*(pin.manifest for pin in Pins().list()), *_bases()]


def pin(resolved: Resolved) -> bool:
    """Pin what was resolved; whether it was not pinned before. Nothing of it that is here is evicted from now on."""
    from oscirc_remote import uses
    from oscirc_remote.pins import Pins

    with uses.registering(paths.cache_directory()):
        return Pins().add(resolved.manifest_digest, resolved.manifest, str(resolved.reference), resolved.version_label)


def current() -> Iterator[Manifest]:
    """The manifests of versions that a channel points at, as far as this workstation knows."""
    from oscirc_remote.receipts import ReceiptBook
    from oscirc_remote.remotes import Remotes

    for remote in Remotes().list():
        book = ReceiptBook(remote.directory)
        for receipt in book.all():
            if receipt.channels:
                manifest = book.manifest(receipt.manifest)
                if manifest is not None:
                    yield manifest


def _bases() -> Iterator[Manifest]:
    """What instances stand on, and what they may be rolled back to."""
    from oscirc_vmlaunch.instances import Instances

    for instance in Instances().load_all():
        record = instance.record
        for stated in dict.fromkeys((record.manifest_digest, *(layer.manifest_digest for layer in record.kept))):
            try:
                digest = parse_hex(stated)
            except DocumentRefusedError:
                continue
            manifest = find_manifest(digest)
            if manifest is None:
                _warn_of_base(instance.name)
            else:
                yield manifest


@functools.cache
def _warn_of_base(name: str) -> None:
    log.warning("a base of the instance %s may be evicted: its remote, which has the manifest, was removed", name)


def profile() -> str:
    """The boot profile that `ready to boot` goes by: the preferred one, as far as the preferences can be read."""
    from oscirc_blockstore.profile import DEFAULT_NAME

    try:
        return preferences.load().profile
    except OscircError:
        return DEFAULT_NAME


def find_manifest(digest: Digest) -> Manifest | None:
    """A manifest that some remote's receipts hold."""
    from oscirc_remote.receipts import ReceiptBook
    from oscirc_remote.remotes import Remotes

    for remote in Remotes().list():
        manifest = ReceiptBook(remote.directory).manifest(digest)
        if manifest is not None:
            return manifest
    return None


def evictor() -> Evictor:
    """For the user's own cache."""
    from oscirc_remote.eviction import Evictor

    return Evictor(paths.cache_directory(), needed)


def limit_bytes(chosen: preferences.Preferences | None = None) -> int | None:
    """The cache's limit, as the user prefers; None for none."""
    limit = (chosen or preferences.load()).cache_limit
    if limit is None:
        return None
    place: Path = paths.cache_directory()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return limit.of(shutil.disk_usage(place).total)
    except OSError as error:
        raise LocalError(f"cannot look at {place}: {error.strerror}") from None


def parsed_limit(text: str) -> int:
    """A limit as given on the command line."""
    from oscirc_remote.amounts import parse_limit

    place = paths.cache_directory()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return parse_limit(text).of(shutil.disk_usage(place).total)


def collect(limit: int | None, *, dry_run: bool = False) -> Evicted:
    """Remove what nobody needs and no channel points at; then, with a limit, the least recently used of the rest.

    Raises `BusyError` while another process makes room.
    """
    from oscirc_remote.eviction import Evictor

    place = paths.cache_directory()
    old = Evictor(place, lambda: [*needed(), *current()]).run(0, dry_run=dry_run)
    if old.busy:
        raise BusyError("another process makes room in the cache just now", hint="try again in a moment")
    if not dry_run:
        _forget_accelerators(place)
    if limit is None or old.bytes_left <= limit:
        return old
    more = evictor().run(limit, low_water=1.0, dry_run=dry_run)
    if dry_run:  # what the first look found is among what the second would remove, or besides it
        freed = max(more.bytes_freed, old.bytes_freed)
        return replace(more, bytes_freed=freed, files_freed=max(more.files_freed, old.files_freed))
    return replace(
        more,
        bytes_before=old.bytes_before,
        files_before=old.files_before,
        bytes_freed=old.bytes_freed + more.bytes_freed,
        files_freed=old.files_freed + more.files_freed,
    )


def _forget_accelerators(place: Path) -> None:
    """Those of images that are gone; some KiB each, so they are not counted."""
    from oscirc_blockstore.digests import digest_of
    from oscirc_remote import accelerator_files, uses

    kept = {digest_of(manifest.serialise()) for manifest in (*needed(), *current(), *uses.used(place))}
    for path in accelerator_files.leftovers(place, kept):
        with contextlib.suppress(OSError):
            path.unlink()


def quota(*, waits: bool = False) -> Quota | None:
    """What minds the limit while something is fetched; None where there is no limit, or where it cannot be minded.

    `waits`: nothing is written while it looks, for what nobody waits for.
    """
    from oscirc.output import warn
    from oscirc_remote.quota import Quota

    try:
        limit = limit_bytes()
        return None if limit is None else Quota(evictor(), limit, waits=waits)
    except OscircError as error:
        warn(f"the cache's limit is not minded: {error}")
        return None
