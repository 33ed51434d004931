"""Pages of a list: at most so many, after a place in it; the next page stands in `next` and in `Link`.

A place is what the last entry is ordered by, so that nothing is skipped or shown twice while entries come and go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_MAX_PLACE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Page:
    """What a request asks of a list; `after` is empty for its beginning."""

    limit: int
    after: str


def _page(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many.")] = DEFAULT_LIMIT,
    after: Annotated[str, Query(max_length=_MAX_PLACE_CHARS, description="`next` of the page before.")] = "",
) -> Page:
    return Page(limit, after)


CurrentPage = Annotated[Page, Depends(_page)]
"""A parameter of a route: the page that is asked for."""


def link_next(
    request: Request, response: Response, after: str | int | None, query: Mapping[str, object] | None = None
) -> None:
    """Say in `Link` where the next page is, if there is one: this very request with another `after`."""
    if after is None:
        return
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
    kept += [(name, str(value)) for name, value in (query or {}).items() if value not in (None, "")]
    last = request.url.path.rpartition("/")[2]
    response.headers["Link"] = f'<{last}?{urlencode([*kept, ("after", str(after))])}>; rel="next"'
