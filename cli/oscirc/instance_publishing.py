"""An instance as something to publish: the version that it was made on, what was written since, and what is private.

Nothing of what should not be public leaves this machine unless the user said that it may: `decided` is the one
place where that is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc.output import human_bytes, say, warn
from oscirc_blockstore.errors import DiskRefusedError, UsageError

if TYPE_CHECKING:
    from oscirc_blockstore.changed_disk import ChangedDisk
    from oscirc_publisher.private_data import Find
    from oscirc_remote.base_image import BaseImage
    from oscirc_remote.resolving import Resolved
    from oscirc_vmlaunch.instance_disk import InstanceDisk
    from oscirc_vmlaunch.instances import Instance

PREFIX = "instance:"
_SHOWN_OF_A_KIND = 3
_MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user said about what should not be public, and whether anything is to be published at all."""

    clean: bool = False
    keep_secrets: bool = False
    dry_run: bool = False


def named(disk: str, wish: Wish, *, recorded: bool) -> str | None:
    """The instance that the text names, if it names one (`instance:NAME`); refuses wishes that do not go together."""
    if not disk.startswith(PREFIX) or Path(disk).exists():
        if wish != Wish():
            raise UsageError("--clean, --keep-secrets and --dry-run are for instance:NAME")
        return None
    if wish.clean and wish.keep_secrets:
        raise UsageError("either --clean or --keep-secrets")
    if recorded:
        raise UsageError(
            "--profile auto records a disk that nobody has booted yet; this one is an instance's",
            hint="publish it, then record it: oscirc record REF, oscirc profile add REF FILE",
        )
    return disk.removeprefix(PREFIX)


@dataclass(frozen=True, slots=True)
class OpenedInstance:
    """An instance that stands still, its disk open, the version that it was made on, and what was found on it.

    `disk` is what will be published: as the instance has it, or cleaned.
    """

    instance: Instance
    resolved: Resolved
    base: BaseImage
    overlay: InstanceDisk
    disk: ChangedDisk
    found: Sequence[Find] = ()
    cleaned: bool = False

    @property
    def base_name(self) -> str:
        """The version for people: `alice/debian@12.1`."""
        label = self.instance.record.version or f"sha256:{self.resolved.manifest_digest.hex()}"
        return f"{self.resolved.publisher}/{self.resolved.image}@{label}"

    def facts(self) -> dict[str, object]:
        """What it is made on, what was found, and what was read so far, for machines."""
        counts = self.base.counts()
        written, zeroed = self.overlay.held_bytes()
        return {
            "instance": self.instance.name,
            "base": self.base_name,
            "base_manifest": self.resolved.manifest_digest.hex(),
            "changed_bytes": written,
            "zeroed_bytes": zeroed,
            "overlay_bytes_read": self.overlay.overlay_bytes_read,
            "base_bytes_read": counts["read_bytes"],
            "base_blocks_loaded": counts["block_loads"],
            "base_nodes_loaded": counts["node_loads"],
            "cleaned": self.cleaned,
            "private": [
                {
                    "kind": find.kind,
                    "where": find.where,
                    "what": find.words,
                    "size": find.size,
                    "when_cleaned": find.remedy.value,
                }
                for find in self.found[:_MOST_LISTED]
            ],
        }

    def told(self) -> str:
        """What it is made on and what was written, in a line for people."""
        written, zeroed = self.overlay.held_bytes()
        freed = f", {human_bytes(zeroed)} zeroed or discarded," if zeroed else ""
        return f"{human_bytes(written)} written{freed} since {self.base_name}"


@contextlib.contextmanager
def opened(name: str, tell: Callable[[str], None]) -> Iterator[OpenedInstance]:
    """The instance of that name, looked at, until the block ends; it cannot be started meanwhile."""
    from oscirc_publisher.private_data import look
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
        tell(warning)
    if record.data_disk_bytes:
        tell(f"the data disk of {name} is not part of what is published")
    base = open_base(resolved)
    with instance_disk.opened(instance, base) as disk:
        yield OpenedInstance(instance, resolved, base, disk, disk, look(disk))


@contextlib.contextmanager
def decided(name: str, wish: Wish, *, quiet: bool) -> Iterator[OpenedInstance]:
    """The same, as it is to be published: cleaned if that is wished; refused where what is private is not allowed."""
    from oscirc_publisher import cleaning
    from oscirc_publisher.private_data import BOOT_FILES

    with opened(name, warn) as made:
        if made.found and not quiet and not wish.dry_run:
            say(f"on {name} should not be public:")
            for line in listed(made.found):
                say(f"  {line}")
        private = [find for find in made.found if find.kind != BOOT_FILES]
        if wish.clean:
            yield replace(made, disk=cleaning.clean(made.disk, made.found), cleaned=True)
        elif private and not wish.keep_secrets and not wish.dry_run:
            raise DiskRefusedError(
                f"{name} holds what should not be public ({len(private)} finds)",
                hint="--clean publishes it without (the instance stays as it is), --keep-secrets with all of it",
            )
        else:
            yield made


def listed(found: Sequence[Find]) -> Iterator[str]:
    """What was found, by kind, for people: a line each, the first few by name."""
    by_kind: dict[str, list[Find]] = {}
    for find in found:
        by_kind.setdefault(find.kind, []).append(find)
    for kind, finds in by_kind.items():
        shown = ", ".join(
            f"{find.where} ({find.words})" if find.words else find.where for find in finds[:_SHOWN_OF_A_KIND]
        )
        more = f" and {len(finds) - _SHOWN_OF_A_KIND} more" if len(finds) > _SHOWN_OF_A_KIND else ""
        size = sum(find.size for find in finds)
        shown = "".join(character if character.isprintable() else "?" for character in shown)
        yield f"{kind}: {shown}{more}{f', {human_bytes(size)}' if size else ''}"
