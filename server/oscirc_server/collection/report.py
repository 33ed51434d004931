"""What a collection did, or with a dry run would do."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_NAMED = 100


@dataclass(slots=True)
class Count:
    """So many files, and their bytes."""

    number: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """One more."""
        self.number += 1
        self.size_bytes += size_bytes


@dataclass(slots=True)
class Report:
    """`lost` and `damaged` are digests (the first hundred) of blocks that released versions need.

    `condemned` is new in this run, `waiting` was condemned before and not long enough, `deleted` is gone for good;
    `orphans` stood in the store and no row knew them, `adopted` are those of them that something needs. `files` are
    manifests, documents, metadata and accelerators. `complete` is false where the server stopped in between.
    """

    dry_run: bool = False
    complete: bool = False
    drafts_expired: int = 0
    manifests: int = 0
    nodes: int = 0
    manifests_retired: int = 0
    needed: int = 0
    condemned: Count = field(default_factory=Count)
    revived: Count = field(default_factory=Count)
    waiting: Count = field(default_factory=Count)
    deleted: Count = field(default_factory=Count)
    orphans: Count = field(default_factory=Count)
    adopted: Count = field(default_factory=Count)
    files: Count = field(default_factory=Count)
    lost: list[str] = field(default_factory=list)
    lost_count: int = 0
    damaged: list[str] = field(default_factory=list)
    damaged_count: int = 0
    seconds: float = 0.0

    def lose(self, digest: bytes) -> None:
        """A block that is needed is not in the store."""
        self.lost_count += 1
        if len(self.lost) < MAX_NAMED:
            self.lost.append(digest.hex())

    def damage(self, digest: bytes) -> None:
        """A block that is needed is not what it should be."""
        self.damaged_count += 1
        if len(self.damaged) < MAX_NAMED:
            self.damaged.append(digest.hex())
