"""Version numbers that a thief used up: signed with stolen keys, seen by readers perhaps, and never to be used again.

`recovery` writes them down in the transaction that goes back before them. From then on a number among them is passed
over when the next one is chosen, a file of that number in the store is not taken over at a start, and is removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sqlalchemy.orm import Session

from oscirc_server.database import get_fact, set_fact

FACT = "disavowed"
MAX_NUMBERS = 10_000  # of one role

Disavowed = Mapping[str, frozenset[int]]


def disavowed(session: Session) -> Disavowed:
    """The numbers by role."""
    raw = get_fact(session, FACT)
    return {} if raw is None else {role: frozenset(numbers) for role, numbers in json.loads(raw).items()}


def disavow(session: Session, numbers: Mapping[str, Iterable[int]]) -> None:
    """Add to them."""
    known = {role: set(found) for role, found in disavowed(session).items()}
    for role, more in numbers.items():
        known.setdefault(role, set()).update(more)
    set_fact(session, FACT, json.dumps({role: sorted(found) for role, found in sorted(known.items())}))


def next_unused(version: int, role: str, known: Disavowed) -> int:
    """The first number above `version` that is not among them."""
    used = known.get(role, frozenset())
    version += 1
    while version in used:
        version += 1
    return version
