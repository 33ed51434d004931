"""The image index: what may change about an image. Versions, their manifests, yanks, channels; signed as a whole.

It is the image's only TUF target, `<publisher>/<image>.json`. A released label is for ever: a later index may add
versions, move channels, mark a version yanked or list it as deleted, but never point its label at another manifest,
nor forget that it was there (`check_successor`). An image that was deleted as a whole is closed: its index lists no
version, and none is ever added. What is said of the image (`about`) may change freely.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from oscirc_blockstore import about, canonical
from oscirc_blockstore.about import NOTHING_SAID, About
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError, NotFoundError, UsageError
from oscirc_blockstore.fields import Fields, check_text, refuse_bad_names
from oscirc_blockstore.names import check_channel, check_image, check_publisher, check_version

MAX_INDEX_BYTES = 4 << 20
MAX_VERSIONS = 10_000
MAX_DELETED = 20_000
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
class Deleted:
    """What is left of a version that its publisher deleted: its label names nothing else, ever.

    `security`: it had been yanked for that, and must still not be booted where it is left.
    """

    label: str
    manifest: Digest
    date: str
    why: str = ""
    security: bool = False


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """Versions in the order of release, channels as name -> version label, and what was deleted, oldest first."""

    publisher: str
    image: str
    versions: tuple[ImageVersion, ...] = ()
    channels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    deleted: tuple[Deleted, ...] = ()
    closed: bool = False
    about: About = NOTHING_SAID

    def version(self, label: str) -> ImageVersion:
        """The version with this label, or `NotFoundError` that lists what there is."""
        for version in self.versions:
            if version.label == label:
                return version
        known = ", ".join(version.label for version in self.versions[-10:]) or "none"
        gone = self.tombstone(label)
        if gone is not None:
            why = f": {gone.why}" if gone.why else ""
            raise NotFoundError(
                f"{self.publisher}/{self.image}@{label} was deleted by its publisher on {gone.date[:10]}{why}",
                hint=f"versions: {known}",
            )
        raise NotFoundError(f"{self.publisher}/{self.image} has no version {label!r}", hint=f"versions: {known}")

    def tombstone(self, label: str) -> Deleted | None:
        """What is left of a deleted version, or None."""
        return next((gone for gone in self.deleted if gone.label == label), None)

    def channel(self, name: str) -> ImageVersion:
        """The version that a channel points at, or `NotFoundError`."""
        if name not in self.channels:
            known = ", ".join(sorted(self.channels)) or "none"
            raise NotFoundError(f"{self.publisher}/{self.image} has no channel {name!r}", hint=f"channels: {known}")
        return self.version(self.channels[name])

    def with_version(self, version: ImageVersion) -> ImageIndex:
        """This index with one more version; the same label with the same manifest again changes nothing."""
        check_version(version.label)
        if self.closed:
            raise UsageError(
                f"{self.publisher}/{self.image} was deleted: nothing is released under its name any more",
                hint="choose another name",
            )
        if self.tombstone(version.label) is not None:
            raise UsageError(
                f"{self.publisher}/{self.image}@{version.label} was released and deleted: a label is never used again",
                hint="choose a new version label",
            )
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

    def without_channel(self, name: str) -> ImageIndex:
        """This index without a channel that it has, or `NotFoundError`; the version stays."""
        self.channel(name)
        left = {known: label for known, label in self.channels.items() if known != name}
        return replace(self, channels=MappingProxyType(left))

    def with_yank(self, label: str, yank: Yank | None) -> ImageIndex:
        """This index with a version yanked (or, with None, restored)."""
        target = self.version(label)
        versions = tuple(replace(v, yanked=yank) if v is target else v for v in self.versions)
        return replace(self, versions=versions)

    def without_versions(self, labels: Collection[str], *, date: str, why: str = "") -> ImageIndex:
        """This index with these versions deleted; no channel may point at one. Those that are deleted stay so."""
        gone = [self.version(label) for label in dict.fromkeys(labels) if self.tombstone(label) is None]
        left = tuple(
            Deleted(each.label, each.manifest, date, why, each.yanked is not None and each.yanked.security)
            for each in gone
        )
        for channel, label in self.channels.items():
            if label in labels:
                raise UsageError(
                    f"the channel {channel} of {self.publisher}/{self.image} points at {label}",
                    hint="first: oscirc channel set, or channel remove; or delete the whole image",
                )
        return replace(
            self,
            versions=tuple(version for version in self.versions if version not in gone),
            deleted=(*self.deleted, *left),
        )

    def without_all(self, *, date: str, why: str = "") -> ImageIndex:
        """This index with every version deleted, no channel, and closed for ever."""
        if self.closed:
            return self
        bare = replace(self, channels=MappingProxyType({}))
        emptied = bare.without_versions([version.label for version in self.versions], date=date, why=why)
        return replace(emptied, closed=True, about=NOTHING_SAID)

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
        document: dict[str, object] = {
            "format": FORMAT,
            "publisher": self.publisher,
            "image": self.image,
            "versions": versions,
            "channels": dict(self.channels),
        }
        if self.deleted:
            document["deleted"] = [
                {
                    "version": gone.label,
                    "manifest": gone.manifest.hex(),
                    "date": gone.date,
                    "why": gone.why,
                    "security": gone.security,
                }
                for gone in self.deleted
            ]
        if self.closed:
            document["closed"] = True
        if self.about != NOTHING_SAID:
            document["about"] = self.about.document()
        raw = canonical.serialise(document)
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


def _parse_deleted(document: object) -> Deleted:
    fields = Fields(document, "a deleted version in the image index")
    label = check_version(fields.text("version", 63))
    gone = Deleted(
        label,
        fields.digest("manifest"),
        check_date(fields.text("date", 20), f"the deletion of {label}"),
        fields.text("why", MAX_REASON_CHARS, lines=True),
        fields.boolean("security"),
    )
    fields.finish()
    return gone


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
        deleted: tuple[Deleted, ...] = ()
        if fields.has("deleted"):
            deleted = tuple(_parse_deleted(item) for item in fields.sequence("deleted", MAX_DELETED))
    except NameRefusedError as error:
        raise refuse_bad_names(error, "the image index") from None
    closed = fields.boolean("closed") if fields.has("closed") else False
    said = about.parse(fields.take("about")) if fields.has("about") else NOTHING_SAID
    fields.finish()
    gone = {tombstone.label for tombstone in deleted}
    if len(gone) != len(deleted) or not labels.isdisjoint(gone):
        raise DocumentRefusedError("the image index lists a deleted version twice, or as a version too")
    if closed and versions:
        raise DocumentRefusedError("the image index is closed and lists versions")
    return ImageIndex(publisher, image, versions, MappingProxyType(channels), deleted, closed, said)


def check_successor(old: ImageIndex, new: ImageIndex) -> None:
    """Raise `DocumentRefusedError` when `new` forgets or changes what `old` released or deleted, or opens it again."""
    kept = {version.label: version for version in new.versions}
    gone = {tombstone.label: tombstone for tombstone in new.deleted}
    for version in old.versions:
        successor = kept.get(version.label)
        if successor is None:
            tombstone = gone.get(version.label)
            if tombstone is None:
                raise DocumentRefusedError(f"the new image index forgets the released version {version.label}")
            if tombstone.manifest != version.manifest:
                raise DocumentRefusedError(f"the new image index deletes another disk as version {version.label}")
        elif (successor.manifest, successor.released) != (version.manifest, version.released):
            raise DocumentRefusedError(f"the new image index changes the released version {version.label}")
    for tombstone in old.deleted:
        if gone.get(tombstone.label) != tombstone:
            raise DocumentRefusedError(f"the new image index forgets or changes the deleted version {tombstone.label}")
    if old.closed and not new.closed:
        raise DocumentRefusedError("the new image index opens an image again that was deleted")
