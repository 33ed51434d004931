"""`oscirc serve`: run a repository server, and ask how one is (`health`, `status`); other commands are added here."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from oscirc.commands.backing_up import backup, restore
from oscirc.commands.collecting import gc, scrub
from oscirc.commands.importing import import_
from oscirc.commands.initialising import init, initialise_repository, online_keys
from oscirc.commands.recovering import adopt, recover
from oscirc.commands.renewing import resign, rotate
from oscirc.commands.working import work
from oscirc.job_options import job_settings, jobs_option, policy_options
from oscirc.options import Duration, Seconds, json_option
from oscirc.output import print_json, say
from oscirc.server_options import blocks_option, data_option, database_option, direct_reads_option, log_options

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from oscirc_server.running import ServeMetrics
    from oscirc_server.settings import Listen

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@data_option
@click.option(
    "--listen",
    default="127.0.0.1:8420",
    envvar="OSCIRC_LISTEN",
    show_envvar=True,
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen.",
)
@database_option
@blocks_option
@direct_reads_option
@log_options
@click.option("--no-shared-boots", is_flag=True, help="Take no boots that users share.")
@click.option("--tls-cert", type=_file, help="Certificate and its chain, PEM: serve HTTPS. Read anew on SIGHUP.")
@click.option("--tls-key", type=_file, help="The certificate's key, PEM, without a passphrase.")
@click.option(
    "--trusted-proxies",
    envvar="FORWARDED_ALLOW_IPS",
    show_envvar=True,
    default="127.0.0.1,::1",
    show_default=True,
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Request-Id are believed: addresses, networks, or *.",
)
@click.option(
    "--stop-within",
    type=click.IntRange(1, 3600),
    default=20,
    show_default=True,
    metavar="SECONDS",
    help="How long requests under way may take to end after SIGTERM or Ctrl-C.",
)
@click.option(
    "--metrics-listen",
    envvar="OSCIRC_METRICS_LISTEN",
    show_envvar=True,
    metavar="HOST:PORT",
    help="Serve Prometheus metrics there, without any check of who asks.",
)
@click.option(
    "--gc-every",
    type=Duration(),
    default="1d",
    show_default=True,
    help="How often to delete what nothing needs any more (0: never; then run oscirc serve gc).",
)
@jobs_option
@policy_options
@click.pass_context
def serve(
    context: click.Context,
    *,
    data: Path,
    listen: str,
    database: str | None,
    blocks: str | None,
    direct_reads: str | None,
    log_level: str,
    log_format: Literal["lines", "json"],
    no_shared_boots: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    trusted_proxies: str,
    stop_within: int,
    metrics_listen: str | None,
    gc_every: int,
    at_once: int,
    deltas: int,
    no_fleet_bundles: bool,
    job_memory: int,
    job_minutes: int,
) -> None:
    """Run a repository server until Ctrl-C or SIGTERM.

    With an empty data directory a repository is made first, as `oscirc serve init` does.

    \b
    Example:
      oscirc serve init --data /srv/oscirc --public-url https://images.example/repo
      oscirc serve --data /srv/oscirc --listen 0.0.0.0:8420
    """
    if context.invoked_subcommand is not None:
        return
    from oscirc_server.running import run
    from oscirc_server.settings import CollectionSettings, Listen, Settings

    where = Listen.parse(listen)
    if not data.exists() or not any(data.iterdir()):
        base = where.url(where.port) if where.port else None
        initialise_repository(data, None, None, base, None, database, blocks, as_json=False)
    run(
        Settings(
            data_dir=data,
            listen=where,
            database_url=database,
            blocks_url=blocks,
            direct_reads=direct_reads,
            log_level=log_level,
            log_format=log_format,
            shutdown_s=stop_within,
            shared_boots=not no_shared_boots,
            trusted_proxies=trusted_proxies,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            collection=CollectionSettings(every_s=gc_every),
            jobs=job_settings(
                at_once,
                deltas=deltas,
                no_fleet_bundles=no_fleet_bundles,
                job_memory=job_memory,
                job_minutes=job_minutes,
            ),
        ),
        ready=lambda url: click.echo(f"listening on {url}"),
        serve_metrics=None if metrics_listen is None else _metrics_server(Listen.parse(metrics_listen)),
    )


def _metrics_server(where: Listen) -> ServeMetrics:
    from oscirc.metrics_server import MetricsServer

    @contextlib.contextmanager
    def serve_metrics(collector: Collector) -> Iterator[None]:
        with MetricsServer((where.host, where.port), collector) as server:
            thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
            thread.start()
            say(f"metrics on {where.url(server.server_port)}/metrics")
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    return serve_metrics


@serve.command()
@click.argument("url", default="http://127.0.0.1:8420")
@click.option("--live", is_flag=True, help="Ask only whether the process answers, not whether it can do its work.")
@click.option("--timeout", type=Seconds(), default=5.0, show_default=True, help="Seconds to wait for the answer.")
@json_option
def health(url: str, *, live: bool, timeout: float, as_json: bool) -> int:
    """Ask a running server whether it is well. Exit code 5 when nobody answers, 6 when something fails.

    \b
    Example:
      oscirc serve health http://127.0.0.1:8420
    """
    from oscirc.server_health import ask

    answer = ask(url, live_only=live, timeout_s=timeout)
    if as_json:
        print_json({"healthy": answer.is_well, "failing": list(answer.failing)})
    else:
        click.echo("well" if answer.is_well else f"failing: {', '.join(answer.failing)}")
    return 0 if answer.is_well else 6


@serve.command()
@data_option
@database_option
@blocks_option
@click.option("--check", is_flag=True, help="For monitoring: one line, and the exit code.")
@json_option
def status(*, data: Path, database: str | None, blocks: str | None, check: bool, as_json: bool) -> int:
    """Expiries, alarms, which keys are where, sizes. Exit code 4 when something has to be done.

    \b
    Example:
      oscirc serve status --data /srv/oscirc
      oscirc serve status --data /srv/oscirc --check
    """
    from oscirc import serving_text
    from oscirc_server.administration import Administration

    found = Administration(data, database_url=database, blocks_url=blocks).status()
    healthy = found.severity == "ok"
    if as_json:
        print_json(serving_text.status_document(found))
    elif check:
        click.echo(serving_text.check_line(found))
    else:
        serving_text.print_status(found)
    return 0 if healthy else 4


serve.add_command(init)
serve.add_command(online_keys)
serve.add_command(resign)
serve.add_command(rotate)
serve.add_command(work)
serve.add_command(backup)
serve.add_command(restore)
serve.add_command(gc)
serve.add_command(scrub)
serve.add_command(recover)
serve.add_command(adopt)
serve.add_command(import_)
