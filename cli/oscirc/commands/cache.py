"""`oscirc cache info | verify | gc | clear`: blocks on this workstation."""

from __future__ import annotations

import click

from oscirc.options import json_option
from oscirc.output import human_bytes, print_done, print_json, progress, say

MOST_NAMED = 100


@click.group()
def cache() -> None:
    """The cache of blocks: only what can be fetched again."""


@cache.command()
@json_option
def info(*, as_json: bool) -> None:
    """How much is in the cache, how much of it must stay, and where it is.

    \b
    Example:
      oscirc cache info
    """
    from oscirc import hoarding
    from oscirc_remote import paths
    from oscirc_remote.cache_layout import STORE_DIRECTORY

    directory = paths.cache_directory() / STORE_DIRECTORY
    looked, limit = hoarding.evictor().run(0, dry_run=True), hoarding.limit_bytes()
    facts = {
        "directory": str(directory),
        "blocks": looked.files_before,
        "bytes": looked.bytes_before,
        "needed_blocks": looked.needed_files,
        "needed_bytes": looked.needed_bytes,
        "limit_bytes": limit,
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{directory}: {looked.files_before} blocks and nodes, {human_bytes(looked.bytes_before)}")
    click.echo(f"  must stay  {human_bytes(looked.needed_bytes)}: pinned, mounted, or the base of an instance")
    click.echo(f"  limit      {'none (cache_limit in config.toml)' if limit is None else human_bytes(limit)}")


@cache.command()
@click.option("--limit", "limit_text", metavar="SIZE", help="Bring the cache below this, 20G or 10%.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and let it stay.")
@json_option
def gc(limit_text: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Remove what no pin, mount, instance or current version needs; with a limit, then the least recently used.

    What is pinned, mounted or the base of an instance stays in any case. The limit is that of the preferences
    (cache_limit) unless given here.

    \b
    Example:
      oscirc cache gc --limit 20G --dry-run
    """
    from oscirc import hoarding

    limit = hoarding.limit_bytes() if limit_text is None else hoarding.parsed_limit(limit_text)
    result = hoarding.collect(limit, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "bytes_before": result.bytes_before,
                "removed_blocks": result.files_freed,
                "removed_bytes": result.bytes_freed,
                "left_bytes": result.bytes_left,
                "needed_bytes": result.needed_bytes,
                "limit_bytes": limit,
                "dry_run": dry_run,
            }
        )
        return
    removed = f"{result.files_freed} blocks and nodes, {human_bytes(result.bytes_freed)}"
    say(f"{removed} {'would be' if dry_run else ''} removed; {human_bytes(result.bytes_left)} left".replace("  ", " "))
    if limit is not None and result.bytes_left > limit:
        say(f"more must stay than the limit of {human_bytes(limit)} allows: see oscirc pins, oscirc status, oscirc ps")


@cache.command()
@json_option
def verify(*, as_json: bool) -> None:
    """Read every cached block and remove those that are damaged; they are fetched again when needed.

    To look at a block does not count as a use: which go first when room is needed stays as it is.

    \b
    Example:
      oscirc cache verify
    """
    from oscirc_blockstore.local_store import LocalStore
    from oscirc_remote import paths
    from oscirc_remote.cache_layout import STORE_DIRECTORY

    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    checked = checked_bytes = 0
    damaged = []
    with progress("verify", None, quiet=as_json) as bar:
        for digest in store.digests():
            size = store.check(digest)
            if size is None:
                damaged.append(digest.hex())
            checked += size != 0
            checked_bytes += size or 0
            bar.update(size or 0)
    if as_json:
        print_json(
            {
                "checked": checked,
                "checked_bytes": checked_bytes,
                "damaged": len(damaged),
                "removed": damaged[:MOST_NAMED],
            }
        )
        return
    for name in damaged[:MOST_NAMED]:
        say(f"damaged and removed: {name}")
    if len(damaged) > MOST_NAMED:
        say(f"… and {len(damaged) - MOST_NAMED} more")
    say(f"{checked} blocks and nodes, {human_bytes(checked_bytes)}: {len(damaged)} damaged and removed")
    if damaged:
        say("they are fetched again when they are needed; to have them now, run: oscirc pull REF")


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clear(*, yes: bool, as_json: bool) -> None:
    """Remove every cached block, whatever is pinned. Mounts go on and fetch again what they need.

    \b
    Example:
      oscirc cache clear --yes
    """
    from oscirc_blockstore.local_store import LocalStore
    from oscirc_remote import paths
    from oscirc_remote.cache_layout import STORE_DIRECTORY

    if not yes:
        click.confirm("Remove every cached block, of pinned images too?", abort=True, err=True)
    store = LocalStore(paths.cache_directory() / STORE_DIRECTORY)
    count = 0
    for digest in list(store.digests()):
        store.remove(digest)
        count += 1
    print_done({"removed_blocks": count}, f"{count} blocks and nodes removed", as_json=as_json)
