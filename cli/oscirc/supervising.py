"""`python -m oscirc.supervising INSTANCE`: what stays with a guest that no terminal is attached to.

Resumes it after the network or the disk was gone (`oscirc_vmlaunch.watching`), keeps its console log bounded, and after
its end removes an ephemeral instance and unmounts what `oscirc boot` mounted. Ends with the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from oscirc import composition, supervision
from oscirc_blockstore.errors import OscircError
from oscirc_vmlaunch import launching
from oscirc_vmlaunch.instances import Instances


async def _watch(name: str) -> str | None:
    """Supervise until the guest's end; its mount point then, or None when another process does."""
    instance = Instances().load(name)
    with supervision.alone(instance) as first:
        if not first:
            return None
        machine = launching.find(instance)
        if machine is not None:
            with supervision.logged(instance) as report:
                await supervision.watch(machine, report)
        with contextlib.suppress(OscircError):
            await launching.stop(instance, timeout_s=0)
    return instance.record.mount_point


def main() -> int:
    """Supervise the instance named by the one argument."""
    try:
        mount_point = asyncio.run(_watch(sys.argv[1]))
    except OscircError:
        return 1
    if mount_point is not None:
        composition.release_mount(mount_point)
    return 0


if __name__ == "__main__":
    sys.exit(main())
