"""What a publisher is told of its quota after a publication: the numbers, once nine tenths of a limit are used.

Whoever hears of a limit only when a publication is refused has uploaded for nothing and has to delete in a hurry. The
server counts; here is only compared and said. A server that does not answer, or has no quotas, costs no publication.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeGuard

from oscirc.output import human_bytes, warn
from oscirc_blockstore.errors import OscircError

if TYPE_CHECKING:
    from oscirc_publisher.rest import RestClient

NEAR_PERCENT = 90
_KINDS = (("unique_bytes", "unique"), ("logical_bytes", "logical"))


def tell(client: RestClient, publisher: str) -> None:
    """Warn of each limit that is nearly used."""
    with contextlib.suppress(OscircError):
        for line in lines(publisher, client.call_json("GET", f"publishers/{publisher}/quota")):
            warn(line)


def lines(publisher: str, usage: dict[str, object]) -> list[str]:
    """One line for each limit of which nine tenths or more are used; fields that are no numbers say nothing."""
    limits = usage.get("limits")
    told = []
    for field, kind in _KINDS:
        used, limit = usage.get(field), limits.get(field) if isinstance(limits, dict) else None
        if _is_count(used) and _is_count(limit) and used * 100 >= limit * NEAR_PERCENT:
            share = f", {used * 100 // limit} %" if limit else ""
            told.append(
                f"{publisher} keeps {human_bytes(used)} of the {human_bytes(limit)} that it may ({kind}{share}): "
                f"delete versions that nobody needs (oscirc retention), or ask the administrator for more"
            )
    return told


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
