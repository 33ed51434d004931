"""What happened, counted: one small thread-safe class, owned by whoever counts; there are no global counters."""

from __future__ import annotations

import threading


class Counters:
    """Named totals that only grow; names are fixed when it is made, so that a misspelt one fails in its test."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, int] = dict.fromkeys(names, 0)

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more; raises `KeyError` for a name that was not announced."""
        with self._lock:
            self._totals[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._totals[name]

    def snapshot(self) -> dict[str, int]:
        """All totals at one moment."""
        with self._lock:
            return dict(self._totals)
