"""When `publish` moves its channel: with the release, or last, after a bundle and delta packs; again after a rerun.

The rules are those of `oscirc_publisher.channel_intents`. What a user should know is said here: that a channel was
left alone since somebody else moved it, or that none points at a version that was released before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oscirc.output import say, warn

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc_blockstore.image_index import ImageIndex
    from oscirc_publisher.channel_intents import ChannelIntents
    from oscirc_publisher.publishing import PublishResult
    from oscirc_publisher.releasing import Signatory


@dataclass(frozen=True, slots=True)
class ChannelMove:
    """One publication's channel: None where none is to move. `named`: the user wrote it, it is not the default."""

    channel: str | None
    named: bool
    is_last: bool
    repository: str
    version: str
    intents: ChannelIntents

    @property
    def with_release(self) -> str | None:
        """What the release itself is to move."""
        return None if self.is_last else self.channel

    def finish(self, signatory: Signatory, result: PublishResult) -> PublishResult:
        """Move it, if it is to be moved and was not; all that belongs to the version is there."""
        if self.channel is None:
            return result
        intent = self.intents.of(self.repository, self.version)
        if self.channel in result.channels:
            pass
        elif intent is not None and intent.channel == self.channel:
            result = self._moved(signatory, result, self.channel, intent.pointed_at)
        elif self.named:
            result = self._moved(signatory, result, self.channel, None)
        elif not result.channels:
            say(f"no channel points at it; if one should: oscirc channel set {self.version} {self.channel} --key KEY")
        if intent is not None and (intent.channel == self.channel or self.named):
            self.intents.forget(self.repository, self.version)
        return result

    def _moved(
        self, signatory: Signatory, result: PublishResult, channel: str, pointed_at: str | None
    ) -> PublishResult:
        """Move the channel; unless `pointed_at` is None, only from there."""
        from oscirc_publisher import changing

        if pointed_at is None:
            changing.set_channel(signatory, result.image, channel, result.version)
        else:
            released = changing.advance_channel(signatory, result.image, channel, result.version, pointed_at)
            now = released.index.channels.get(channel, "no version")
            if now != result.version:
                warn(
                    f"{channel} was moved to {now} while {result.version} was published, and stays there; if it "
                    f"should move: oscirc channel set {self.version} {channel} --key KEY"
                )
                return result
        return replace(result, channels=sorted([*result.channels, channel]))


def planned(
    signatory: Signatory,
    wanted: VersionReference,
    index: ImageIndex,
    channel: str | None,
    *,
    named: bool,
    is_last: bool,
) -> ChannelMove:
    """What is to be done with the channel, written down where the release will not do it; `index` is what is served."""
    from oscirc_blockstore.names import check_channel
    from oscirc_publisher.channel_intents import ChannelIntents, Intent

    intents, repository = ChannelIntents(), signatory.rest.url
    version = f"{wanted.publisher}/{wanted.image}@{wanted.version}"
    if channel is not None:
        check_channel(channel)
    if channel is None:
        intents.forget(repository, version)
    elif is_last and all(known.label != wanted.version for known in index.versions):
        intents.note(repository, version, Intent(channel, index.channels.get(channel, "")))
    return ChannelMove(channel, named, is_last, repository, version, intents)
