"""Profiles of traces: what `mount --trace` and `record --keep-traces` wrote becomes a profile that is published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc_blockstore import trace
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, UsageError
from oscirc_blockstore.profile import Profile, merge

if TYPE_CHECKING:
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.table import Geometry


def make(files: Sequence[Path], name: str, manifest: Digest, geometry: Geometry) -> Profile:
    """The profile `name` of a version, merged from traces of it: one trace, one run.

    Raises `UsageError` for a file that is no trace, a trace of another version, and one that touched nothing;
    `LocalError` for a file that cannot be read, and for a recording that did not come to its end.
    """
    return merge([_run(file, name, manifest, geometry) for file in files])


def _run(file: Path, name: str, manifest: Digest, geometry: Geometry) -> Profile:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            head, reads = trace.parse(trace.bounded_lines(opened))
            if (head.manifest, head.disk_size) != (manifest, geometry.disk_size):
                raise UsageError(
                    f"{file} was recorded on another version ({head.manifest.hex()[:16]}…)",
                    hint="name the version that was mounted: in the first line of the trace stands its manifest",
                )
            positions = trace.first_touch_order(reads, geometry.block_size)
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except DocumentRefusedError as error:
        raise UsageError(f"{file}: {error}", hint="traces are made with: oscirc mount --trace FILE") from None
    if not positions:
        raise UsageError(f"{file} holds no read")
    if not trace.ends(file):
        raise LocalError(
            f"{file} is not whole: a profile of it would lack what came later",
            hint="a trace ends when its mount does: oscirc umount",
        )
    return Profile(manifest, name, 1, tuple(positions))
