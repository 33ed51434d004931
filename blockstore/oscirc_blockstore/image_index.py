"""The image index: what may change about an image. Versions, their manifests, yanks and channels; signed as a whole.

It is the image's only TUF target, `<publisher>/<image>.json`. A released version is for ever: a later index may add
versions, move channels and mark a version yanked, but never drop a version nor point its label at another manifest
(`check_successor`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError, NotFoundError, UsageError
from oscirc_blockstore.fields import Fields, check_text, refuse_bad_names
from oscirc_blockstore.names import check_channel, check_image, check_publisher, check_version

MAX_INDEX_BYTES = 4 << 20
MAX_VERSIONS = 10_000
MAX_CHANNELS = 1_000
MAX_CHANGELOG_CHARS = 16_384
MAX_REASON_CHARS = 1_000
FORMAT = "oscirc-image-index-1"
DEFAULT_CHANNEL = "stable"

_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")


def check_date(text: str, what: str) -> str:
    """A UTC date to the second, `2026-03-01T12:00:00Z`, or `DocumentRefusedError`."""
    if not _DATE.fullmatch(text):
        raise DocumentRefusedError(f"{what} is not a date of the form 2026-03-01T12:00:00Z")
    return text


@dataclass(frozen=True, slots=True)
class Yank:
    """Why a version should not be used any more; `security` refuses to boot it, otherwise it only warns."""

    why: str
    date: str
    security: bool = False


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """One immutable release: a label, the digest of its manifest, and when it was released (UTC, to the second)."""

    label: str
    manifest: Digest
    released: str
    changelog: str = ""
    yanked: Yank | None = None


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """Versions in the order of release, and channels as name -> version label."""

    publisher: str
    image: str
    versions: tuple[ImageVersion, ...] = ()
    channels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def version(self, label: str) -> ImageVersion:
        """The version with this label, or `NotFoundError` that lists what there is."""
        for version in self.versions:
            if version.label == label:
                return version
        known = ", ".join(version.label for version in self.versions[-10:]) or "none"
        raise NotFoundError(f"{self.publisher}/{self.image} has no version {label!r}", hint=f"versions: {known}")

    def channel(self, name: str) -> ImageVersion:
        """The version that a channel points at, or `NotFoundError`."""
        if name not in self.channels:
            known = ", ".join(sorted(self.channels)) or "none"
            raise NotFoundError(f"{self.publisher}/{self.image} has no channel {name!r}", hint=f"channels: {known}")
        return self.version(self.channels[name])

    def with_version(self, version: ImageVersion) -> ImageIndex:
        """This index with one more version; the same label with the same manifest again changes nothing."""
        check_version(version.label)
        for existing in self.versions:
            if existing.label == version.label:
                if existing.manifest != version.manifest:
                    raise UsageError(
                        f"{self.publisher}/{self.image}@{version.label} is already released with another disk",
                        hint="a released version never changes: choose a new version label",
                    )
                return self
        return replace(self, versions=(*self.versions, version))

    def with_channel(self, name: str, label: str) -> ImageIndex:
        """This index with the channel pointing at a version that it has."""
        check_channel(name)
        self.version(label)
        return replace(self, channels=MappingProxyType({**self.channels, name: label}))

    def with_yank(self, label: str, yank: Yank | None) -> ImageIndex:
        """This index with a version yanked (or, with None, restored)."""
        target = self.version(label)
        versions = tuple(replace(v, yanked=yank) if v is target else v for v in self.versions)
        return replace(self, versions=versions)

    def serialise(self) -> bytes:
        """The canonical bytes, checked by `parse`, so that nobody can sign what nobody can read."""
        versions: list[object] = []
        for version in self.versions:
            item: dict[str, object] = {
                "version": version.label,
                "manifest": version.manifest.hex(),
                "released": version.released,
                "changelog": version.changelog,
            }
            if version.yanked is not None:
                yanked = version.yanked
                item["yanked"] = {"why": yanked.why, "date": yanked.date, "security": yanked.security}
            versions.append(item)
        raw = canonical.serialise(
            {
                "format": FORMAT,
                "publisher": self.publisher,
                "image": self.image,
                "versions": versions,
                "channels": dict(self.channels),
            }
        )
        parse(raw, self.publisher, self.image)
        return raw


def index_target(publisher: str, image: str) -> str:
    """The TUF target path of an image's index."""
    return f"{check_publisher(publisher)}/{check_image(image)}.json"


def _parse_version(document: object) -> ImageVersion:
    fields = Fields(document, "a version in the image index")
    label = check_version(fields.text("version", 63))
    yanked = None
    if fields.has("yanked"):
        inner = Fields(fields.take("yanked"), f"the yank of {label}")
        yanked = Yank(
            inner.text("why", MAX_REASON_CHARS, lines=True),
            check_date(inner.text("date", 20), f"the yank of {label}"),
            inner.boolean("security"),
        )
        inner.finish()
    version = ImageVersion(
        label,
        fields.digest("manifest"),
        check_date(fields.text("released", 20), f"the release date of {label}"),
        fields.text("changelog", MAX_CHANGELOG_CHARS, lines=True),
        yanked,
    )
    fields.finish()
    return version


def parse(raw: bytes, publisher: str, image: str) -> ImageIndex:
    """The index of this very image; raise `DocumentRefusedError` for another image's or anything malformed."""
    fields = Fields(canonical.parse(raw, MAX_INDEX_BYTES, "the image index"), "the image index")
    fields.constant("format", FORMAT)
    fields.constant("publisher", publisher)
    fields.constant("image", image)
    try:
        versions = tuple(_parse_version(item) for item in fields.sequence("versions", MAX_VERSIONS))
        labels = {version.label for version in versions}
        if len(labels) != len(versions):
            raise DocumentRefusedError("the image index has two versions with one label")
        channels: dict[str, str] = {}
        for name, label in fields.mapping("channels", MAX_CHANNELS).items():
            channels[check_channel(name)] = check_version(check_text(label, "a channel", 63))
            if label not in labels:
                raise DocumentRefusedError(f"the channel {name} points at a version that the index lacks")
    except NameRefusedError as error:
        raise refuse_bad_names(error, "the image index") from None
    fields.finish()
    return ImageIndex(publisher, image, versions, MappingProxyType(channels))


def check_successor(old: ImageIndex, new: ImageIndex) -> None:
    """Raise `DocumentRefusedError` when `new` forgets or changes a version that `old` released."""
    kept = {version.label: version for version in new.versions}
    for version in old.versions:
        successor = kept.get(version.label)
        if successor is None:
            raise DocumentRefusedError(f"the new image index forgets the released version {version.label}")
        if (successor.manifest, successor.released) != (version.manifest, version.released):
            raise DocumentRefusedError(f"the new image index changes the released version {version.label}")
