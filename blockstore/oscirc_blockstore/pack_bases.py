"""Which versions a delta pack should start from: those that people have.

That is what the channel pointed at, and what was released before that; a withdrawn version last of all, since who has
it is to get away from it all the same. Publishers and servers choose alike.
"""

from __future__ import annotations

from oscirc_blockstore.image_index import ImageIndex


def bases(index: ImageIndex, version: str, channel: str | None, most: int) -> list[str]:
    """The labels of at most so many versions that a pack to `version` should start from, the most wanted first.

    `version` may be about to be released; of one that is, only those count that were released before it.
    """
    labels = [known.label for known in index.versions]
    before = list(index.versions[: labels.index(version)] if version in labels else index.versions)
    before.reverse()
    current = index.channels.get(channel or "")
    before.sort(key=lambda known: (known.label != current, known.yanked is not None))
    return [known.label for known in before[:most]]
