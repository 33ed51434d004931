"""`oscirc metrics`: what all mounts and instances do, for Prometheus; one process and one page for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from oscirc.output import say

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ASKED_AT_ONCE = 8


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Serve the page over HTTP until interrupted.")
def metrics(listen: str | None) -> None:
    """Print what all mounts and instances did and do, in Prometheus' format; or serve it.

    Printed, it suits the textfile collector of node_exporter. Served, it is one page for all of this user's mounts, at
    any path; who can reach the address can read it, so 127.0.0.1 is a good host.

    \b
    Example:
      oscirc metrics --listen 127.0.0.1:9920
    """
    from oscirc_blockstore.errors import MissingProgramError

    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise MissingProgramError(
            "this needs the Python package prometheus_client", hint="install oscirc with its extra: oscirc[metrics]"
        ) from None
    if listen is None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Everything())
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    from oscirc.metrics_server import MetricsServer
    from oscirc_server.settings import Listen

    where = Listen.parse(listen)
    with MetricsServer((where.host, where.port), Everything()) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"listening on {where.url(server.server_port)}/metrics")
        server.serve_forever()


class Everything:
    """A collector that asks every driver and every machine when it is asked."""

    def collect(self) -> Iterable[Metric]:
        """All families."""
        from oscirc import metrics_page, mount_facts
        from oscirc.commands.instances import facts_of_all
        from oscirc_fusedriver import records

        known = records.list_records()
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            mounts = list(threads.map(mount_facts.of, known))
        return list(metrics_page.families(mounts, asyncio.run(facts_of_all())))
