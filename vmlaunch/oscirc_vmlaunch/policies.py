"""What an update does to an instance: the one decision, as a function of values. Pure.

An overlay means nothing on another version, so what an instance wrote in its system cannot move with it. The rules:

1. An instance that stands on the wanted version already stays.
2. One that has written nothing, or is thrown away anyway, moves.
3. What was written is somebody's: with `refuse`, the default, the instance stays and its user is told; with `keep`
   it stays on its version, and the new one is only fetched; with `drop-system` it moves, what it wrote is set aside
   for a rollback, and its data disk, which belongs to no version, stays.
4. A running instance is not moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Policy(Enum):
    """What the user said may happen to what an instance wrote in its system."""

    REFUSE = "refuse"
    KEEP = "keep"
    DROP_SYSTEM = "drop-system"


class Action(Enum):
    """What an update does."""

    NOTHING = "nothing"
    """It stands on that version."""
    MOVE = "move"
    """It moves; nothing was written."""
    KEEP = "keep"
    """It stays on its version, which was wanted."""
    DROP_SYSTEM = "drop-system"
    """It moves, and what it wrote is set aside."""
    REFUSE_WRITTEN = "refuse"
    """It stays: it has written, and nobody said what should become of that."""
    REFUSE_RUNNING = "running"
    """It stays: it runs."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on; digests are hexadecimal."""

    stands_on: str
    wanted: str
    is_written: bool
    is_ephemeral: bool
    is_running: bool


def decide(situation: Situation, policy: Policy) -> Action:
    """What an update is to do."""
    if situation.stands_on == situation.wanted:
        return Action.NOTHING
    if policy is Policy.KEEP:
        return Action.KEEP
    if situation.is_running:
        return Action.REFUSE_RUNNING
    if not situation.is_written or situation.is_ephemeral:
        return Action.MOVE
    return Action.DROP_SYSTEM if policy is Policy.DROP_SYSTEM else Action.REFUSE_WRITTEN
