"""Which versions a replica holds: whose, and how many of each image. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.names import check_image, check_publisher

VersionPolicy = Literal["all", "channels", "latest"]
POLICIES: tuple[VersionPolicy, ...] = get_args(VersionPolicy)


@dataclass(frozen=True, slots=True)
class Selection:
    """`wanted` holds (publisher, image), an empty image standing for all of them; empty takes everything.

    `versions`: `all`; `channels` (what a channel points at); `latest` (the newest that was not withdrawn).
    """

    wanted: frozenset[tuple[str, str]] = frozenset()
    versions: VersionPolicy = "all"

    @classmethod
    def parse(cls, names: Sequence[str], versions: str = "all") -> Selection:
        """From `publisher` and `publisher/image`, or a `UsageError`."""
        wanted = set()
        for name in names:
            publisher, slash, image = name.partition("/")
            wanted.add((check_publisher(publisher), check_image(image) if slash else ""))
        policy = next((known for known in POLICIES if known == versions), None)
        if policy is None:
            raise UsageError(f"there is no choice of versions {versions!r}", hint=f"one of: {', '.join(POLICIES)}")
        return cls(frozenset(wanted), policy)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.wanted and self.versions == "all"

    def takes(self, publisher: str, image: str) -> bool:
        """Whether anything of this image is wanted."""
        return not self.wanted or bool({(publisher, ""), (publisher, image)} & self.wanted)

    def versions_of(self, index: ImageIndex) -> tuple[ImageVersion, ...]:
        """Those that are wanted, in the order of their release."""
        if not self.takes(index.publisher, index.image):
            return ()
        if self.versions == "channels":
            labels = set(index.channels.values())
            return tuple(version for version in index.versions if version.label in labels)
        if self.versions == "latest":
            usable = [version for version in index.versions if version.yanked is None]
            return tuple((usable or list(index.versions))[-1:])
        return index.versions
