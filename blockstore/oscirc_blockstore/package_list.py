"""The list of packages of a version: what its publisher says is installed on the disk, by name and version.

An accelerator of kind `packages`, name `installed`: canonical JSON that names the manifest it was read from. It makes
nothing sooner but a page's answer, and is unsigned and unchecked: a lie makes a page wrong, nothing else. Whoever
wants to know reads the disk (`oscirc diff --packages`). Bounded in packages, characters and bytes; text that a page
or a terminal could not show as it is is refused when it is read, and left out when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.fields import Fields, check_text

FORMAT = "oscirc-packages-1"
NAME = "installed"
MAX_BYTES = 2 << 20
MAX_LISTED = 20_000
MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class PackageList:
    """Name to version of what is installed on a disk."""

    manifest: Digest
    packages: Mapping[str, str]

    def serialise(self) -> bytes:
        """The canonical bytes, checked by `parse`."""
        raw = canonical.serialise({"format": FORMAT, "manifest": self.manifest.hex(), "packages": dict(self.packages)})
        parse(raw)
        return raw


def of(manifest: Digest, installed: Mapping[str, str]) -> PackageList:
    """The list of what a package manager noted, without what cannot be shown."""
    return PackageList(manifest, {name: version for name, version in installed.items() if _shown(name, version)})


def parse(raw: bytes) -> PackageList:
    """The list in `raw`, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_BYTES, "the list of packages"), "the list of packages")
    fields.constant("format", FORMAT)
    manifest = fields.digest("manifest")
    packages = {
        check_text(name, "a package", MAX_CHARS): check_text(version, "a package's version", MAX_CHARS)
        for name, version in fields.mapping("packages", MAX_LISTED).items()
    }
    fields.finish()
    return PackageList(manifest, packages)


def _shown(name: str, version: str) -> bool:
    try:
        check_text(name, "", MAX_CHARS)
        check_text(version, "", MAX_CHARS)
    except DocumentRefusedError:
        return False
    return True
