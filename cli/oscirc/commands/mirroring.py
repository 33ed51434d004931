"""`oscirc mirror sync | serve | status`: replicas of a repository, which need no key and cannot lie (ADR 22)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from oscirc.options import Duration, Seconds, json_option
from oscirc.output import human_bytes, print_json, progress, say, warn
from oscirc.server_options import log_options

if TYPE_CHECKING:
    from oscirc_server.mirroring.costing import Cost
    from oscirc_server.mirroring.directory import MirrorDirectory
    from oscirc_server.mirroring.pruning import Pruned
    from oscirc_server.mirroring.syncing import SyncReport

_from_option = click.option(
    "--from", "others", multiple=True, metavar="URL", help="Another address of the same repository to read from."
)


@click.group()
def mirror() -> None:
    """Replicas of a repository: verified copies that any web server can serve. They need no key and cannot lie."""


def open_directory(directory: Path, remote: str, others: tuple[str, ...]) -> MirrorDirectory:
    """The mirror in a directory, of a remote that is known by name or given by its line."""
    from oscirc_remote.remotes import Remotes
    from oscirc_server.mirroring.directory import MirrorDirectory

    line = remote if "#" in remote else Remotes().load(remote).line
    return MirrorDirectory.open(directory, line, others)


@mirror.command()
@click.argument("remote", metavar="REMOTE|URL#sha256=…")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--images", multiple=True, metavar="PUBLISHER[/IMAGE]", help="Only these (default: all).")
@click.option(
    "--versions",
    type=click.Choice(["all", "channels", "latest"]),
    default="all",
    show_default=True,
    help="Which of each image: all, what channels point at, or the newest that was not withdrawn.",
)
@_from_option
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at the same time.")
@click.option("--limit-rate", metavar="RATE", help="At most so many bytes a second, for example 2M.")
@click.option("--no-accelerators", is_flag=True, help="Copy no boot profiles, bundles and delta packs.")
@click.option("--verify", is_flag=True, help="Read all that is stored first, and fetch again what is damaged.")
@click.option("--prune", is_flag=True, help="Remove what nothing names any more.")
@click.option(
    "--grace", type=Duration(), default="7d", show_default=True, help="How long after that was first found so."
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched and removed, and do neither.")
@json_option
def sync(
    remote: str,
    directory: Path,
    *,
    images: tuple[str, ...],
    versions: str,
    others: tuple[str, ...],
    jobs: int,
    limit_rate: str | None,
    no_accelerators: bool,
    verify: bool,
    prune: bool,
    grace: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make DIR/tree a verified copy of a repository, or bring it up to date; run it from a timer.

    It can be interrupted and goes on where it was; readers see the new state when all of it is there. Serve DIR/tree
    with any web server, and tell readers of it: oscirc remote mirrors REMOTE --add URL. A copy of some images
    answers 404 for the others, which readers then take from the next mirror.

    \b
    Example:
      oscirc mirror sync 'https://images.example/repo#sha256=4f1b…' /srv/mirror --versions channels --prune
    """
    from oscirc_remote.amounts import parse_rate
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_server.mirroring import pruning, syncing
    from oscirc_server.mirroring.costing import cost
    from oscirc_server.mirroring.selection import Selection

    selection = Selection.parse(images, versions)
    limit = None if limit_rate is None else RateLimit(parse_rate(limit_rate))
    opened = open_directory(directory, remote, others)
    if dry_run:
        _report_cost(cost(opened, selection, jobs=jobs, with_accelerators=not no_accelerators), as_json=as_json)
        return
    with progress("blocks", None, quiet=as_json) as bar, opened.only_sync():
        report, state = syncing.sync(
            opened,
            selection,
            jobs=jobs,
            rate_limit=limit,
            with_accelerators=not no_accelerators,
            verify_stored=verify,
            progress=syncing.Progress(bar.reset, bar.update, bar.set_postfix_str),
        )
        pruned = pruning.prune(opened, state, selection, grace_s=grace) if prune else None
    _report(opened, report, pruned, as_json=as_json)
    problem = syncing.worst(report)
    if problem is not None:
        raise problem


