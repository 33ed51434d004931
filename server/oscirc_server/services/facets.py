"""The facets of the list, one declaration each; search, the page, the API and its reference follow from it.

A facet reads one column of a version's row and says which of its values the version has: none, one, or several (what
needs 512 MiB fits machines of 1 GiB, too). `values` is also told today's date, for what depends on it. The numbers of
a facet are images of which some version has the value and fits all else that was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import InstrumentedAttribute

from oscirc_server.models import VersionRow

Fact = str | int | None
"""What a column holds."""


def as_it_is(fact: Fact, _today: str) -> tuple[str, ...]:
    """The column's own value; what is empty is none."""
    return (str(fact),) if fact not in ("", None) else ()


@dataclass(frozen=True, slots=True)
class Facet:
    """`name` stands in addresses, `label` above the choices, `description` in the API's reference.

    `values` gives a version's values out of the column's and of today's date (`2026-11-26`); `rank` orders what is
    shown where another order than the most frequent first is wanted.
    """

    name: str
    label: str
    description: str
    column: InstrumentedAttribute[str] | InstrumentedAttribute[int | None]
    values: Callable[[Fact, str], tuple[str, ...]] = as_it_is
    rank: Callable[[str], float] | None = None


FACETS: Final = (
    Facet("family", "System", "The system's family.", VersionRow.family),
    Facet("version", "System version", "The system's version.", VersionRow.system_version),
    Facet("architecture", "Processor", "The processor.", VersionRow.architecture),
    Facet("firmware", "Firmware", "`bios` or `uefi`.", VersionRow.firmware),
    Facet("publisher", "Publisher", "Who publishes it.", VersionRow.publisher),
)
