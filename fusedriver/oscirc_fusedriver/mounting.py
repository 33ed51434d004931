"""Mounting an image: `mount` is what the command calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oscirc_blockstore.errors import OscircError
from oscirc_fusedriver import kernel, mountpoints, records
from oscirc_fusedriver.background import Announce, run_in_background
from oscirc_fusedriver.readers import MountOptions, PreparedImage
from oscirc_fusedriver.records import MountRecord

PREPARE_TIMEOUT_S = 90.0


def mount(
    prepare: Callable[[], PreparedImage],
    mountpoint: Path,
    *,
    foreground: bool = False,
    options: MountOptions | None = None,
    on_ready: Callable[[MountRecord], None] | None = None,
    prepare_timeout_s: float = PREPARE_TIMEOUT_S,
) -> MountRecord:
    """Show an image at `mountpoint`, an existing empty directory; a dead mount of ours there is cleaned up.

    In the background (the default) it returns as soon as the disk can be read, and the driver goes on without us.
    `prepare` is called in the driver's process, may print warnings and may start threads; this process must
    not have any. In the foreground it returns after the unmount; `on_ready` is called in between, in either case.

    Raises whatever `prepare` or the first read raised; `NotFoundError`, `UsageError`, `BusyError` or `LocalError` for
    an unusable mount point; `MissingProgramError` or `LocalError` where this machine cannot mount.
    Nothing is left mounted then. `prepare_timeout_s` bounds what comes before the first read, in the background.
    Hold no lock of your own while calling: the driver would inherit it.
    """
    kernel.check_fuse()
    place = records.real_path(mountpoint)
    chosen = options or MountOptions()
    if foreground:
        announced: list[MountRecord] = []

        def ready(record: MountRecord) -> None:
            announced.append(record)
            if on_ready is not None:
                on_ready(record)

        _drive(prepare, place, chosen, ready)
        return announced[0]

    def body(announce: Announce) -> None:
        _drive(prepare, place, chosen, lambda record: announce(asdict(record)))

    log_path = records.mounts_directory() / f"{records.mount_id(place)}.log"
    try:
        said: dict[str, Any] = run_in_background(
            body, log_path=log_path, timeout_s=prepare_timeout_s + chosen.ready_limit_s
        )
    except BaseException:  # a driver that had to be killed leaves its mount
        with contextlib.suppress(OscircError), records.claimed(place):
            mountpoints.clean_stale(place)
        raise
    record = MountRecord(**said)
    if on_ready is not None:
        on_ready(record)
    return record


def _drive(
    prepare: Callable[[], PreparedImage],
    place: Path,
    options: MountOptions,
    on_ready: Callable[[MountRecord], None],
) -> None:
    with contextlib.ExitStack() as claim:
        claim.enter_context(records.claimed(place))
        mountpoints.clean_stale(place)
        mountpoints.check_usable(place)
        prepared = prepare()
        try:
            # here, not above: its imports cost 0.2 s, which errors in the mount point need not wait for
            from oscirc_fusedriver.session import Session  # noqa: PLC0415

            session = Session(prepared, place, options, on_detached=claim.close)
        except BaseException:
            prepared.reader.close()
            raise
        session.run(on_ready)
