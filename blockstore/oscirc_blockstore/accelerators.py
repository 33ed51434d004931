"""Accelerators: what there is besides an image to make it start sooner, and the two documents that list it.

An accelerator is an immutable file `accel/<sha256>`: a boot profile, a bundle or a delta pack. A **listing**,
`accel/<manifest-digest>.json`, says which there are for one disk. A **hint**, `accel/hints/<publisher>/<image>.json`,
says the same per channel, so that a client can ask for a bundle before it has verified which disk the channel means.

**The fleet's bundle**, `fleet-NAME`, was made by the server of boots that strangers shared (ADR 23). Clients prefer it
to the publisher's NAME where it is at most a quarter longer, and take it where there is no NAME if it has at most
`FLEET_ALONE_BYTES`: so what strangers can have fetched is bounded by the publisher's word, or by that.

Neither document is signed. Both are trusted as a mirror is: what they name is checked against the signed table before
it is used, and what a lie can waste is bounded by the client. Kinds that this version does not know are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError
from oscirc_blockstore.fields import Fields, refuse_bad_names
from oscirc_blockstore.names import check_channel, check_image, check_publisher

LISTING_FORMAT = "oscirc-accelerators-1"
HINT_FORMAT = "oscirc-hint-1"
MAX_LISTING_BYTES = 64 << 10
MAX_HINT_BYTES = 256 << 10
MAX_ACCELERATORS = 100
MAX_CHANNELS = 200
MAX_FILE_BYTES = 1 << 40
FLEET_PREFIX = "fleet-"
FLEET_SHARE_PERCENT = 125
FLEET_ALONE_BYTES = 256 << 20
BUNDLE = "bundle"
PROFILE = "profile"
DELTA = "delta"
LENGTHS = "lengths"
PACKAGES = "packages"
SCREENSHOT = "screenshot"
KINDS = (BUNDLE, DELTA, LENGTHS, PACKAGES, PROFILE, SCREENSHOT)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One file: what it is (`bundle`, `delta`, `profile`), its name (`boot`, …), digest and length in bytes.

    `index_length` is the number of bytes in front of a bundle's first segment or a delta pack's first frame, else 0.
    """

    kind: str
    name: str
    sha256: Digest
    length: int
    index_length: int = 0

    @property
    def path(self) -> str:
        """Where it is served, below the repository's URL."""
        return f"accel/{self.sha256.hex()}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The accelerators of one manifest; at most one of a kind and name."""

    manifest: Digest
    accelerators: tuple[Accelerator, ...]

    def find(self, kind: str, name: str) -> Accelerator | None:
        """The accelerator of that kind and name, if it is listed."""
        return next((each for each in self.accelerators if (each.kind, each.name) == (kind, name)), None)

    def bundle_for(self, profile: str) -> Accelerator | None:
        """The bundle to fetch for a boot: the fleet's of that name, as long as it keeps to what is told above."""
        own, fleet = self.find(BUNDLE, profile), self.find(BUNDLE, FLEET_PREFIX + profile)
        if fleet is None:
            return own
        most = FLEET_ALONE_BYTES if own is None else own.length * FLEET_SHARE_PERCENT // 100
        return fleet if fleet.length <= most else own

    def profile_for(self, profile: str) -> Accelerator | None:
        """The profile that goes with `bundle_for`: the fleet's beside its bundle, else the publisher's."""
        bundle = self.bundle_for(profile)
        beside = None if bundle is None else self.find(PROFILE, bundle.name)
        return beside or self.find(PROFILE, profile)

    def serialise(self) -> bytes:
        """The canonical bytes, checked by `parse_listing`."""
        raw = canonical.serialise({"format": LISTING_FORMAT, **_listing_object(self)})
        parse_listing(raw)
        return raw


@dataclass(frozen=True, slots=True)
class Hint:
    """The listings of what an image's channels point at, by channel."""

    publisher: str
    image: str
    channels: Mapping[str, Listing] = field(default_factory=dict)

    def serialise(self) -> bytes:
        """The canonical bytes, checked by `parse_hint`."""
        raw = canonical.serialise(
            {
                "format": HINT_FORMAT,
                "publisher": self.publisher,
                "image": self.image,
                "channels": {name: _listing_object(listing) for name, listing in self.channels.items()},
            }
        )
        parse_hint(raw)
        return raw


def listing_path(manifest: Digest) -> str:
    """Where the listing of a manifest is served, below the repository's URL."""
    return f"accel/{manifest.hex()}.json"


def hint_path(publisher: str, image: str) -> str:
    """Where the hint of an image is served, below the repository's URL."""
    return f"accel/hints/{check_publisher(publisher)}/{check_image(image)}.json"


def parse_listing(raw: bytes) -> Listing:
    """The listing in `raw`, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_LISTING_BYTES, "the listing"), "the listing")
    fields.constant("format", LISTING_FORMAT)
    return _parse_listing(fields)


def parse_hint(raw: bytes) -> Hint:
    """The hint in `raw`, or `DocumentRefusedError`."""
    fields = Fields(canonical.parse(raw, MAX_HINT_BYTES, "the hint"), "the hint")
    fields.constant("format", HINT_FORMAT)
    try:
        publisher = check_publisher(fields.text("publisher", 63))
        image = check_image(fields.text("image", 63))
        channels = {
            check_channel(name): _parse_listing(Fields(value, f"the hint's channel {name[:63]!r}"))
            for name, value in fields.mapping("channels", MAX_CHANNELS).items()
        }
    except NameRefusedError as error:
        raise refuse_bad_names(error, "the hint") from None
    fields.finish()
    return Hint(publisher, image, channels)


def _listing_object(listing: Listing) -> dict[str, object]:
    return {"manifest": listing.manifest.hex(), "accelerators": [_object(each) for each in listing.accelerators]}


def _object(accelerator: Accelerator) -> dict[str, object]:
    return {
        "kind": accelerator.kind,
        "name": accelerator.name,
        "sha256": accelerator.sha256.hex(),
        "length": accelerator.length,
        "index_length": accelerator.index_length,
    }


def _parse_listing(fields: Fields) -> Listing:
    manifest = fields.digest("manifest")
    found = _known(fields.sequence("accelerators", MAX_ACCELERATORS))
    fields.finish()
    if len({(each.kind, each.name) for each in found}) != len(found):
        raise DocumentRefusedError("the listing names an accelerator twice")
    return Listing(manifest, tuple(found))


def _known(values: Sequence[object]) -> list[Accelerator]:
    found = []
    for value in values:
        fields = Fields(value, "an accelerator")
        kind = fields.text("kind", 63)
        if kind not in KINDS:
            continue
        try:
            name = check_channel(fields.text("name", 63))
        except NameRefusedError as error:
            raise refuse_bad_names(error, "the listing") from None
        sha256, length = fields.digest("sha256"), fields.integer("length", 1, MAX_FILE_BYTES)
        found.append(Accelerator(kind, name, sha256, length, fields.integer("index_length", 0, length)))
        fields.finish()
    return found
