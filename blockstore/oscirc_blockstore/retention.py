"""Which versions of an image a policy keeps: a pure rule over the signed index, so that whoever signs chooses alone.

A version is kept when any of these holds, and is to be deleted otherwise:

1. a channel points at it;
2. it is the newest before such a version that boots, where what the channel points at was withdrawn for security:
   every channel keeps something to go back to;
3. it is among the last `keep_last` that were not withdrawn, in the order of release;
4. it was released in the last `keep_days` days.

A policy that states neither number keeps everything: nothing is deleted by silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import MAX_VERSIONS, ImageIndex, ImageVersion

MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Policy:
    """How many versions and how many days to keep; None where that says nothing."""

    keep_last: int | None = None
    keep_days: int | None = None

    def __post_init__(self) -> None:
        for value, name, most in ((self.keep_last, "versions", MAX_VERSIONS), (self.keep_days, "days", MAX_DAYS)):
            if value is not None and not 0 <= value <= most:
                raise UsageError(f"a policy keeps 0 to {most} {name}")

    @property
    def keeps_everything(self) -> bool:
        """Whether it says nothing."""
        return self.keep_last is None and self.keep_days is None


@dataclass(frozen=True, slots=True)
class Choice:
    """A version, and why it is kept; without a reason it is to be deleted."""

    version: ImageVersion
    reasons: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)


def choose(index: ImageIndex, policy: Policy, now: datetime) -> tuple[Choice, ...]:
    """Judge every version of an image, in the order of release."""
    reasons: dict[str, list[str]] = {version.label: [] for version in index.versions}
    for channel, label in sorted(index.channels.items()):
        reasons[label].append(f"#{channel} points at it")
        fallback = _fallback(index, label)
        if fallback is not None:
            reasons[fallback.label].append(f"#{channel} can go back to it")
    if policy.keep_last:
        usable = [version for version in index.versions if version.yanked is None]
        for version in usable[-policy.keep_last :]:
            reasons[version.label].append(f"one of the last {policy.keep_last}")
    if policy.keep_days is not None:
        since = now.astimezone(UTC) - timedelta(days=policy.keep_days)
        for version in index.versions:
            if datetime.fromisoformat(version.released) > since:
                reasons[version.label].append(f"younger than {policy.keep_days} days")
    if policy.keeps_everything:
        for version in index.versions:
            reasons[version.label].append("no policy")
    return tuple(Choice(version, tuple(reasons[version.label])) for version in index.versions)


def _boots(version: ImageVersion) -> bool:
    return version.yanked is None or not version.yanked.security


def _fallback(index: ImageIndex, label: str) -> ImageVersion | None:
    """What a channel can go back to where it points at a version that is refused: the last before it, else after."""
    at = next(number for number, version in enumerate(index.versions) if version.label == label)
    if _boots(index.versions[at]):
        return None
    before, after = index.versions[:at], index.versions[at + 1 :]
    by_preference = [*reversed(before), *after]
    unyanked = [version for version in by_preference if version.yanked is None]
    usable = unyanked or [version for version in by_preference if _boots(version)]
    return usable[0] if usable else None
