"""Puts a delta pack beside a released version: made here, uploaded, listed by the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from oscirc_blockstore import delta, delta_making, delta_record
from oscirc_blockstore.accelerators import DELTA
from oscirc_blockstore.delta_making import Load, Progress, Version, WholeLength
from oscirc_publisher.accelerating import VersionName, listed_accelerators
from oscirc_publisher.building import usable_cores
from oscirc_publisher.rest import Body, RestClient

_PIECE_BYTES = 256 << 10
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack that is there: from which version, its length and that of its index in bytes.

    Of one that was made just now: how many blocks differ, what these cost whole, and how many of them the pack makes.
    """

    base: str
    pack_bytes: int
    index_bytes: int
    made: bool
    blocks: int = 0
    records: int = 0
    whole_bytes: int = 0


def add_pack(
    client: RestClient,
    name: VersionName,
    base_label: str,
    old: Version,
    new: Version,
    load: Load,
    whole_length: WholeLength,
    *,
    block_at: Callable[[int], bytes] | None = None,
    level: int = delta_record.DEFAULT_LEVEL,
    again: bool = False,
    stop: threading.Event | None = None,
    progress: Progress = lambda _phase, _done, _total: None,
) -> Packed:
    """Make the pack from `old` to `new` and put it there, unless there is one (`again`: then too)."""
    called = delta.name_for(old.digest)
    for each in listed_accelerators(client, name):
        if (each.kind, each.name) == (DELTA, called) and not again:
            return Packed(base_label, each.length, each.index_length, made=False)
    with delta_making.made_pack(
        old,
        new,
        load,
        whole_length,
        block_at=block_at,
        level=level,
        workers=usable_cores() + 1,  # each more costs more, waiting for the interpreter's lock, than it hides
        stop=stop,
        progress=progress,
    ) as pack:
        file, accelerator = pack.file, pack.accelerator
        path = f"{name.path}/accelerators/{DELTA}/{called}?sha256={accelerator.sha256.hex()}"
        client.call("PUT", path, Body(accelerator.length, lambda: _pieces(file)), timeout_s=_TIMEOUT_S)
        return Packed(
            base_label,
            accelerator.length,
            accelerator.index_length,
            made=True,
            blocks=pack.blocks,
            records=pack.records,
            whole_bytes=pack.whole_bytes,
        )


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        yield piece
