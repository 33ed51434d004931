"""The facets of the list, one declaration each; search, the page, the API and its reference follow from it.

A facet reads one column of a version's row and says which of its values the version has: none, one, or several (what
needs 512 MiB fits machines of 1 GiB, too). `values` is also told today's date, for what depends on it. The numbers of
a facet are images of which some version has the value and fits all else that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import InstrumentedAttribute

from oscirc_server.models import VersionRow

Fact = str | int | None
"""What a column holds."""


def as_it_is(fact: Fact, _today: str) -> tuple[str, ...]:
    """The column's own value; what is empty is none."""
    return (str(fact),) if fact not in ("", None) else ()


def memories(fact: Fact, _today: str) -> tuple[str, ...]:
    """The machines' memories that are enough, `512 MiB` and more, for what needs so many MiB."""
    if not isinstance(fact, int):
        return ()
    return tuple(name for size, name in _MEMORIES.items() if size >= fact) or (MORE_MEMORY,)


def supports(fact: Fact, today: str) -> tuple[str, ...]:
    """Whether a system is supported that is so until the end of a day; nothing where no day is known."""
    if not isinstance(fact, str) or not fact:
        return ()
    if fact < today:
        return (ENDED,)
    in_a_year = f"{int(today[:4]) + 1:04}{today[4:]}"
    return (SUPPORTED, FOR_A_YEAR) if fact >= in_a_year else (SUPPORTED,)


def _ranked(values: Sequence[str]) -> Callable[[str], float]:
    """The order of these values; others come last."""
    return lambda value: values.index(value) if value in values else len(values)


_MEMORIES: Final = {
    512: "512 MiB", 1024: "1 GiB", 2048: "2 GiB", 4096: "4 GiB", 8192: "8 GiB", 16_384: "16 GiB"
}  # fmt: skip
MORE_MEMORY: Final = "more than 16 GiB"
SUPPORTED: Final = "supported"
FOR_A_YEAR: Final = "for a year or more"
ENDED: Final = "ended"


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
    Facet("kind", "Made for", "`desktop`, `server` or `other`, as publishers say.", VersionRow.kind),
    Facet("architecture", "Processor", "The processor.", VersionRow.architecture),
    Facet("firmware", "Firmware", "`bios` or `uefi`.", VersionRow.firmware),
    Facet(
        "memory",
        "Runs with memory of",
        f"`{'`, `'.join((*_MEMORIES.values(), MORE_MEMORY))}`: what needs no more than that.",
        VersionRow.minimum_memory_mib,
        memories,
        _ranked((*_MEMORIES.values(), MORE_MEMORY)),
    ),
    Facet(
        "support",
        "Support",
        f"`{SUPPORTED}`, `{FOR_A_YEAR}` or `{ENDED}` today, as publishers say of the system.",
        VersionRow.end_of_life,
        supports,
        _ranked((SUPPORTED, FOR_A_YEAR, ENDED)),
    ),
    Facet("publisher", "Publisher", "Who publishes it.", VersionRow.publisher),
)
