"""Gives a machine its image back after the driver that served it died.

QEMU's descriptor leads into the dead mount and stays dead. So, once the image is mounted again: fresh nodes are made
for the new mount, the overlay is reopened on top of them, and the old nodes are dropped. The guest, which paused at
its first failed read, goes on when it is resumed (the supervisor does that). QEMU 6.1 or later (`blockdev-reopen`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import cast

from oscirc_blockstore.errors import LocalError
from oscirc_vmlaunch import overlays, qmp
from oscirc_vmlaunch.launching import RunningMachine
from oscirc_vmlaunch.machine import (
    BASE_DESCRIPTOR_SET,
    BASE_FILE_NODE,
    BASE_NODE,
    Node,
    base_nodes,
    overlay_node,
)


async def reattach(machine: RunningMachine, disk: Path, *, manifest_digest: str) -> None:
    """Put a running machine's overlay on `disk` (an absolute path), a fresh mount of the same image.

    UsageError when it is another image, DocumentRefusedError when its size differs, LocalError when QEMU refuses; the
    machine is then left as it was.
    """
    record = machine.instance.record
    overlays.check_base(instance=record.name, recorded_digest=record.manifest_digest, offered_digest=manifest_digest)
    overlays.check(machine.instance.overlay, size_bytes=overlays.disk_size(disk), manifest_digest=manifest_digest)
    async with machine.monitor() as monitor:
        present = await _base_nodes(monitor)
        suffix = next(suffix for number in range(len(present) + 1) if (suffix := f"-{number}") not in present)
        nodes = base_nodes(disk, suffix=suffix)
        added: list[Node] = []
        try:
            for node in nodes:
                await monitor.execute("blockdev-add", node)
                added.append(node)
            await monitor.execute("blockdev-reopen", {"options": [overlay_node(base_node=BASE_NODE + suffix)]})
        except BaseException:
            for node in reversed(added):
                await _drop(monitor, str(node["node-name"]))
            raise
        for old in present:
            await _drop(monitor, BASE_NODE + old)
            await _drop(monitor, BASE_FILE_NODE + old)
        with contextlib.suppress(LocalError):  # it was let go of before, or is still in use and merely useless
            await monitor.execute("remove-fd", {"fdset-id": BASE_DESCRIPTOR_SET})


async def _base_nodes(monitor: qmp.Monitor) -> list[str]:
    """The suffixes of the base nodes that QEMU has."""
    answer = await monitor.execute("query-named-block-nodes", {"flat": True})
    names = [str(cast("dict[str, object]", entry).get("node-name")) for entry in cast("list[object]", answer)]
    return [
        name.removeprefix(BASE_NODE)
        for name in names
        if name.startswith(BASE_NODE) and not name.startswith(BASE_FILE_NODE)
    ]


async def _drop(monitor: qmp.Monitor, node: str) -> None:
    """Remove a node that nothing uses; one that is still in use is merely useless."""
    with contextlib.suppress(LocalError):
        await monitor.execute("blockdev-del", {"node-name": node})
