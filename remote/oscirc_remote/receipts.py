"""Receipts: what was verified here before, so that it boots without a network and whatever became of its metadata.

A receipt is written for every version that was resolved online, beside its manifest. It says which channels pointed
there, when that was verified, until when the metadata was fresh, and whether the version had been yanked. A channel
stays on the receipt of the last version that was resolved through it, and leaves it only for another receipt: offline,
`#stable` is the newest `stable` that this workstation knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from oscirc_blockstore import canonical, manifest
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, LocalError, NameRefusedError
from oscirc_blockstore.fields import Fields
from oscirc_blockstore.image_index import MAX_CHANNELS, MAX_REASON_CHARS, ImageIndex, Yank, check_date
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest
from oscirc_blockstore.names import check_channel, check_image, check_publisher, check_version
from oscirc_remote.local_files import children, read_bytes, read_document, write_atomically
from oscirc_remote.references import Reference

FORMAT = "oscirc-receipt-1"
_DATE = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One version verified on this workstation; dates are UTC."""

    publisher: str
    image: str
    version: str
    manifest: Digest
    channels: tuple[str, ...]
    verified: datetime
    expires: datetime
    yanked: Yank | None = None

    def serialise(self) -> bytes:
        """The canonical bytes."""
        document: dict[str, object] = {
            "format": FORMAT,
            "publisher": self.publisher,
            "image": self.image,
            "version": self.version,
            "manifest": self.manifest.hex(),
            "channels": sorted(self.channels),
            "verified": self.verified.strftime(_DATE),
            "expires": self.expires.strftime(_DATE),
        }
        if self.yanked is not None:
            yanked = self.yanked
            document["yanked"] = {"why": yanked.why, "date": yanked.date, "security": yanked.security}
        return canonical.serialise(document)


def _date(fields: Fields, key: str) -> datetime:
    return datetime.strptime(check_date(fields.text(key, 20), key), _DATE).replace(tzinfo=UTC)


def parse(document: dict[str, object]) -> Receipt:
    """The receipt in a parsed document, or `DocumentRefusedError`."""
    fields = Fields(document, "a receipt")
    fields.constant("format", FORMAT)
    yanked = None
    if fields.has("yanked"):
        inner = Fields(fields.take("yanked"), "a receipt's yank")
        why, date = inner.text("why", MAX_REASON_CHARS, lines=True), check_date(inner.text("date", 20), "its date")
        yanked = Yank(why, date, inner.boolean("security"))
        inner.finish()
    try:
        receipt = Receipt(
            check_publisher(fields.text("publisher", 63)),
            check_image(fields.text("image", 63)),
            check_version(fields.text("version", 63)),
            fields.digest("manifest"),
            tuple(check_channel(str(name)) for name in fields.sequence("channels", MAX_CHANNELS)),
            _date(fields, "verified"),
            _date(fields, "expires"),
            yanked,
        )
    except (NameRefusedError, ValueError) as error:
        raise DocumentRefusedError(f"a receipt: {error}") from None
    fields.finish()
    return receipt


def _readable(directory: Path) -> list[Path]:
    try:
        return children(directory)
    except LocalError:
        return []


class ReceiptBook:
    """The receipts and manifests in a remote's directory. Callers that write hold the remote's session lock."""

    def __init__(self, directory: Path) -> None:
        self._receipts = directory / "receipts"
        self._manifests = directory / "manifests"

    def of(self, publisher: str, image: str) -> Iterator[Receipt]:
        """Every receipt of an image; damaged ones are passed over, since a fresh resolve makes them again."""
        directory = self._receipts / check_publisher(publisher) / check_image(image)
        for path in children(directory, ".json"):
            try:
                document = read_document(path)
                receipt = None if document is None else parse(document)
            except (LocalError, DocumentRefusedError):
                continue
            if receipt is not None and (receipt.publisher, receipt.image) == (publisher, image):
                yield receipt

    def all(self) -> Iterator[Receipt]:
        """Every receipt of every image; those that cannot be read, or stand under another name, are passed over."""
        for publisher in _readable(self._receipts):
            for image in _readable(publisher):
                with contextlib.suppress(NameRefusedError, LocalError):
                    yield from self.of(publisher.name, image.name)

    def find(self, reference: Reference) -> Receipt | None:
        """The receipt that a reference means; of several the one verified last."""

        def meant(receipt: Receipt) -> bool:
            if reference.digest is not None:
                return receipt.manifest == reference.digest
            return receipt.version == reference.version or reference.channel in receipt.channels

        found = [receipt for receipt in self.of(reference.publisher, reference.image) if meant(receipt)]
        return max(found, key=lambda receipt: receipt.verified, default=None)

    def learn(self, index: ImageIndex) -> None:
        """Note on the receipts of an image what its verified index says now of yanks."""
        labels = {version.label: version for version in index.versions}
        for receipt in self.of(index.publisher, index.image):
            known = labels.get(receipt.version)
            if known is not None and known.yanked != receipt.yanked:
                self._write(replace(receipt, yanked=known.yanked))

    def write(self, receipt: Receipt) -> None:
        """Keep a receipt; its channels leave the other receipts of its image."""
        for other in self.of(receipt.publisher, receipt.image):
            left = tuple(name for name in other.channels if name not in receipt.channels)
            if other.version != receipt.version and left != other.channels:
                self._write(replace(other, channels=left))
        self._write(receipt)

    def _write(self, receipt: Receipt) -> None:
        path = self._receipts / receipt.publisher / receipt.image / f"{receipt.version}.json"
        write_atomically(path, receipt.serialise())

    def manifest(self, digest: Digest) -> Manifest | None:
        """The kept manifest of that digest, verified; None when absent or damaged."""
        raw = read_bytes(self._manifest_path(digest), MAX_MANIFEST_BYTES + 1)
        try:
            return None if raw is None else manifest.parse_verified(raw, digest)
        except IntegrityError:
            return None

    def keep_manifest(self, digest: Digest, raw: bytes) -> None:
        """Keep the verified bytes of a manifest."""
        write_atomically(self._manifest_path(digest), raw)

    def _manifest_path(self, digest: Digest) -> Path:
        return self._manifests / f"{digest.hex()}.json"
