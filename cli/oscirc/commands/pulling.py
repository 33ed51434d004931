"""`oscirc pull`, and `oscirc pin | unpin | pins`: images that are to be here, and to stay."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from oscirc.options import Seconds, json_option
from oscirc.output import Bar, human_bytes, print_json, print_table, progress, say, warn
from oscirc_blockstore.errors import DeadlineExceededError, StoreFullError, UnreachableError

if TYPE_CHECKING:
    from oscirc_remote.image import ImageReader
    from oscirc_remote.pins import Pin
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_remote.resolving import Resolved

PATIENCE_S = 60.0
FULL_HINT = "see oscirc pins, free space, raise cache_limit, or run: oscirc cache gc"
_LOOK_S = 0.2


@click.command()
@click.argument("reference")
@click.option("--profile-only", is_flag=True, help="Fetch what a boot reads, and no more.")
@click.option(
    "--profile", metavar="NAME", help="With --profile-only: which profile (default: the preferred one, else boot)."
)
@click.option("--limit-rate", metavar="RATE", help="At most so many bytes a second, for example 2M.")
@click.option(
    "--deadline",
    type=Seconds(),
    default=PATIENCE_S,
    show_default=True,
    help="Seconds without a byte after which it fails.",
)
@click.option("--pin", is_flag=True, help="Pin it too, so that it stays in the cache.")
@click.option("--allow-revoked", is_flag=True, help="Fetch a version that was withdrawn for security reasons.")
@json_option
def pull(
    reference: str,
    *,
    profile_only: bool,
    profile: str | None,
    limit_rate: str | None,
    deadline: float,
    pin: bool,
    allow_revoked: bool,
    as_json: bool,
) -> None:
    """Fetch all of an image into the cache, so that it works without network. Goes on where it stopped.

    With --profile-only what a boot reads, as its boot profile says, so that it boots without network.

    Proxies are taken from the environment (http_proxy, https_proxy, no_proxy) or the preferences (proxy, no_proxy).

    \b
    Example:
      oscirc pull alice/debian
      oscirc pull alice/debian --profile-only --limit-rate 1M
    """
    from oscirc import hoarding
    from oscirc_blockstore.errors import UsageError
    from oscirc_remote.amounts import parse_rate
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_remote.resolving import resolve

    if profile is not None and not profile_only:
        raise UsageError(
            "all of an image is more than any profile of it", hint="leave --profile out, or add --profile-only"
        )
    limit = None if limit_rate is None else RateLimit(parse_rate(limit_rate))
    started = time.monotonic()
    try:
        resolved = resolve(reference, allow_revoked=allow_revoked)
        for warning in resolved.warnings:
            warn(warning)
        if pin:
            hoarding.pin(resolved)
        if profile_only:
            facts = _pull_profile(resolved, _chosen(profile), limit, patience_s=deadline, quiet=as_json)
        else:
            facts = pull_all(resolved, limit, patience_s=deadline, quiet=as_json)
    except KeyboardInterrupt:
        say("what came stays: run it again to go on")
        raise
    facts |= {
        "image": f"{resolved.publisher}/{resolved.image}@{resolved.version_label}",
        "manifest": resolved.manifest_digest.hex(),
        "seconds": round(time.monotonic() - started, 3),
    }
    if as_json:
        print_json(facts)
        return
    ready = "ready to boot" if profile_only else "safe to unplug"
    fetched = human_bytes(int(str(facts["fetched_bytes"])))
    say(f"{facts['image']}: {fetched} fetched ({facts['fetched_blocks']} blocks); {ready}")


def _chosen(profile: str | None) -> str:
    """The profile that `status` goes by when it says whether the image is ready to boot, unless another was named."""
    from oscirc import hoarding
    from oscirc.fetching_ahead import NONE
    from oscirc_blockstore.errors import UsageError

    chosen = hoarding.profile() if profile is None else profile
    if chosen == NONE:
        raise UsageError("--profile-only of no profile fetches nothing", hint="name one: --profile boot")
    return chosen


def pull_all(
    resolved: Resolved, limit: RateLimit | None, *, patience_s: float = PATIENCE_S, quiet: bool
) -> dict[str, object]:
    """All that the cache lacks of an image; what was done, as facts."""
    from oscirc import hoarding
    from oscirc_remote import paths, uses
    from oscirc_remote.opening import open_whole
    from oscirc_remote.pull import PARALLELISM
    from oscirc_remote.pull import pull as pull_image

    manifest = resolved.manifest
    block_size = manifest.geometry.block_size
    _warn_of_little_room(resolved)
    with (
        uses.using(paths.cache_directory(), manifest),
        contextlib.closing(open_whole(resolved, rate_limit=limit, quota=hoarding.quota(waits=True))) as opened,
        progress("pull", manifest.data_blocks * block_size, quiet=quiet) as bar,
    ):
        counts = pull_image(
            manifest,
            opened.source,
            progress=_moving(bar, block_size),
            parallelism=limit.at_once(block_size, PARALLELISM) if limit else PARALLELISM,
            patience_s=patience_s + (2 * block_size / limit.bytes_per_s if limit else 0),
        )
        packs = opened.packs.status()
    return {
        "data_bytes": manifest.data_blocks * block_size,
        "fetched_blocks": counts.fetched_blocks,
        "fetched_nodes": counts.fetched_nodes,
        "fetched_bytes": counts.received_bytes + packs.received_bytes,
        "packs": asdict(packs),
    }


def _warn_of_little_room(resolved: Resolved) -> None:
    """Before the download, not at its end: what is missing may be more than the disk has room for."""
    from oscirc_remote import paths, readiness

    here = readiness.look(paths.cache_directory(), resolved.manifest_digest, resolved.manifest, "")
    missing = (here.blocks - here.blocks_here) * resolved.manifest.geometry.block_size
    free = shutil.disk_usage(paths.cache_directory()).free
    if missing > free:
        warn(
            f"up to {human_bytes(missing)} are missing, and {paths.cache_directory()} has room for {human_bytes(free)}"
        )


def _pull_profile(
    resolved: Resolved, profile: str, limit: RateLimit | None, *, patience_s: float, quiet: bool
) -> dict[str, object]:
    from oscirc import hoarding
    from oscirc.fetching_ahead import AheadWish
    from oscirc_remote import paths, readiness
    from oscirc_remote.opening import open_image
    from oscirc_remote.prefetch import PrefetchOptions

    AheadWish(profile=profile).check_profile(resolved)
    options = PrefetchOptions(profile=profile, guesses=False)
    quota = hoarding.quota(waits=True)
    with contextlib.closing(open_image(resolved, prefetch=options, rate_limit=limit, quota=quota)) as reader:
        _wait_for_profile(reader, patience_s, quiet=quiet)
        status = reader.status()
        share = readiness.profile_share(
            paths.cache_directory(), resolved.manifest_digest, resolved.manifest, options.profile
        )
    if not 0 < share.total == share.here:
        if status.cache.uncached_writes:
            raise StoreFullError(f"the cache keeps nothing more: {status.cache.last_write_problem}", hint=FULL_HINT)
        raise UnreachableError(
            f"{share.here} of {share.total or 'all'} blocks of the profile could be fetched"
            f"{f': {status.prefetch.last_problem}' if status.prefetch.last_problem else ''}",
            hint="run it again to go on",
        )
    return {
        "profile": profile,
        "profile_blocks": share.total,
        "data_bytes": status.bytes_needed,
        "fetched_blocks": status.cache.fetched_blocks + status.prefetch.blocks,
        "fetched_nodes": status.cache.fetched_nodes,
        "fetched_bytes": status.received_bytes,
    }


def _wait_for_profile(reader: ImageReader, patience_s: float, *, quiet: bool) -> None:
    """Until it is here or nobody has it; `DeadlineExceededError` after so long without a byte."""
    settled = threading.Event()
    reader.on_settled(settled.set)
    moved, shown = time.monotonic(), 0
    with progress("pull", None, quiet=quiet) as bar:
        while not settled.wait(_LOOK_S):
            status = reader.status()
            prefetch, received = status.prefetch, status.received_bytes
            if received > shown:
                bar.total = prefetch.bundle_bytes or None
                bar.update(received - shown)
                moved, shown = time.monotonic(), received
            if time.monotonic() > moved + patience_s:
                why = f": {prefetch.last_problem}" if prefetch.last_problem else ""
                raise DeadlineExceededError(
                    f"nothing came for {patience_s:g} s{why}",
                    hint="run it again to go on",
                )


def _moving(bar: Bar, block_size: int) -> Callable[[int, int], None]:
    """A progress callback in positions that moves a bar in bytes."""
    shown = 0

    def move(done: int, _total: int) -> None:
        nonlocal shown
        bar.update((done - shown) * block_size)
        shown = done

    return move


@click.command()
@click.argument("reference")
@click.option("--allow-revoked", is_flag=True, help="Pin a version that was withdrawn for security reasons.")
@json_option
def pin(reference: str, *, allow_revoked: bool, as_json: bool) -> None:
    """Keep an image in the cache, whatever its limit: what is here of it, and what comes. Pins the version of now.

    \b
    Example:
      oscirc pin alice/debian && oscirc pull alice/debian
    """
    from oscirc import hoarding
    from oscirc_remote import paths, readiness
    from oscirc_remote.resolving import resolve_for_boot

    resolved = resolve_for_boot(reference, allow_revoked=allow_revoked)
    for warning in resolved.warnings:
        warn(warning)
    digest = resolved.manifest_digest
    new = hoarding.pin(resolved)
    here = readiness.look(paths.cache_directory(), digest, resolved.manifest, "boot")
    name = f"{resolved.publisher}/{resolved.image}@{resolved.version_label}"
    if as_json:
        print_json(
            {
                "image": name,
                "manifest": digest.hex(),
                "new": new,
                "needed_blocks": here.blocks,
                "cached_blocks": here.blocks_here,
                "safe_to_unplug": here.is_complete,
            }
        )
        return
    say(f"{name} is pinned{'' if new else ' (it was before)'}; {here.blocks_here} of {here.blocks} blocks are here")
    if not here.is_complete:
        say(f"fetch the rest with: oscirc pull {resolved.reference}")


@click.command()
@click.argument("reference")
@json_option
def unpin(reference: str, *, as_json: bool) -> None:
    """Let an image go from the cache when room is needed; harmless where it is not pinned.

    Name it as it was pinned, or by its manifest's digest. Without a version all pinned ones of that image are meant.

    \b
    Example:
      oscirc unpin alice/debian
    """
    from oscirc_remote import references
    from oscirc_remote.pins import Pins

    pins = Pins()
    meant = [each for each in pins.list() if _is_meant(each, reference)]
    if not meant:
        references.parse(reference)  # a slip of the pen is not the same as a pin that is gone
    for each in meant:
        pins.remove(each.digest)
    if as_json:
        print_json({"unpinned": [{"image": _name(each), "manifest": each.digest.hex()} for each in meant]})
        return
    for each in meant:
        say(f"{_name(each)} is no longer pinned")
    if not meant:
        say(f"{reference} is not pinned; what is, says: oscirc pins")


def _is_meant(each: Pin, text: str) -> bool:
    wanted = text.removeprefix("sha256:")
    names = {
        each.reference,
        each.reference.rpartition(":")[2],
        _name(each),
        f"{each.manifest.publisher}/{each.manifest.image}",
    }
    return text in names or (len(wanted) >= 8 and each.digest.hex().startswith(wanted))  # noqa: PLR2004


def _name(each: Pin) -> str:
    return f"{each.manifest.publisher}/{each.manifest.image}@{each.version}"


@click.command()
@json_option
def pins(*, as_json: bool) -> None:
    """The images that are pinned, and how much of each is here.

    \b
    Example:
      oscirc pins
    """
    from oscirc import hoarding
    from oscirc_remote import paths, readiness
    from oscirc_remote.pins import Pins

    place, profile = paths.cache_directory(), hoarding.profile()
    found = [(each, readiness.look(place, each.digest, each.manifest, profile)) for each in Pins().list()]
    if as_json:
        print_json(
            {
                "pins": [
                    {
                        "image": _name(each),
                        "reference": each.reference,
                        "manifest": each.digest.hex(),
                        "since": each.date,
                        "needed_blocks": here.blocks,
                        "cached_blocks": here.blocks_here,
                        "ready_to_boot": here.is_ready_to_boot,
                        "safe_to_unplug": here.is_complete,
                    }
                    for each, here in found
                ]
            }
        )
    elif not found:
        say("nothing is pinned; pin an image with: oscirc pin REF")
    else:
        rows = [
            (
                _name(each),
                each.date[:10],
                f"{100 * here.blocks_here // max(1, here.blocks)} %",
                "yes" if here.is_ready_to_boot else "no",
            )
            for each, here in found
        ]
        print_table(("IMAGE", "SINCE", "HERE", "READY TO BOOT"), rows)
