"""Pins: images that the user wants to keep in the cache. Each is a file that holds the reference and the manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from oscirc_blockstore import canonical, manifest
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, LocalError
from oscirc_blockstore.fields import Fields
from oscirc_blockstore.manifest import Manifest
from oscirc_remote import paths
from oscirc_remote.local_files import read_document, write_atomically

FORMAT = "oscirc-pin-1"
MAX_REFERENCE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Pin:
    """One image that stays: what the user called it, the version, and since when (UTC)."""

    digest: Digest
    manifest: Manifest
    reference: str
    version: str
    date: str


class Pins:
    """The pins in a directory, the user's own unless given."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or paths.data_directory() / "pins"

    def add(self, digest: Digest, pinned: Manifest, reference: str, version: str) -> bool:
        """Pin it; whether it was not pinned before."""
        path = self._path(digest)
        new = not path.exists()
        document = {
            "format": FORMAT,
            "reference": reference[:MAX_REFERENCE_CHARS],
            "version": version,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "manifest": json.loads(pinned.serialise()),
        }
        if new:
            write_atomically(path, canonical.serialise(document))
        return new

    def remove(self, digest: Digest) -> bool:
        """Unpin it; whether it was pinned."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LocalError(f"cannot remove the pin {self._path(digest)}: {error.strerror}") from None
        return True

    def list(self) -> list[Pin]:
        """All pins, oldest first. Raises `LocalError` for one that cannot be read: what it names must stay."""
        found = []
        for path in sorted(self._directory.glob("[!.]*.json")):
            try:
                document = read_document(path)
                if document is not None:  # else it was removed just now
                    found.append(_parse(document, parse_hex(path.stem)))
            except (DocumentRefusedError, IntegrityError) as error:
                raise LocalError(
                    f"the pin {path} cannot be read: {error}", hint="remove that file, and pin the image again"
                ) from None
        return sorted(found, key=lambda pin: (pin.date, pin.reference))

    def _path(self, digest: Digest) -> Path:
        return self._directory / f"{digest.hex()}.json"


def _parse(document: dict[str, object], digest: Digest) -> Pin:
    fields = Fields(document, "a pin")
    fields.constant("format", FORMAT)
    inner = fields.take("manifest")
    if not isinstance(inner, dict):
        raise DocumentRefusedError("a pin without a manifest")
    pinned = manifest.parse_verified(canonical.serialise(inner), digest)
    pin = Pin(
        digest,
        pinned,
        fields.text("reference", MAX_REFERENCE_CHARS),
        fields.text("version", 63),
        fields.text("date", 20),
    )
    fields.finish()
    return pin
