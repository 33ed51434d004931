"""The list of packages that goes with a publication: read from the disk at hand, warned of where it cannot be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oscirc.output import warn
from oscirc_blockstore.errors import DeadlineExceededError, OscircError, UnreachableError

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.disk_source import DiskSource
    from oscirc_publisher.rest import RestClient


def add_to_published(client: RestClient, wanted: VersionReference, manifest: Digest, disk: DiskSource) -> int | None:
    """How many packages were listed; None where the disk says nothing, or the server does not take it."""
    from oscirc_publisher import installed_packages
    from oscirc_publisher.accelerating import VersionName

    try:
        found = installed_packages.installed(disk)
        if found is None:
            return None
        name = VersionName(wanted.publisher, wanted.image, wanted.version)
        return installed_packages.add_list(client, name, manifest, found)
    except (UnreachableError, DeadlineExceededError):
        raise
    except OscircError as error:
        warn(f"no list of packages: {error}")
        return None
