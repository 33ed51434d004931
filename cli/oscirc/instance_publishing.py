"""An instance as something to publish: the version that it was made on, what was written since, and what that costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc.output import human_bytes
from oscirc_blockstore.errors import UsageError

if TYPE_CHECKING:
    from oscirc_remote.base_image import BaseImage
    from oscirc_remote.resolving import Resolved
    from oscirc_vmlaunch.instance_disk import InstanceDisk
    from oscirc_vmlaunch.instances import Instance

PREFIX = "instance:"


def named(disk: str) -> str | None:
    """The instance that the text names, if it names one: `instance:NAME`."""
    return disk.removeprefix(PREFIX) if disk.startswith(PREFIX) and not Path(disk).exists() else None


@dataclass(frozen=True, slots=True)
class OpenedInstance:
    """An instance that stands still, its disk open, and the version that it was made on."""

    instance: Instance
    resolved: Resolved
    base: BaseImage
    disk: InstanceDisk

    @property
    def base_name(self) -> str:
        """The version for people: `alice/debian@12.1`."""
        label = self.instance.record.version or f"sha256:{self.resolved.manifest_digest.hex()}"
        return f"{self.resolved.publisher}/{self.resolved.image}@{label}"

    def changed_bytes(self) -> int:
        """How much of the disk the instance's overlay holds, zeros included."""
        return sum(extent.size for extent in self.disk.changed())

    def facts(self) -> dict[str, object]:
        """What it is made on and what was read of it, for machines."""
        counts = self.base.counts()
        return {
            "instance": self.instance.name,
            "base": self.base_name,
            "base_manifest": self.resolved.manifest_digest.hex(),
            "changed_bytes": self.changed_bytes(),
            "overlay_bytes_read": self.disk.overlay_bytes_read,
            "base_bytes_read": counts["read_bytes"],
            "base_blocks_loaded": counts["block_loads"],
            "base_nodes_loaded": counts["node_loads"],
        }

    def told(self) -> str:
        """The same in a line, for people."""
        return (
            f"{human_bytes(self.changed_bytes())} written since {self.base_name}; "
            f"{human_bytes(self.base.counts()['read_bytes'])} read of that"
        )


@contextlib.contextmanager
def opened(name: str, warn: Callable[[str], None]) -> Iterator[OpenedInstance]:
    """The instance of that name, until the block ends; it cannot be started meanwhile."""
    from oscirc_remote import references
    from oscirc_remote.base_image import open_base
    from oscirc_remote.resolving import resolve
    from oscirc_vmlaunch import instance_disk
    from oscirc_vmlaunch.instances import Instances

    instance = Instances().load(name)
    record = instance.record
    if not record.remote:
        raise UsageError(f"the instance {name} was not made on a published image")
    image = record.reference.partition("@")[0].partition("#")[0].rpartition(":")[2]
    exact = references.parse(f"{record.remote}:{image}@sha256:{record.manifest_digest}")
    resolved = resolve(exact, allow_revoked=True)
    for warning in resolved.warnings:
        warn(warning)
    base = open_base(resolved)
    with instance_disk.opened(instance, base) as disk:
        yield OpenedInstance(instance, resolved, base, disk)
