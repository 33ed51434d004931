"""The pages of an old version as a delta pack's maker looks them up: equal ones, and those that resemble some.

Pages are numbered in the order in which their blocks were added: number = block * pages per block + page. What is held
is some 80 bytes for each page, none of its content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from oscirc_blockstore.delta import MAX_SOURCES, PAGE_SIZE, Run, Source
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.similarity import FEATURES, Pages, PageTable

MAX_DICTIONARY_PAGES = 192
_NO_PAGES = np.empty(0, np.uint64)
_ZEROS = 0
_NEIGHBOURS = (-1, 1)


class OldPages:
    """Gathers what `similarity` found of old blocks; `Matcher` is what can then be asked."""

    def __init__(self, block_size: int) -> None:
        self._per_block = block_size // PAGE_SIZE
        self._blocks: list[Digest] = []
        self._fingerprints: list[npt.NDArray[np.uint64]] = []
        self._features: list[npt.NDArray[np.uint64]] = []

    @property
    def count(self) -> int:
        """Pages added so far."""
        return len(self._blocks) * self._per_block

    def add(self, digest: Digest, pages: Pages) -> None:
        """Take the pages of one block."""
        self._blocks.append(digest)
        self._fingerprints.append(pages.fingerprints)
        self._features.append(pages.features)

    def matcher(self) -> Matcher:
        """What can be asked of all that was added; this object is empty afterwards.

        The features go into their tables one after the other: two copies of all are never held.
        """
        fingerprints = np.concatenate([*self._fingerprints, _NO_PAGES])
        self._fingerprints = []
        first = np.unique(fingerprints, return_index=True)[1]
        distinct = np.sort(first[fingerprints[first] != _ZEROS]).astype(np.uint32)
        del first
        equal = PageTable(fingerprints[distinct], distinct)
        similar = []
        for number in range(FEATURES):
            column = np.concatenate([*(each[:, number] for each in self._features), _NO_PAGES])
            similar.append(PageTable(column[distinct], distinct))
            del column
        self._features = []
        return Matcher(self._blocks, self._per_block, fingerprints, equal, similar)


class Matcher:
    """Old pages that equal or resemble new ones. Only reads, so threads may share it."""

    def __init__(
        self,
        blocks: Sequence[Digest],
        per_block: int,
        fingerprints: npt.NDArray[np.uint64],
        equal: PageTable,
        similar: Sequence[PageTable],
    ) -> None:
        self._blocks, self._per_block, self._fingerprints = blocks, per_block, fingerprints
        self._equal, self._similar = equal, similar

    def runs(self, pages: Pages) -> tuple[Run, ...]:
        """A new block's pages as runs of zeros, of pages copied from old blocks, and of literal ones."""
        known, places = self._equal.first(pages.fingerprints)
        runs: list[Run] = []
        last = -1
        for number, fingerprint in enumerate(pages.fingerprints.tolist()):
            if fingerprint == _ZEROS:
                last = -1
                _append(runs, Run(Source.ZEROS, 0, 1))
            elif self._goes_on(last, fingerprint):
                last += 1
                _append(runs, self._run(last))
            elif known[number]:
                last = int(places[number])
                _append(runs, self._run(last))
            else:
                last = -1
                _append(runs, Run(Source.LITERAL, 0, 1))
        return tuple(runs)

    def dictionary(self, features: npt.NDArray[np.uint64], copied_from: int) -> tuple[Run, ...]:
        """For each of these literal pages the old one most like it and its neighbours, in the order of the old blocks.

        Of old pages that are equally like a page, that one is taken whose block has pages like most of the others: a
        file's pages stay together so, which resemble more than they agree in, and few old blocks are needed.
        `copied_from` is how many old blocks the record needs already: there is a limit for both together.
        """
        alike = [table.alike(features[:, number]) for number, table in enumerate(self._similar)]
        agreed = [Counter(old for feature in alike for old in feature[page]) for page in range(len(features))]
        followed = Counter(block for each in agreed for block in {old // self._per_block for old in each})
        votes: Counter[int] = Counter()
        for each in agreed:
            if not each:
                continue
            best = min(each, key=lambda old: (-each[old], -followed[old // self._per_block], old))
            votes[best] += 2 * each[best]
            for step in _NEIGHBOURS:
                if self._is_beside(best, best + step):
                    votes[best + step] += each[best]
        most = min(MAX_DICTIONARY_PAGES, MAX_SOURCES - copied_from)
        runs: list[Run] = []
        for old in sorted(old for old, _ in votes.most_common(most)):
            _append(runs, self._run(old))
        return tuple(runs)

    def _goes_on(self, last: int, fingerprint: int) -> bool:
        return last >= 0 and self._is_beside(last, last + 1) and int(self._fingerprints[last + 1]) == fingerprint

    def _is_beside(self, page: int, other: int) -> bool:
        same_block = 0 <= other < len(self._fingerprints) and page // self._per_block == other // self._per_block
        return same_block and int(self._fingerprints[other]) != _ZEROS

    def _run(self, page: int) -> Run:
        return Run(self._blocks[page // self._per_block], page % self._per_block, 1)


def _append(runs: list[Run], run: Run) -> None:
    """Put a page behind the others, as part of the last run where it goes on with that."""
    last = runs[-1] if runs else None
    if (
        last is not None
        and last.source == run.source
        and (isinstance(run.source, Source) or last.page + last.count == run.page)
    ):
        runs[-1] = Run(last.source, last.page, last.count + run.count)
    else:
        runs.append(run)
