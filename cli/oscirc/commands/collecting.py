"""`oscirc serve gc | scrub`: an operator's: delete what nothing needs any more, and read again what is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from oscirc.options import Duration, json_option
from oscirc.output import print_json, progress
from oscirc.server_options import blocks_option, data_option, database_option

_INTEGRITY = 7


@click.command()
@data_option
@database_option
@blocks_option
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; change nothing.")
@click.option(
    "--told-for", type=Duration(), default="30d", show_default=True, help="How long after it expired metadata counts."
)
@click.option(
    "--grace", type=Duration(), default="1d", show_default=True, help="From a block's condemnation to its deletion."
)
@click.option(
    "--orphan-age", type=Duration(), default="1d", show_default=True, help="Age of files to go that nothing knows."
)
@json_option
def gc(
    *,
    data: Path,
    database: str | None,
    blocks: str | None,
    dry_run: bool,
    told_for: int,
    grace: int,
    orphan_age: int,
    as_json: bool,
) -> int:
    """Delete blocks and files that no released version and no draft needs. A running server does so every day.

    Safe beside a running server. What nothing needs is condemned first, and deleted by a later collection after the
    grace; what is wanted again meanwhile stays. Exit code 7 when blocks that a version needs are lost or damaged:
    oscirc serve scrub repairs them.

    \b
    Example:
      oscirc serve gc --data /srv/oscirc --dry-run
    """
    from oscirc import collection_text
    from oscirc_server.administration import Administration
    from oscirc_server.settings import CollectionSettings

    settings = CollectionSettings(told_for_s=told_for, condemned_for_s=grace, orphan_age_s=orphan_age)
    with progress("collecting", None, quiet=as_json, unit="") as bar:
        report = Administration(data, database_url=database, blocks_url=blocks).collect(
            settings, dry_run=dry_run, on_progress=collection_text.Shown(bar)
        )
    if as_json:
        print_json(asdict(report))
    else:
        collection_text.print_report(report)
    return _INTEGRITY if report.lost_count or report.damaged_count else 0


@click.command()
@data_option
@database_option
@blocks_option
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="Take good blocks from there. Repeatable.")
@click.option("--rate", default="50M", show_default=True, help="Read at most so many bytes a second.")
@click.option("--from-start", is_flag=True, help="Begin anew where an earlier scrub was interrupted.")
@json_option
def scrub(
    *,
    data: Path,
    database: str | None,
    blocks: str | None,
    mirrors: tuple[str, ...],
    rate: str,
    from_start: bool,
    as_json: bool,
) -> int:
    """Read every stored block again and hold it against its name. Ctrl-C is fine: the next scrub goes on there.

    What is damaged or missing is taken from a --mirror, and believed only if it hashes to its name. Else it is moved to
    DIR/quarantine, so that readers ask another source, and the next upload of that block is taken. Exit code 7 when
    something could not be repaired. Safe beside a running server.

    \b
    Example:
      oscirc serve scrub --data /srv/oscirc --mirror https://mirror.example/repo --rate 20M
    """
    from oscirc import collection_text
    from oscirc_remote.amounts import parse_rate
    from oscirc_server.administration import Administration

    with progress("scrubbing", None, quiet=as_json, unit="") as bar:
        shown = collection_text.Shown(bar)
        report = Administration(data, database_url=database, blocks_url=blocks).scrub(
            mirrors,
            bytes_per_s=parse_rate(rate),
            from_start=from_start,
            on_progress=lambda done, total: shown("reading", done, total),
        )
    if as_json:
        print_json(asdict(report))
    else:
        collection_text.print_scrub(report)
    return _INTEGRITY if report.damaged + report.missing > report.repaired else 0
