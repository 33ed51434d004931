"""Which two versions of an image are looked at as an update: what was asked for, else the usual, and what it is. Pure.

The usual is: to what `stable` points at, else the newest that was not withdrawn; from the version released before it,
withdrawn ones only where there is no other. A version that is not there, or was deleted, is a `NotFoundError` of its
index, which names what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore.image_index import DEFAULT_CHANNEL, ImageIndex, ImageVersion
from oscirc_server.services.version_order import natural


@dataclass(frozen=True, slots=True)
class Choice:
    """The update from one version to another; `back`: to one that was released earlier."""

    old: ImageVersion
    new: ImageVersion
    back: bool

    @property
    def same_disk(self) -> bool:
        """Whether there is nothing to update: one version, or two of one disk."""
        return self.old.manifest == self.new.manifest


def choose(index: ImageIndex, usual: ImageVersion | None, old: str, new: str) -> Choice | None:
    """What was asked for (empty: the usual); None of an image without versions."""
    if usual is None:
        if old or new:
            index.version(old or new)  # raises: there is none
        return None
    places = {version.label: place for place, version in enumerate(index.versions)}
    to = index.version(new) if new else usual
    start = index.version(old) if old else _before(index, places[to.label])
    return Choice(start, to, back=places[to.label] < places[start.label])


def _before(index: ImageIndex, place: int) -> ImageVersion:
    earlier = index.versions[:place]
    usable = [version for version in earlier if version.yanked is None]
    if usable:
        return usable[-1]
    return earlier[-1] if earlier else index.versions[place]


def in_order(index: ImageIndex) -> list[ImageVersion]:
    """All versions in the natural order of their labels, the highest first."""
    return sorted(index.versions, key=lambda version: natural(version.label), reverse=True)


def commands(index: ImageIndex, choice: Choice, local_name: str) -> list[tuple[str, str]]:
    """(what for, what to type); nothing for a version that no client boots. Labels and names need no quoting."""
    new = choice.new
    if new.yanked is not None and new.yanked.security:
        return []
    image = f"{local_name}:{index.publisher}/{index.image}"
    following = sorted(name for name, label in index.channels.items() if label == new.label)
    said = []
    if DEFAULT_CHANNEL in following:
        said.append(("what follows this image, to this version", f"oscirc update {image}"))
    elif following:
        said.append(
            (f"what follows the channel {following[0]}, to this version", f"oscirc update {image}#{following[0]}")
        )
    else:
        said.append(("fetches this version, to boot it later", f"oscirc pull {image}@{new.label}"))
    said.append(("moves an instance to just this version", f"oscirc update INSTANCE --to {new.label}"))
    said.append(("looks at the same from your machine", f"oscirc diff {image}@{choice.old.label} @{new.label} --map"))
    return said
