"""Bitonic networks: columns of comparators, each of which puts two keys in order.

A block is int64 (4, keys). Its rows are compared in turn: SEGMENT, which merge of several back to back a key belongs
to; KEY; RANK, the order of equal keys where it matters; SOURCE, which key it was. Padding lies behind all keys of its
segment. Source: Batcher, "Sorting networks and their applications", AFIPS 1968; `select`: FLiMS, FPT 2018.
"""

from __future__ import annotations

import numpy as np

SEGMENT, KEY, RANK, SOURCE = range(4)
PADDING = int(np.iinfo(np.int64).max)


def block_of(keys: np.ndarray, sources: np.ndarray, ranks: np.ndarray | None = None, segment: int = 0) -> np.ndarray:
    """Return a block of ``keys``; without ``ranks`` all are alike."""
    ranks = np.zeros(len(keys), np.int64) if ranks is None else ranks
    return np.stack([np.full(len(keys), segment, np.int64), keys, ranks, sources])


def empty(size: int = 0, segment: int = 0) -> np.ndarray:
    """Return ``size`` places of padding, behind the keys of ``segment``."""
    block = np.full((4, size), PADDING, np.int64)
    block[SEGMENT] = segment
    return block


def padded(block: np.ndarray, size: int, segment: int) -> np.ndarray:
    """Return ``block`` with padding up to ``size`` places."""
    return np.concatenate([block, empty(size - block.shape[1], segment)], axis=1)


def keys_in(block: np.ndarray) -> np.ndarray:
    """Return ``block`` without its padding."""
    return np.asarray(block[:, block[SOURCE] != PADDING])


def exceeds(one: np.ndarray, other: np.ndarray, rows: int = 4) -> np.ndarray:
    """Return where ``one`` comes after ``other`` by the first ``rows`` rows."""
    after = one[rows - 1] > other[rows - 1]
    for row in range(rows - 2, -1, -1):
        after = (one[row] > other[row]) | ((one[row] == other[row]) & after)
    return np.asarray(after)


def sort(block: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ``block``, whose size is a power of 2, in order, and how many comparisons the sorter made."""
    block, comparisons = block.copy(), 0
    places = np.arange(block.shape[1])
    size = 2
    while size <= len(places):
        distance = size // 2
        while distance:
            low = places[places & distance == 0]
            falls = low & size != 0  # every other run is sorted downwards, so that two make a bitonic one
            comparisons += _exchange(block, np.where(falls, low + distance, low), np.where(falls, low, low + distance))
            distance //= 2
        size *= 2
    return block, comparisons


def merge(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, int]:
    """Return two sorted blocks of equal size as one, and how many comparisons the merger made."""
    return _ascend(np.concatenate([one, other[:, ::-1]], axis=1), 0)


def select(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return the lower half of two sorted blocks of equal size, sorted, the comparisons, and where ``one`` won."""
    other = other[:, ::-1]
    is_one = exceeds(other, one)
    low, comparisons = _ascend(np.where(is_one, one, other), is_one.size)
    return low, comparisons, is_one


def _ascend(block: np.ndarray, comparisons: int) -> tuple[np.ndarray, int]:
    """Return a bitonic block in order: places half the size apart are compared, then a quarter, down to neighbours."""
    places = np.arange(block.shape[1])
    distance = len(places) // 2
    while distance:
        low = places[places & distance == 0]
        comparisons += _exchange(block, low, low + distance)
        distance //= 2
    return block, comparisons


def _exchange(block: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
    """Let a column of comparators move the lower key of each pair of places to ``low``; return how many there are."""
    one, other = block[:, low], block[:, high]
    swap = exceeds(one, other)
    block[:, low], block[:, high] = np.where(swap, other, one), np.where(swap, one, other)
    return len(low)
