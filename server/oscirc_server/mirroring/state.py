"""How a mirror is: what it mirrors, for how long readers take its metadata, how much it holds. Changes nothing.

A mirror signs nothing: without a sync its timestamp expires, seven days after the repository signed it, and readers
pass it over. That is the one thing about it that needs watching.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.errors import IntegrityError, NotFoundError
from oscirc_blockstore.trust import DAY_S
from oscirc_remote.remotes import Remotes
from oscirc_server.clock import Clock, system_clock
from oscirc_server.metadata import MAX_ROLE_BYTES, parse
from oscirc_server.mirroring.directory import REMOTE, MirrorDirectory
from oscirc_server.mirroring.frames import BLOCKS
from oscirc_server.tree_paths import TIMESTAMP_PATH
from oscirc_server.tuf_api import Timestamp

ALARM_BEFORE_S = 2 * DAY_S


@dataclass(frozen=True, slots=True)
class MirrorState:
    """`expires_s` and `published_s` are seconds since the epoch, None before the first publication."""

    mirror_of: str
    sources: tuple[str, ...]
    timestamp_version: int
    expires_s: int | None
    published_s: int | None
    complete_versions: int
    blocks: int
    block_bytes: int
    accelerator_bytes: int
    alarm: str


def state_of(root: Path, clock: Clock = system_clock) -> MirrorState:
    """What there is in a mirror's directory, or `NotFoundError` when it is none."""
    if not (root / "trust" / REMOTE / "remote.json").is_file():
        raise NotFoundError(f"{root} is no mirror", hint="make one: oscirc mirror sync REMOTE DIR")
    directory = MirrorDirectory(root, Remotes(root / "trust").load(REMOTE))
    version, expires_s = _timestamp(directory)
    blocks = [file.size for file in directory.storage.files(BLOCKS)]
    served = directory.tree / TIMESTAMP_PATH
    return MirrorState(
        mirror_of=directory.remote.line,
        sources=directory.sources,
        timestamp_version=version,
        expires_s=expires_s,
        published_s=int(served.stat().st_mtime) if served.is_file() else None,
        complete_versions=directory.complete_versions(),
        blocks=len(blocks),
        block_bytes=sum(blocks),
        accelerator_bytes=sum(file.size for file in directory.storage.files("accel")),
        alarm=_alarm(expires_s, clock()),
    )


def _timestamp(directory: MirrorDirectory) -> tuple[int, int | None]:
    raw = directory.storage.get(TIMESTAMP_PATH, MAX_ROLE_BYTES)
    try:
        signed = parse(raw or b"", Timestamp, "the timestamp of the tree").signed
    except IntegrityError:
        return 0, None
    return signed.version, int(signed.expires.timestamp())


def _alarm(expires_s: int | None, now_s: float) -> str:
    if expires_s is None:
        return "nothing has been published here so far"
    if expires_s <= now_s:
        return "the metadata has expired: readers pass this mirror over until it is synced again"
    if expires_s <= now_s + ALARM_BEFORE_S:
        return f"the metadata expires in {(expires_s - now_s) / 3600:.0f} hours: is it being synced?"
    return ""
