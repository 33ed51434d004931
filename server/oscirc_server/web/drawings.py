"""Pictures that the server draws as values for SVG elements: lengths in whole units of a fixed canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CANVAS: Final = 1000
_LEAST: Final = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of `width` of `CANVAS` for `size` bytes; `percent` of the longest."""

    label: str
    size: int
    width: int
    percent: float


def scaled_bars(sizes: Sequence[tuple[str, int]]) -> list[Bar]:
    """Bars to one scale, the longest as wide as the canvas; what is not nothing can be seen."""
    longest = max((size for _, size in sizes), default=0)
    bars = []
    for label, size in sizes:
        share = size / longest if longest else 0.0
        width = max(_LEAST, round(CANVAS * share)) if size else 0
        bars.append(Bar(label, size, width, round(100 * share, 1)))
    return bars
