"""`oscirc serve`: run a repository server, and look after one (init, work, status, gc, scrub, resign, rotate)."""

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
from oscirc.commands.recovering import adopt, recover
from oscirc.commands.working import work
from oscirc.job_options import job_settings, jobs_option, policy_options
from oscirc.options import Duration, Seconds, json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, say, warn
from oscirc.server_options import blocks_option, data_option, database_option, direct_reads_option, log_options

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from oscirc_server.administration import Administration
    from oscirc_server.initialising import InitResult
    from oscirc_server.running import ServeMetrics
    from oscirc_server.settings import Listen

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_keys_option = click.option(
    "--keys",
    "keys_directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the root and targets keys (default: inside the data directory; better: elsewhere).",
)
_RENEWABLE = click.Choice(["root", "targets", "online"])
_ROLES = click.Choice(["root", "targets", "snapshot", "timestamp", "online"])


def _administration(data: Path, database: str | None, blocks: str | None) -> Administration:
    from oscirc_server.administration import Administration

    return Administration(data, database_url=database, blocks_url=blocks)


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
        _initialise(data, None, None, base, None, database, blocks, as_json=False)
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


def _initialise(
    data: Path,
    keys_directory: Path | None,
    passphrase_file: Path | None,
    public_url: str | None,
    name: str | None,
    database: str | None,
    blocks: str | None,
    *,
    as_json: bool,
) -> None:
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_server.initialising import initialise

    secret = passphrase(passphrase_file, what="the new root and targets keys", new=True)
    try:
        made = initialise(data, keys_directory, secret, public_url, name, database_url=database, blocks_url=blocks)
    except DocumentRefusedError as error:  # what would not be a document comes from an argument here
        raise UsageError(str(error)) from None
    _tell_made(made, as_json=as_json)
    if keys_directory is None and not as_json:
        warn(
            f"the root and targets keys are in {made.keys_dir}: whoever takes this server can sign as any publisher. "
            "Move root.pem and targets.pem away and name their place with --keys when a command needs them."
        )


def _tell_made(made: InitResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "remote_url": made.remote_url,
                "root_digest": made.root_digest,
                "admin_token": made.admin_token,
                "keys": str(made.keys_dir),
            }
        )
        return
    click.echo("Users add this repository with:")
    click.echo(f"  oscirc remote add NAME '{made.remote_url}'")
    click.echo("The administrator's token, shown this once (store it with: oscirc login NAME):")
    click.echo(f"  {made.admin_token}")


def _initialise_signed(
    data: Path,
    request_file: Path,
    signature_files: tuple[Path, ...],
    database: str | None,
    blocks: str | None,
    *,
    as_json: bool,
) -> None:
    import time

    from oscirc import ceremony_files
    from oscirc_blockstore.errors import UsageError
    from oscirc_blockstore.repository_facts import TARGET
    from oscirc_server import ceremonies
    from oscirc_server.initialising import initialise_signed

    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    if {part.role for part in request.parts} != {"root", "targets"} or TARGET not in request.documents:
        raise UsageError(f"{request_file} makes no repository", hint="that is what oscirc ceremony new asks for")
    signed = ceremonies.assemble(request, ceremony_files.read_all_signatures(request, signature_files))
    made = initialise_signed(data, signed, request.documents[TARGET], database_url=database, blocks_url=blocks)
    _tell_made(made, as_json=as_json)


