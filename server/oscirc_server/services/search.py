"""Search: which images fit words and chosen facets, and how many would with each other choice.

A version fits if it holds every word and one of the chosen values of each facet; an image is found if one of its
versions does that counts (`VersionRow.searched`: released, or standing for its image). Everything that is counted is
images. A facet's number of a value is what `total` becomes when that value alone is chosen in it, all else kept: so
what is shown is what a click gives.

Unsigned, as all of the catalog. What is found and counted comes out of memory (`listing`), at the state that the
caller's transaction sees; the versions that stand for the images of one page are read from the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import UsageError
from oscirc_server.models import ImageRow, VersionRow
from oscirc_server.services.columns import Columns, Match, Narrowed
from oscirc_server.services.facets import FACETS, Facet
from oscirc_server.services.listing import Listing

Sort = Literal["name", "released"]

MAX_WORDS = 10
MAX_VALUES = 20  # chosen of one facet
MAX_CHOSEN = 40  # of all of them
MAX_VALUE_CHARS = 128
MAX_SHOWN_VALUES = 100  # of one facet, the most frequent first
_NAMES: Final = frozenset(facet.name for facet in FACETS)


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for; `chosen` has the wanted values of facets, any one of each is enough."""

    text: str = ""
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: Sort = "name"

    @property
    def words(self) -> tuple[str, ...]:
        """What must stand in a version's text, each of it somewhere."""
        return tuple(dict.fromkeys(self.text.lower().split()))


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, how many images it would leave, and whether it is chosen."""

    value: str
    images: int
    chosen: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found: the version that stands for it, how many versions fit, the newest one of them.

    `title` and `summary` are what its publisher says of it, or empty.
    """

    shown: VersionRow
    matches: int
    newest_match: str
    title: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One page; `total` images in all, `after` the place of the next page or None."""

    total: int
    hits: tuple[Hit, ...]
    facets: Mapping[str, tuple[FacetValue, ...]]
    after: str | None


def search(listing: Listing, session: Session, question: Question, *, after: str = "", limit: int) -> Found:
    """Answer a question; `UsageError` for one out of bounds."""
    _check(question)
    columns = listing.current(session)
    narrowed = columns.narrow(question.words, question.chosen)
    images, place = _page(columns, narrowed, question, after, limit)
    counts = columns.counts(narrowed)
    return Found(
        total=columns.total(narrowed),
        hits=_hits(session, columns.matches(narrowed, images)),
        facets={each.name: _values(each, counts[each.name], question) for each in FACETS},
        after=place,
    )


def total(listing: Listing, session: Session, question: Question) -> int:
    """How many images a question finds."""
    _check(question)
    columns = listing.current(session)
    return columns.total(columns.narrow(question.words, question.chosen))


def _check(question: Question) -> None:
    if len(question.text.split()) > MAX_WORDS:
        raise UsageError(f"ask for at most {MAX_WORDS} words")
    for facet, values in question.chosen.items():
        if facet not in _NAMES or len(values) > MAX_VALUES:
            raise UsageError(f"choose at most {MAX_VALUES} values of {', '.join(each.name for each in FACETS)}")
        if any(len(value) > MAX_VALUE_CHARS for value in values):
            raise UsageError(f"a value to choose by has at most {MAX_VALUE_CHARS} characters")
    if sum(len(values) for values in question.chosen.values()) > MAX_CHOSEN:  # each links to the list without it
        raise UsageError(f"choose at most {MAX_CHOSEN} values in all")


def _values(facet: Facet, counted: Mapping[str, int], question: Question) -> tuple[FacetValue, ...]:
    """The most frequent values, and every chosen one; in the facet's own order where it has one."""
    chosen = set(question.chosen.get(facet.name, ()))
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    found = [FacetValue(value, images, value in chosen) for value, images in ordered]
    rest = [value for value in found[MAX_SHOWN_VALUES:] if value.chosen]
    absent = sorted(chosen - counted.keys())
    shown = [*found[:MAX_SHOWN_VALUES], *rest, *(FacetValue(value, 0, chosen=True) for value in absent)]
    rank = facet.rank
    return tuple(shown if rank is None else sorted(shown, key=lambda each: rank(each.value)))


def _page(
    columns: Columns, narrowed: Narrowed, question: Question, after: str, limit: int
) -> tuple[list[int], str | None]:
    """The images of one page, and the place of the next."""
    if question.sort == "name":
        images = columns.by_name(narrowed, after)[: limit + 1]
        return images[:limit], columns.images[images[limit - 1]].name if len(images) > limit else None
    date, slash, name = after.partition(" ")
    if after and not slash:
        raise UsageError(f"not a place in the list: {after[:80]!r}", hint="take `next` of the page before")
    dated = columns.by_date(narrowed, (date, name) if after else None)[: limit + 1]
    images = [image for _, image in dated[:limit]]
    return images, f"{dated[limit - 1][0]} {columns.images[images[-1]].name}" if len(dated) > limit else None


def _hits(session: Session, matches: Sequence[Match]) -> tuple[Hit, ...]:
    if not matches:
        return ()
    said = and_(ImageRow.publisher == VersionRow.publisher, ImageRow.image == VersionRow.image)
    statement = select(VersionRow, ImageRow.title, ImageRow.summary).outerjoin(ImageRow, said)
    shown = {found[0].name: found for found in session.execute(statement.where(or_(*map(_is_shown, matches))))}
    return tuple(_hit(match, *shown[match.image.name]) for match in matches)


def _hit(match: Match, shown: VersionRow, title: str | None, summary: str | None) -> Hit:
    return Hit(shown, match.matches, match.newest, title or "", summary or "")


def _is_shown(match: Match) -> ColumnElement[bool]:
    """By the whole key, one row each: SQLite scans the table for a list of tuples.

    The place is in the other index that begins like the key: PostgreSQL takes that one where the place is not asked
    for, and looks at all versions of the image.
    """
    image = match.image
    publisher, _, name = image.name.partition("/")
    of_image = (VersionRow.publisher == publisher, VersionRow.image == name)
    return and_(*of_image, VersionRow.label == image.shown, VersionRow.position == image.position)
