"""After a power cut, what the run before had written last may be damaged: block files are not synced one by one.

A file stands while a run is under way, with the machine's boot and when the run began. Where it stands at the next
start and the machine has booted since, block files written after that are read, and damaged ones removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oscirc_blockstore.digests import block_path
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.frames import FrameStore

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def noted(
    directory: MirrorDirectory, frames: FrameStore, *, everything: bool, say: Callable[[str], object]
) -> Iterator[None]:
    """Verify what has to be (or `everything`), then have the run under way noted until the block ends well."""
    place = directory.under_way_file
    boot = _boot_id()
    before = _read(place)
    rebooted = before is not None and (before[0] != boot or boot == "unknown")
    if everything or rebooted:
        say("verifying what is stored")
        verify_stored(directory, frames, 0.0 if everything or before is None else before[1])
    if before is None or rebooted:
        place.write_text(json.dumps({"boot": boot, "started_s": time.time()}), encoding="utf-8")
    yield
    directory.storage.sync()
    place.unlink(missing_ok=True)


def verify_stored(directory: MirrorDirectory, frames: FrameStore, since_s: float) -> int:
    """Read block files written since then, and remove damaged ones; how many those were."""
    removed = 0
    for digest in frames.digests():
        with contextlib.suppress(FileNotFoundError):
            if (directory.tree / block_path(digest)).stat().st_mtime >= since_s and frames.load(digest) is None:
                removed += 1
    if removed:
        directory.forget_complete()
        _log.warning("damaged block files were removed", extra={"files": removed})
    return removed


def _read(place: Path) -> tuple[str, float] | None:
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        return str(document["boot"]), float(document["started_s"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable", 0.0


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
