"""Pages of a list that is ordered by something which no two entries share: so many entries after a place, and the next.

A place is what the last entry shown is ordered by, so that nothing is skipped or shown twice while others come and go.
It comes from a stranger: what cannot be one is refused before a database sees it. One entry more than asked for is
loaded, which says whether there is a next page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from oscirc_blockstore.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9._/+-]{0,200}")
_MOMENT = re.compile(r"([0-9]{1,15})-([0-9a-f]{1,32})")
_HINT = "take `next` of the page before"
Item = TypeVar("Item")


def name_in(place: str) -> str:
    """The name that a place is; empty for the beginning; `UsageError` for what is no name."""
    if not _NAME.fullmatch(place):
        raise UsageError(f"not a place in the list: {place[:80]!r}", hint=_HINT)
    return place


def moment_in(place: str) -> tuple[int, str] | None:
    """The second and the id that a place is (`moment`); None for the beginning."""
    found = _MOMENT.fullmatch(place)
    if place and found is None:
        raise UsageError(f"not a place in the list: {place[:80]!r}", hint=_HINT)
    return None if found is None else (int(found[1]), found[2])


def moment(at_s: int, identifier: str) -> str:
    """The place of an entry that is ordered by when it was made and, of several in one second, by its id."""
    return f"{at_s}-{identifier}"


def cut(found: Sequence[Item], limit: int, place_of: Callable[[Item], str]) -> tuple[list[Item], str | None]:
    """Of `limit` + 1 entries or fewer those of this page, and the next place; None at the end."""
    page = list(found[:limit])
    return page, place_of(page[-1]) if len(found) > limit else None


def of_names(names: Sequence[str], after: str, limit: int) -> tuple[list[str], str | None]:
    """A page of sorted names that are at hand."""
    after = name_in(after)
    return cut([name for name in names if name > after][: limit + 1], limit, str)
