"""`oscirc pull` and `oscirc cache info | verify | clear`: blocks on this workstation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import click

from oscirc.options import json_option
from oscirc.output import Bar, human_bytes, print_json, progress, say, warn


@click.command()
@click.argument("reference")
@click.option("--allow-revoked", is_flag=True, help="Fetch a version that was withdrawn for security reasons.")
@json_option
def pull(reference: str, *, allow_revoked: bool, as_json: bool) -> None:
    """Fetch all of an image into the cache, so that it works without network. Goes on where it stopped.

    \b
    Example:
      oscirc pull alice/debian
    """
    from oscirc_remote.opening import open_source
    from oscirc_remote.pull import pull as pull_image
    from oscirc_remote.resolving import resolve

    started = time.monotonic()
    resolved = resolve(reference, allow_revoked=allow_revoked)
    for warning in resolved.warnings:
        warn(warning)
    manifest = resolved.manifest
    block_size = manifest.geometry.block_size
    with (
        contextlib.closing(open_source(resolved.remote.sources())) as source,
        progress("pull", manifest.data_blocks * block_size, quiet=as_json) as bar,
    ):
        counts = pull_image(manifest, source, progress=_moving(bar, block_size))
    facts = {
        "image": f"{resolved.publisher}/{resolved.image}@{resolved.version_label}",
        "manifest": resolved.manifest_digest.hex(),
        "data_bytes": manifest.data_blocks * block_size,
        "fetched_blocks": counts.fetched_blocks,
        "fetched_nodes": counts.fetched_nodes,
        "fetched_bytes": counts.received_bytes,
        "seconds": round(time.monotonic() - started, 3),
    }
    if as_json:
        print_json(facts)
    else:
        say(
            f"{facts['image']}: {human_bytes(counts.received_bytes)} fetched "
            f"({counts.fetched_blocks} of {manifest.data_blocks} blocks); safe to unplug"
        )


def _moving(bar: Bar, block_size: int) -> Callable[[int, int], None]:
    """A progress callback in positions that moves a bar in bytes."""
    shown = 0

    def move(done: int, _total: int) -> None:
        nonlocal shown
        bar.update((done - shown) * block_size)
        shown = done

    return move


@click.group()
def cache() -> None:
    """The cache of blocks: only what can be fetched again."""


@cache.command()
@json_option
def info(*, as_json: bool) -> None:
    """How much is in the cache, and where it is."""
    from oscirc_remote import paths
    from oscirc_remote.cache import STORE_DIRECTORY

    directory = paths.cache_directory() / STORE_DIRECTORY
    files = [file for file in directory.glob("??/*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        print_json({"directory": str(directory), "blocks": len(files), "bytes": size})
    else:
        click.echo(f"{directory}: {len(files)} blocks and nodes, {human_bytes(size)}")


@cache.command()
@json_option
def verify(*, as_json: bool) -> None:
    """Read every cached block and remove those that are damaged (they are fetched again when needed)."""
    from oscirc_blockstore.local_store import LocalStore
    from oscirc_remote import paths
    from oscirc_remote.cache import STORE_DIRECTORY

    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    checked = 0
    with progress("verify", None, quiet=as_json) as bar:
        for digest in store.digests():
            with contextlib.suppress(FileNotFoundError):
                size = store.path(digest).stat().st_size
                store.load(digest, size)
                checked += 1
                bar.update(size)
    if as_json:
        print_json({"checked": checked, "damaged": store.damaged})
    else:
        say(f"{checked} blocks and nodes, {store.damaged} damaged and removed")


@cache.command()
@click.confirmation_option(prompt="Remove every cached block?")
def clear() -> None:
    """Remove every cached block. Mounts go on and fetch again what they need."""
    from oscirc_blockstore.local_store import LocalStore
    from oscirc_remote import paths
    from oscirc_remote.cache import STORE_DIRECTORY

    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    count = 0
    for digest in list(store.digests()):
        store.remove(digest)
        count += 1
    say(f"{count} blocks and nodes removed")
