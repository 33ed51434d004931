"""The options about background jobs that `oscirc serve` and `oscirc serve work` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from oscirc_server.settings import JobSettings

OFF = "off"
MAX_AT_ONCE = 64
_Command = TypeVar("_Command", bound=Callable[..., object])


class _AtOnce(click.ParamType[int]):
    """A number, or `off` for none."""

    name = "N|off"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text == OFF:
            return 0
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_AT_ONCE:
            self.fail(f"{text!r} is neither off nor a number from 1 to {MAX_AT_ONCE}", param, ctx)
        return int(text)


def jobs_option(command: _Command) -> _Command:
    """`--jobs N|off`."""
    return click.option(
        "--jobs", "at_once", type=_AtOnce(), default="1", show_default=True, help="Background jobs at once, or off."
    )(command)


def policy_options(command: _Command) -> _Command:
    """What is made unasked, and what a job may use; give their values to `job_settings`."""
    for option in (
        click.option("--job-minutes", type=click.IntRange(1, 1440), default=60, show_default=True, help="Of one job."),
        click.option(
            "--job-memory", type=click.IntRange(256, 1 << 20), default=2048, show_default=True, help="In MiB."
        ),
        click.option("--no-fleet-bundles", is_flag=True, help="Make no bundles of boots that users share."),
        click.option(
            "--deltas",
            type=click.IntRange(0, 20),
            default=2,
            show_default=True,
            help="Delta packs from so many versions before what a channel points at.",
        ),
    ):
        command = option(command)
    return command


def job_settings(
    at_once: int, *, deltas: int, no_fleet_bundles: bool, job_memory: int, job_minutes: int
) -> JobSettings:
    """As the server takes them."""
    from oscirc_server.settings import JobSettings

    return JobSettings(
        at_once=at_once,
        deltas=deltas,
        fleet_bundles=not no_fleet_bundles,
        memory_bytes=job_memory << 20,
        time_s=job_minutes * 60.0,
    )
