"""How a pipeline's JWT comes in, and becomes a token: `--oidc-token-file`, `--oidc-token-env`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from oscirc_remote.remotes import Remote

P = ParamSpec("P")
R = TypeVar("R")


def oidc_options(function: Callable[P, R]) -> Callable[P, R]:
    """Where the JWT of a CI pipeline stands."""
    variable = click.option("--oidc-token-env", metavar="VARIABLE", help="Variable that holds a CI pipeline's JWT.")
    file = click.option(
        "--oidc-token-file",
        type=click.Path(allow_dash=True, path_type=Path),
        help="File that holds a CI pipeline's JWT, to be exchanged for a token.",
    )
    return file(variable(function))


def jwt_of(file: Path | None, variable: str | None) -> str | None:
    """The JWT, or None where neither option was given."""
    from oscirc.options import secret_from_file
    from oscirc_blockstore.errors import UsageError

    if file is not None and variable is not None:
        raise UsageError("--oidc-token-file and --oidc-token-env exclude each other")
    if file is not None:
        return secret_from_file(file, "the JWT").strip()
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise UsageError(f"the variable {variable} is not set", hint="have the CI system put its JWT there")
    return os.environ[variable].strip()


def token_for(remote: Remote, publisher: str, jwt: str) -> str:
    """The token that the remote's server gives for a JWT."""
    from oscirc_publisher.exchanging import exchange
    from oscirc_publisher.rest import RestClient

    with RestClient(remote.url, api_url=remote.api_url()) as rest:
        return exchange(rest, publisher, jwt)
