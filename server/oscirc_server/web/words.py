"""Times and amounts in the words that pages use: "in 5 days", "3 hours ago", "1.5 times"."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
_MANY: Final = 2


def span(seconds: int) -> str:
    """A length of time in its largest unit that gives two or more, else in minutes: `36 hours`, `5 days`."""
    for size, name in _UNITS:
        if abs(seconds) >= _MANY * size or size == _UNITS[-1][0]:
            amount = abs(seconds) // size
            return f"{amount} {name}{'' if amount == 1 else 's'}"
    raise AssertionError  # the last unit always fits


def in_words(left_s: int) -> str:
    """When something is, seen from now: `in 5 days`, `3 hours ago`, `now`."""
    if abs(left_s) < _UNITS[-1][0]:
        return "now"
    return f"in {span(left_s)}" if left_s > 0 else f"{span(left_s)} ago"
