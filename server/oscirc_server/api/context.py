"""What an application's requests share: the installation, the uploader and others, typed, out of a request's scope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

from oscirc_server.admission import Admission
from oscirc_server.installation import Installation
from oscirc_server.issuer_keys import IssuerKeys
from oscirc_server.metrics import Metrics
from oscirc_server.mirror_probes import MirrorProbes
from oscirc_server.services.comparisons import Comparisons
from oscirc_server.services.downloads import Turns
from oscirc_server.services.figures import CountedFigures
from oscirc_server.services.guessing import Guessing
from oscirc_server.services.listing import Listing
from oscirc_server.services.uploads import Uploader


@dataclass(frozen=True, slots=True)
class Context:
    """One for an application, which started at `started_s` (seconds since the epoch)."""

    installation: Installation
    uploader: Uploader
    sharing: Admission
    guessing: Guessing
    issuer_keys: IssuerKeys
    metrics: Metrics
    figures: CountedFigures
    mirrors: MirrorProbes
    listing: Listing
    started_s: int
    downloads: Turns = field(default_factory=Turns)
    comparisons: Comparisons = field(default_factory=Comparisons)


_KEY = "oscirc_context"


def attach(scope: Scope, context: Context | None) -> None:
    """Give a request the context of the application that serves it."""
    scope[_KEY] = context


def context_in(scope: Scope) -> Context:
    """The context of the application that serves the request of this scope."""
    context = scope[_KEY]
    assert isinstance(context, Context)  # noqa: S101  (there is one from the application's start on)
    return context


def context_of(request: Request) -> Context:
    """The same, of a request."""
    return context_in(request.scope)


def installation_of(request: Request) -> Installation:
    """The installation of the application that serves a request."""
    return context_of(request).installation


CurrentInstallation = Annotated[Installation, Depends(installation_of)]
"""A parameter of a route: the installation."""


def listing_of(request: Request) -> Listing:
    """What the application that serves a request keeps of the list."""
    return context_of(request).listing


CurrentListing = Annotated[Listing, Depends(listing_of)]
"""A parameter of a route: the list in memory."""
