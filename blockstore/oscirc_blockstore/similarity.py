"""Which pages of a disk equal or resemble which others: what a delta pack is made by.

Of every page two things are computed. A **fingerprint** of all its bytes finds equal pages; who relies on that
compares the bytes. **Features** find similar ones: the minima of a few hash functions over the page's windows of 16
bytes, so that the chance that two pages agree in a feature is the share of windows that they have in common (Broder,
"On the resemblance and containment of documents", 1997). To be fast only an eighth of the windows takes part, chosen
by their own hash, so the choice is the same wherever the bytes stand.

All is numpy over one block at once: no loop over bytes or windows, and memory that depends on the block's size alone.
numpy lets go of the interpreter's lock, so threads use all cores, but each call costs threads a moment in which they
wait for it: two threads are twice as fast as one only where calls are few and long, and longer ones than these leave
the processor's cache. Arithmetic is modulo 2^64.
"""

from __future__ import annotations

import threading
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
_SAMPLED = np.uint64(0xE000000000000000)  # windows whose hash is not below take part: an eighth, and none of zeros
_FIRST, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x2545F4914F6CDD1D)
_SECOND_SHIFT = np.uint64(17)  # the first word's hash and this much less of the second's are the window's
_FUNCTIONS = np.array([0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB], dtype=np.uint64)
_HALF = np.uint64(32)
_TOGETHER = 4  # of eight places in a word at which windows begin, so many go through each call; see the module's text
_local = threading.local()


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
    words = pages * _WORDS
    padded = np.frombuffer(block + bytes(_WORD), dtype=np.uint8)
    least = np.full((_TOGETHER, pages, FEATURES), NO_FEATURE, dtype=np.uint64)
    starts = np.arange(_TOGETHER * pages) * _WORDS
    hashes, scratch, samples = _scratch(words)
    for shift in range(0, _WORD, _TOGETHER):
        at_shifts: Words = np.ndarray((_TOGETHER, words), "<u8", padded, offset=shift, strides=(1, _WORD))
        np.multiply(at_shifts, _FIRST, out=hashes)
        np.right_shift(hashes[:, 1:], _SECOND_SHIFT, out=scratch)
        hashes[:, :-1] += scratch
        np.greater_equal(hashes, _SAMPLED, out=samples)
        samples.reshape(_TOGETHER, pages, _WORDS)[:, :, _LAST_WINDOW:] = False  # none reaches into the next page
        chosen = np.flatnonzero(samples)
        if not len(chosen):
            continue
        sampled = hashes.ravel()[chosen]
        sampled ^= sampled >> _HALF
        bounds = np.searchsorted(chosen, starts)
        filled = np.flatnonzero(np.diff(bounds, append=len(chosen)))
        minima = np.full((_TOGETHER * pages, FEATURES), NO_FEATURE, dtype=np.uint64)
        for number, function in enumerate(_FUNCTIONS):
            minima[filled, number] = np.minimum.reduceat(sampled * function, bounds[filled])
        np.minimum(least, minima.reshape(least.shape), out=least)
    return np.asarray(least.min(axis=0))


def _scratch(words: int) -> tuple[Words, Words, npt.NDArray[np.bool_]]:
    """This thread's own room: to get memory from the system and touch it anew costs as much as to fill it."""
    rooms = _local.__dict__
    if rooms.get("words") != words:
        rooms["words"] = words
        rooms["room"] = (
            np.empty((_TOGETHER, words), np.uint64),
            np.empty((_TOGETHER, words - 1), np.uint64),
            np.empty((_TOGETHER, words), np.bool_),
        )
    room: tuple[Words, Words, npt.NDArray[np.bool_]] = rooms["room"]
    return room


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
