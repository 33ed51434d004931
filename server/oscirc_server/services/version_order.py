"""The natural order of version labels: numbers by value, `1.0-rc1` before `1.0`, `1.10` after `1.9`. Pure."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"(\d+)", re.ASCII)
_EARLIER: Final = frozenset({"a", "alpha", "b", "beta", "dev", "pre", "rc"})
_SEPARATORS: Final = ".-_+"


def natural(label: str) -> list[tuple[int, int, str]]:
    """What to sort a label by."""
    key = []
    for at, part in enumerate(_NUMBER.split(label)):
        if at % 2:
            key.append((1, int(part), ""))
        else:
            key.append((0 if part.strip(_SEPARATORS) in _EARLIER else 1, 0, part))
    return key
