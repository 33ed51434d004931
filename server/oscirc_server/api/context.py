"""What requests share: the installation and the uploader, typed, out of the application's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

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


def attach(app: FastAPI, context: Context) -> None:
    """Give an application its context."""
    app.state.context = context


def context_of(request: Request) -> Context:
    """The context of the application that serves a request."""
    context = request.app.state.context
    assert isinstance(context, Context)  # noqa: S101  (set by `attach` before the first request)
    return context


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
