"""Time as a seam: everything here that asks for the time gets a `Clock`, so that tests can move it by a year."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time` gives them."""

system_clock: Clock = time.time


def date_text(seconds: float) -> str:
    """A UTC date to the second, `2026-03-01T12:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