@mirror.command("serve")
@click.argument("remote", metavar="REMOTE|URL#sha256=…")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("oscirc-mirror"),
    show_default=True,
    help="The mirror's directory; may be one that sync fills.",
)
@click.option("--listen", default="127.0.0.1:8421", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--quota", metavar="SIZE", help="Keep at most so many bytes of blocks and accelerators, for example 50G.")
@click.option(
    "--fresh", type=Seconds(), default=60.0, show_default=True, help="Seconds for which metadata is not asked for anew."
)
@_from_option
@click.option("--limit-rate", metavar="RATE", help="Fetch at most so many bytes a second, for example 2M.")
@log_options
def serve_mirror(
    remote: str,
    *,
    data: Path,
    listen: str,
    quota: str | None,
    fresh: float,
    others: tuple[str, ...],
    limit_rate: str | None,
    log_level: str,
    log_format: Literal["lines", "json"],
) -> None:
    """Run a mirror that fetches what it is asked for, verifies it, and keeps it, until Ctrl-C or SIGTERM.

    Without a connection it goes on serving what it has. Readers are told of it: oscirc remote mirrors REMOTE --add URL.

    \b
    Example:
      oscirc mirror serve example --data /srv/mirror --listen 0.0.0.0:8421 --quota 50G
    """
    from oscirc_remote.amounts import parse_rate, parse_size
    from oscirc_remote.rate_limits import RateLimit
    from oscirc_server.mirroring.serving import serve
    from oscirc_server.settings import Listen

    serve(
        open_directory(data, remote, others),
        Listen.parse(listen),
        lambda url: click.echo(f"listening on {url}"),
        quota_bytes=None if quota is None else parse_size(quota),
        fresh_s=fresh,
        rate_limit=None if limit_rate is None else RateLimit(parse_rate(limit_rate)),
        log_level=log_level,
        log_format=log_format,
    )


@mirror.command("status")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@json_option
def status_of_mirror(directory: Path, *, as_json: bool) -> int:
    """What a mirror holds, and until when readers take its metadata. Exit code 4 when that is soon over.

    \b
    Example:
      oscirc mirror status /srv/mirror
    """
    from oscirc_server.mirroring.state import state_of

    found = state_of(directory)
    if as_json:
        print_json({**asdict(found), "healthy": not found.alarm})
        return 0
    click.echo(f"mirror of {found.mirror_of}")
    if found.expires_s is not None and found.published_s is not None:
        dates = [
            datetime.fromtimestamp(s, UTC).strftime("%Y-%m-%d %H:%M UTC") for s in (found.published_s, found.expires_s)
        ]
        click.echo(f"metadata {found.timestamp_version}, here since {dates[0]}, until {dates[1]}")
    click.echo(
        f"{found.complete_versions} whole versions; {found.blocks} blocks and nodes, {human_bytes(found.block_bytes)}; "
        f"accelerators {human_bytes(found.accelerator_bytes)}"
    )
    if found.alarm:
        warn(found.alarm)
    return 4 if found.alarm else 0


def _report_cost(found: Cost, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
        return
    about = "" if not found.unknown_blocks else f" at most (the length of {found.unknown_blocks} is not known)"
    click.echo(f"{found.lacking} of {found.versions} versions lack something")
    click.echo(f"{found.blocks} blocks and nodes to fetch, {human_bytes(found.block_bytes)}{about}")
    click.echo(f"{found.accelerators} accelerators to fetch, {human_bytes(found.accelerator_bytes)}")
    for line in found.absent:
        warn(line)


def _report(directory: MirrorDirectory, report: SyncReport, pruned: Pruned | None, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                **asdict(report),
                "tree": str(directory.tree),
                "absent": [{"version": name, "why": why} for name, why in report.absent],
                "refused": [{"version": name, "why": why} for name, why in report.refused],
                "pruned": None if pruned is None else asdict(pruned),
            }
        )
        return
    for note in report.notes:
        warn(note)
    for name, why in (*report.absent, *report.refused):
        warn(f"{name}: {why}")
    here = report.versions - len(report.absent) - len(report.refused)
    say(
        f"{directory.tree}: {here} of {report.versions} versions, {report.completed} of them new; fetched "
        f"{report.blocks} blocks and nodes ({human_bytes(report.block_bytes)}) and {report.accelerators} accelerators "
        f"({human_bytes(report.accelerator_bytes)})"
    )
    if not report.published:
        say("the metadata here is newer already and was left as it is")
    if pruned is not None:
        say(
            f"removed {pruned.removed} files ({human_bytes(pruned.removed_bytes)}); {pruned.waiting} "
            f"({human_bytes(pruned.waiting_bytes)}) that nothing names wait for the end of their grace"
        )
