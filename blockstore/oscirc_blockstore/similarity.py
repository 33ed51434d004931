"""Which pages of a disk equal or resemble which others: what a delta pack is made by.

Of every page two things are computed. A **fingerprint** of all its bytes finds equal pages; who relies on that
compares the bytes. **Features** find similar ones: the minima of a few hash functions over the page's windows of 16
bytes, so that the chance that two pages agree in a feature is the share of windows that they have in common (Broder,
"On the resemblance and containment of documents", 1997). To be fast only an eighth of the windows takes part, chosen
by their own hash, so the choice is the same wherever the bytes stand.

All is numpy over one block at once: no loop over bytes or windows, and memory that depends on the block's size alone.
numpy lets go of the interpreter's lock, so threads use all cores. Arithmetic is modulo 2^64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oscirc_blockstore.delta import PAGE_SIZE

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.uint32]

FEATURES = 4
NO_FEATURE = np.uint64(0xFFFFFFFFFFFFFFFF)
MOST_ALIKE = 8
_WORD = 8
_WORDS = PAGE_SIZE // _WORD
_LAST_WINDOW = _WORDS - 2  # the last word at which a window of two words begins
_SAMPLED, _SAMPLE_SHIFT = np.uint64(0x5), np.uint64(61)  # windows whose hash begins with these three bits take part
_FIRST, _SECOND, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x2545F4914F6CDD1D)
_FUNCTIONS = np.array([0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB], dtype=np.uint64)
_HALF = np.uint64(32)


def _weights() -> Words:
    """Odd numbers without a pattern, the same for ever: Steele, Lea and Flood's SplitMix64 from 1 on."""
    state = np.arange(1, _WORDS + 1, dtype=np.uint64) * _FIRST
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((state ^ (state >> np.uint64(31))) | np.uint64(1))


_WEIGHTS = _weights()


@dataclass(frozen=True, slots=True)
class Pages:
    """Of the pages of one block, in order: fingerprints, 0 for a page of zeros, and `FEATURES` features each."""

    fingerprints: Words
    features: Words


def look_at(block: bytes, *, features: bool = True) -> Pages:
    """Fingerprints and features of a block's pages; without `features` an empty array of them."""
    words = np.frombuffer(block, dtype="<u8").reshape(-1, _WORDS)
    found = _features(block, len(words)) if features else np.empty((0, FEATURES), np.uint64)
    return Pages(_fingerprints(words), found)


def _fingerprints(words: Words) -> Words:
    mixed = words ^ (words >> np.uint64(31))
    mixed *= _WEIGHTS
    mixed ^= mixed >> _HALF
    mixed *= _MIX
    return np.asarray(mixed.sum(axis=1, dtype=np.uint64))


def _features(block: bytes, pages: int) -> Words:
    minima = np.full((pages, FEATURES), NO_FEATURE, dtype=np.uint64)
    starts = np.arange(pages) * _WORDS
    # made once: to get memory from the system and touch it anew costs as much as to fill it
    hashes, scratch = (np.zeros(pages * _WORDS, dtype=np.uint64) for _ in range(2))
    samples = np.empty(pages * _WORDS, dtype=np.bool_)
    for shift in range(_WORD):
        count = len(block) // _WORD - (1 if shift else 0)
        words = np.frombuffer(block, dtype="<u8", count=count, offset=shift)
        np.multiply(words, _FIRST, out=hashes[:count])
        np.multiply(words[1:], _SECOND, out=scratch[: count - 1])
        hashes[: count - 1] += scratch[: count - 1]
        hashes.reshape(pages, _WORDS)[:, _LAST_WINDOW:] = 0  # windows do not reach into the next page
        np.right_shift(hashes, _SAMPLE_SHIFT, out=scratch)
        chosen = np.flatnonzero(np.equal(scratch, _SAMPLED, out=samples))
        if not len(chosen):
            continue
        sampled = hashes[chosen]
        sampled ^= sampled >> _HALF
        bounds = np.searchsorted(chosen, starts)
        filled = np.flatnonzero(np.diff(bounds, append=len(chosen)))
        for number, function in enumerate(_FUNCTIONS):
            least = np.minimum.reduceat(sampled * function, bounds[filled])
            minima[filled, number] = np.minimum(minima[filled, number], least)
    return minima


class PageTable:
    """Pages by fingerprint, or by one feature: a sorted array. Pages are numbers below 2^32."""

    def __init__(self, keys: Words, pages: Numbers) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._pages = keys[order], pages[order]

    def first(self, keys: Words) -> tuple[npt.NDArray[np.bool_], Numbers]:
        """For each key, whether it is known, and the first page that has it (else any number)."""
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.uint32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._keys[at] == keys, self._pages[at]

    def alike(self, keys: Words) -> list[list[int]]:
        """For each key the pages that have it; none where there are more than `MOST_ALIKE`, which says nothing."""
        low = np.searchsorted(self._keys, keys, side="left")
        high = np.searchsorted(self._keys, keys, side="right")
        return [
            self._pages[start:stop].tolist() if 0 < stop - start <= MOST_ALIKE else []
            for start, stop in zip(low.tolist(), high.tolist(), strict=True)
        ]
