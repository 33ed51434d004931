"""`python -m oscirc.supervising INSTANCE`: what stays with a guest that no terminal is attached to.

Resumes it after the network or the disk was gone (`oscirc_vmlaunch.watching`), keeps its console log bounded, and after
its end removes an ephemeral instance and unmounts what `oscirc boot` mounted. Ends with the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys

from oscirc import composition
from oscirc_blockstore.errors import OscircError
from oscirc_vmlaunch import launching, watching
from oscirc_vmlaunch.instances import Instances

_log = logging.getLogger(__name__)


async def _watch(name: str) -> str:
    instance = Instances().load(name)
    machine = launching.find(instance)
    if machine is not None:
        log = instance.directory / "supervisor.log"
        handler = logging.FileHandler(log, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        await watching.watch(machine, lambda report: _log.info("%s", report.message))
        handler.close()
    with contextlib.suppress(OscircError):
        await launching.stop(instance, timeout_s=0)
    return instance.record.mount_point


def main() -> int:
    """Supervise the instance named by the one argument."""
    try:
        mount_point = asyncio.run(_watch(sys.argv[1]))
    except OscircError:
        return 1
    composition.release_mount(mount_point)
    return 0


if __name__ == "__main__":
    sys.exit(main())