@serve.command("online-keys")
@data_option
@click.option("--new", is_flag=True, help="New ones, which the next root is to name; those in force stay until then.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@database_option
@blocks_option
@json_option
def online_keys(
    *, data: Path, new: bool, out: Path | None, database: str | None, blocks: str | None, as_json: bool
) -> None:
    """Write the public halves of this server's online keys, for a ceremony. Makes keys where there are none.

    \b
    Example:
      oscirc serve online-keys --data /srv/oscirc -o online.json
    """
    from oscirc import ceremony_files
    from oscirc_server.errors import NotInitialisedError
    from oscirc_server.initialising import prepare

    try:
        made = _administration(data, database, blocks).online_keys(new=new)
    except NotInitialisedError:
        made = prepare(data)
    if out is not None:
        ceremony_files.write_new_file(out, made.serialise())
    if as_json:
        print_json({**made.fingerprints, "file": None if out is None else str(out)})
        return
    for role, mark in made.fingerprints.items():
        click.echo(f"{role:9}  {mark}")


@serve.command()
@click.argument("signature_files", metavar="[SIGNATURE]…", nargs=-1, type=_file)
@data_option
@_keys_option
@click.option("--public-url", help="The URL under which readers will reach the repository.")
@click.option("--name", help="What the repository calls itself (default: the URL's host).")
@database_option
@blocks_option
@passphrase_file_option
@click.option("--ceremony", "request_file", type=_file, help="The request of oscirc ceremony new that was signed.")
@json_option
def init(
    *,
    data: Path,
    keys_directory: Path | None,
    public_url: str | None,
    name: str | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    request_file: Path | None,
    signature_files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Make a repository: keys, first signatures, an administrator's token.

    With --ceremony root and targets keys never come near this machine: several people signed where these are.

    \b
    Example:
      oscirc serve init --data /srv/oscirc --keys /media/offline --public-url https://images.example/repo
      oscirc serve init --data /srv/oscirc --ceremony first.request first.*.signature
    """
    if request_file is not None:
        _initialise_signed(data, request_file, signature_files, database, blocks, as_json=as_json)
        return
    _initialise(data, keys_directory, passphrase_file, public_url, name, database, blocks, as_json=as_json)


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

    found = _administration(data, database, blocks).status()
    healthy = found.severity == "ok"
    if as_json:
        print_json(serving_text.status_document(found))
    elif check:
        click.echo(serving_text.check_line(found))
    else:
        serving_text.print_status(found)
    return 0 if healthy else 4


@serve.command()
@click.argument("role", type=_RENEWABLE)
@data_option
@_keys_option
@database_option
@blocks_option
@passphrase_file_option
@click.option("--above", default=0, type=click.IntRange(0, 10**12), help="online: use only version numbers above this.")
@json_option
def resign(
    role: str,
    *,
    data: Path,
    keys_directory: Path | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    above: int,
    as_json: bool,
) -> None:
    """Renew the root (5 years) or targets (1 year) role where its key is, or the online roles (7 days) at once.

    Safe beside a running server, which renews the online roles daily by itself. Where several people sign root or
    targets: oscirc ceremony root, oscirc ceremony targets.

    \b
    Example:
      oscirc serve resign targets --data /srv/oscirc --keys /media/offline
    """
    from oscirc import serving_text

    administration = _administration(data, database, blocks)
    if role == "online":
        renewed = administration.resign_online(above=above)
    else:
        secret = passphrase(passphrase_file, what=f"the {role} key")
        renewed = administration.resign(role, keys_directory, secret)
    if as_json:
        print_json(serving_text.renewed_document(renewed))
    else:
        say(f"{renewed.role} renewed: version {renewed.version}, until {serving_text.date(renewed.expires_s)}")


@serve.command()
@click.argument("role", type=_ROLES)
@data_option
@_keys_option
@database_option
@blocks_option
@passphrase_file_option
@click.option("--dry-run", is_flag=True, help="See whether the keys at hand can sign it; change nothing.")
@json_option
def rotate(
    role: str,
    *,
    data: Path,
    keys_directory: Path | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace a role's key by a new one (online: snapshot's and timestamp's at once), signed with the root key.

    Safe beside a running server. Where several people sign the root: oscirc ceremony root.

    \b
    Example:
      oscirc serve rotate online --data /srv/oscirc --keys /media/offline
    """
    from oscirc import serving_text

    secret = passphrase(passphrase_file, what="the root key")
    administration = _administration(data, database, blocks)
    made = administration.check_rotation if dry_run else administration.rotate
    renewed = made(role, keys_directory, secret)
    if as_json:
        print_json({**serving_text.renewed_document(renewed), "dry_run": dry_run})
        return
    if dry_run:
        say(
            f"the keys at hand can sign root version {renewed.version}, which would replace {role}; nothing was changed"
        )
        return
    word = "snapshot and timestamp have new keys" if role == "online" else f"{role} has a new key"
    say(f"{word}: root version {renewed.version}, until {serving_text.date(renewed.expires_s)}")


serve.add_command(work)
serve.add_command(backup)
serve.add_command(restore)
serve.add_command(gc)
serve.add_command(scrub)
serve.add_command(recover)
serve.add_command(adopt)
serve.add_command(import_)
