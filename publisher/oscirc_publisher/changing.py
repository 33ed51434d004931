"""What a publisher may change about a released image: channels, yanks, what is said of it, deletions, its expiry.

Each function reads what is served, verifies it, and signs the next role version (`releasing`); a change that stands
already is a success that signs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from oscirc_blockstore.about import About
from oscirc_blockstore.errors import NotFoundError
from oscirc_blockstore.image_index import ImageIndex, Yank
from oscirc_blockstore.names import check_image
from oscirc_publisher.releasing import Released, Signatory, date_text


def set_channel(signatory: Signatory, image: str, channel: str, version: str) -> Released:
    """Point the channel at a released version."""
    return signatory.change(check_image(image), lambda index: _existing(index).with_channel(channel, version))


def advance_channel(signatory: Signatory, image: str, channel: str, version: str, pointed_at: str) -> Released:
    """The same, if the channel points at `pointed_at` (empty: there is none); where it points now is in the index."""

    def merge(index: ImageIndex) -> ImageIndex:
        there = _existing(index).channels.get(channel, "")
        return index.with_channel(channel, version) if there == pointed_at else index

    return signatory.change(check_image(image), merge)


def remove_channel(signatory: Signatory, image: str, channel: str) -> Released:
    """Let a channel be no more, or raise `NotFoundError` where there is none of that name."""
    return signatory.change(check_image(image), lambda index: _existing(index).without_channel(channel))


def yank(signatory: Signatory, image: str, version: str, why: str, *, security: bool = False) -> Released:
    """Mark a released version as not to be used; with `security`, clients refuse to boot it."""
    date = date_text(signatory.clock())

    def merge(index: ImageIndex) -> ImageIndex:
        known = _existing(index).version(version).yanked
        if known is not None and (known.why, known.security) == (why, security):
            return index
        return index.with_yank(version, Yank(why, date, security))

    return signatory.change(check_image(image), merge)


def restore(signatory: Signatory, image: str, version: str) -> Released:
    """Take a yank back."""
    return signatory.change(check_image(image), lambda index: _existing(index).with_yank(version, None))


def describe(signatory: Signatory, image: str, say: Callable[[About], About]) -> Released:
    """Change what is said of the image; `say` makes it of what was said, and is called again after a conflict."""

    def merge(index: ImageIndex) -> ImageIndex:
        return replace(index, about=say(_existing(index).about))

    return signatory.change(check_image(image), merge)


def delete(signatory: Signatory, image: str, versions: Collection[str], why: str = "") -> Released:
    """Delete released versions for ever: their labels are never used again. No channel may point at one.

    Workstations that have them go on with what they hold; the server drops their blocks a month later.
    """
    date = date_text(signatory.clock())
    return signatory.change(
        check_image(image), lambda index: _known(index).without_versions(versions, date=date, why=why)
    )


def delete_image(signatory: Signatory, image: str, why: str = "") -> Released:
    """Delete every version of an image, and close its name for ever."""
    date = date_text(signatory.clock())
    return signatory.change(check_image(image), lambda index: _known(index).without_all(date=date, why=why))


def resign(signatory: Signatory) -> int:
    """Sign what is released for another year; the new role version."""
    return signatory.resign()


def _known(index: ImageIndex) -> ImageIndex:
    if not index.versions and not index.deleted:
        raise NotFoundError(f"{index.publisher}/{index.image} was never released")
    return index


def _existing(index: ImageIndex) -> ImageIndex:
    if not index.versions:
        raise NotFoundError(f"{index.publisher}/{index.image} has no released version")
    return index
