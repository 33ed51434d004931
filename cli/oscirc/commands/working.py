"""`oscirc serve work`: a process that does a server's background jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from oscirc.job_options import job_settings, jobs_option, policy_options
from oscirc.server_options import blocks_option, data_option, database_option, log_options


@click.command()
@data_option
@database_option
@blocks_option
@jobs_option
@policy_options
@log_options
def work(
    *,
    data: Path,
    database: str | None,
    blocks: str | None,
    at_once: int,
    deltas: int,
    no_fleet_bundles: bool,
    job_memory: int,
    job_minutes: int,
    log_level: str,
    log_format: Literal["lines", "json"],
) -> None:
    """Do background jobs until Ctrl-C or SIGTERM, beside servers that run with --jobs off.

    Any number of them may work on one database and store.

    \b
    Example:
      oscirc serve work --data /srv/oscirc --jobs 4
    """
    from oscirc_blockstore.errors import UsageError
    from oscirc_server.settings import Settings
    from oscirc_server.working import run

    if not at_once:
        raise UsageError("a worker without jobs would do nothing", hint="--jobs N says how many at once")
    jobs = job_settings(
        at_once,
        deltas=deltas,
        no_fleet_bundles=no_fleet_bundles,
        job_memory=job_memory,
        job_minutes=job_minutes,
    )
    settings = Settings(
        data_dir=data,
        database_url=database,
        blocks_url=blocks,
        log_level=log_level,
        log_format=log_format,
        jobs=jobs,
    )
    run(settings, ready=lambda: click.echo(f"working on jobs of {data}"))
