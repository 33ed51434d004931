"""Search: which images fit words and chosen facets, and how many would with each other choice.

A version fits if it holds every word and one of the chosen values of each facet; an image is found if one of its
versions does that counts (`VersionRow.searched`: released, or standing for its image). Everything that is counted is
images. A facet's number of a value is what `total` becomes when that value alone is chosen in it, all else kept: so
what is shown is what a click gives.

Unsigned, as all of the catalog. Rows are read, never documents: 50,000 versions are a few tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from sqlalchemy import CTE, ColumnElement, Select, Subquery, and_, func, literal, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from oscirc_blockstore.errors import UsageError
from oscirc_server.models import VersionRow

Sort = Literal["name", "released"]

MAX_WORDS = 10
MAX_VALUES = 20  # chosen of one facet
MAX_SHOWN_VALUES = 100  # of one facet, the most frequent first
FACETS: Final[Mapping[str, InstrumentedAttribute[str]]] = MappingProxyType(
    {
        "family": VersionRow.family,
        "version": VersionRow.system_version,
        "architecture": VersionRow.architecture,
        "firmware": VersionRow.firmware,
        "publisher": VersionRow.publisher,
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for; `chosen` has the wanted values of facets, any one of each is enough."""

    text: str = ""
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: Sort = "name"


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, how many images it would leave, and whether it is chosen."""

    value: str
    images: int
    chosen: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found: the version that stands for it, how many versions fit, the newest one of them."""

    shown: VersionRow
    matches: int
    newest_match: str


@dataclass(frozen=True, slots=True)
class Found:
    """One page; `total` images in all, `after` the place of the next page or None."""

    total: int
    hits: tuple[Hit, ...]
    facets: Mapping[str, tuple[FacetValue, ...]]
    after: str | None


def search(session: Session, question: Question, *, after: str = "", limit: int) -> Found:
    """Answer a question; `UsageError` for one out of bounds."""
    _check(question)
    names, place = _names(session, question, after, limit)
    total, counts = _counts(session, question)
    return Found(
        total=total,
        hits=_hits(session, question, names),
        facets={facet: _values(counts[facet], set(question.chosen.get(facet, ()))) for facet in FACETS},
        after=place,
    )


def _check(question: Question) -> None:
    if len(question.text.split()) > MAX_WORDS:
        raise UsageError(f"ask for at most {MAX_WORDS} words")
    for facet, values in question.chosen.items():
        if facet not in FACETS or len(values) > MAX_VALUES:
            raise UsageError(f"choose at most {MAX_VALUES} values of {', '.join(FACETS)}")


def _text_conditions(question: Question) -> list[ColumnElement[bool]]:
    """What a version's row must fulfil, whatever is chosen."""
    words = dict.fromkeys(question.text.lower().split())
    return [
        VersionRow.searched.is_(True),
        *(VersionRow.search_text.contains(word, autoescape=True) for word in words),
    ]


def _conditions(question: Question) -> list[ColumnElement[bool]]:
    """What a version's row must fulfil."""
    chosen = [FACETS[facet].in_(list(dict.fromkeys(values))) for facet, values in question.chosen.items() if values]
    return [*_text_conditions(question), *chosen]


def _counts(session: Session, question: Question) -> tuple[int, Mapping[str, list[tuple[str, int]]]]:
    """How many images fit, and for each facet its values with their images: one statement.

    Where something is asked for, the rows are looked for once and kept while the statement runs; else the indexes of
    the facets give all that is needed.
    """
    columns = {facet: column.label(facet) for facet, column in FACETS.items()}
    base = select(VersionRow.name.label("name"), *columns.values()).where(*_text_conditions(question))
    narrowed = bool(question.text.split()) or any(question.chosen.values())
    rows: CTE | Subquery = base.cte("fitting").prefix_with("MATERIALIZED") if narrowed else base.subquery()
    parts: list[Select[Any]] = []
    for facet in (*FACETS, ""):
        chosen = [
            rows.c[other].in_(list(dict.fromkeys(values)))
            for other, values in question.chosen.items()
            if values and other != facet
        ]
        value = rows.c[facet] if facet else literal("")
        pairs = select(value.label("value"), rows.c.name).where(*chosen, *([value != ""] if facet else []))
        distinct = pairs.distinct().subquery()
        parts.append(select(literal(facet), distinct.c.value, func.count()).group_by(distinct.c.value))
    counts: dict[str, list[tuple[str, int]]] = {facet: [] for facet in (*FACETS, "")}
    for row in session.execute(union_all(*parts)):
        counts[row[0]].append((row[1], row[2]))
    return sum(images for _, images in counts[""]), counts


def _values(counted: Sequence[tuple[str, int]], chosen: set[str]) -> tuple[FacetValue, ...]:
    """The most frequent values, and every chosen one."""
    ordered = sorted(counted, key=lambda each: (-each[1], each[0]))
    found = [FacetValue(value, images, value in chosen) for value, images in ordered]
    rest = [value for value in found[MAX_SHOWN_VALUES:] if value.chosen]
    absent = sorted(chosen - {value.value for value in found})
    return (*found[:MAX_SHOWN_VALUES], *rest, *(FacetValue(value, 0, chosen=True) for value in absent))


def _names(session: Session, question: Question, after: str, limit: int) -> tuple[list[str], str | None]:
    """The names of one page, and the place of the next."""
    conditions = _conditions(question)
    if question.sort == "name":
        statement = select(VersionRow.name).where(*conditions).distinct().order_by(VersionRow.name)
        if after:
            statement = statement.where(VersionRow.name > after)
        names = list(session.scalars(statement.limit(limit + 1)))
        return names[:limit], names[limit - 1] if len(names) > limit else None
    newest = func.max(VersionRow.released)
    grouped = select(VersionRow.name, newest).where(*conditions).group_by(VersionRow.name)
    if after:
        date, slash, name = after.partition(" ")
        if not slash:
            raise UsageError(f"not a place in the list: {after[:80]!r}", hint="take `next` of the page before")
        grouped = grouped.having(or_(newest < date, and_(newest == date, VersionRow.name > name)))
    rows = session.execute(grouped.order_by(newest.desc(), VersionRow.name).limit(limit + 1)).all()
    place = f"{rows[limit - 1][1]} {rows[limit - 1][0]}" if len(rows) > limit else None
    return [name for name, _ in rows[:limit]], place


def _hits(session: Session, question: Question, names: Sequence[str]) -> tuple[Hit, ...]:
    if not names:
        return ()
    shown = {
        row.name: row
        for row in session.scalars(select(VersionRow).where(VersionRow.name.in_(names), VersionRow.shown.is_(True)))
    }
    counted = (
        select(VersionRow.name, func.count(), func.max(VersionRow.position))
        .where(*_conditions(question), VersionRow.name.in_(names))
        .group_by(VersionRow.name)
    )
    matching = {name: (count, position) for name, count, position in session.execute(counted)}
    newest = select(VersionRow.name, VersionRow.label).where(
        VersionRow.searched.is_(True),
        or_(*(and_(VersionRow.name == name, VersionRow.position == at) for name, (_, at) in matching.items())),
    )
    labels = {row.name: row.label for row in session.execute(newest)}
    return tuple(
        Hit(shown[name], matching[name][0], labels[name]) for name in names if name in shown and name in matching
    )
