"""Many float32 in ascending order, in half their bytes: sorted, neighbours share the upper half of their bits.

Read as whole numbers, the bits of positive floats rise with their values and those of negative ones fall; turned around
where that is needed, they are keys. All values whose key has one upper half are a bucket, which holds the lower halves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

BUCKETS = 2**16
BLOCK = 2**12  # values between two sums that are kept
SMALL = 32  # values of a bucket that are sorted without a call of numpy's sort
SIGN, ALL = np.uint32(2**31), np.uint32(2**32 - 1)
HALF, LOW = np.uint32(16), np.uint32(2**16 - 1)


class Ordered:
    """The nonzeros of some float32 arrays, ascending, with searches, and with sums in float64 from the least on."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        """Sort the nonzeros of ``arrays``, of any shapes; beside them, two bytes a nonzero are taken."""
        bits = [np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32) for array in arrays]
        ends = np.zeros(BUCKETS, np.int64)
        for part in bits:
            _count(part, ends)
        self._uppers = np.flatnonzero(ends).astype(np.uint32)  # of the buckets that have any
        np.cumsum(ends, out=ends)
        self._begins = np.concatenate([[0], ends[self._uppers]])
        self._lows = np.empty(self._begins[-1], np.uint16)
        places = np.concatenate([[0], ends[:-1]])
        for part in bits:
            _fill(part, places, self._lows)
        _sort_small(self._lows, self._begins)
        for bucket in np.flatnonzero(np.diff(self._begins) > SMALL):
            self._lows[self._begins[bucket] : self._begins[bucket + 1]].sort()
        self._kept = np.zeros(len(self) // BLOCK + 1)  # sums of the values below 0, BLOCK, 2 BLOCK, ..
        blocks = np.arange(len(self._kept)) * BLOCK
        _add_up(self._lows, self._uppers, self._begins, np.zeros(1), blocks, self._kept)

    def __len__(self) -> int:
        return len(self._lows)

    def distinct(self, most: int) -> np.ndarray | None:
        """Return the different values, ascending; None where there are more than ``most``."""
        found = np.empty(most, np.uint32)
        count = _distinct(self._lows, self._uppers, self._begins, found)
        return None if count > most else _values(found[:count])

    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value, of one at least."""
        keys = [int(self._uppers[side]) << 16 | int(self._lows[side]) for side in (0, -1)]
        least, greatest = _values(np.array(keys, np.uint32))
        return float(least), float(greatest)

    def below(self, numbers: np.ndarray) -> np.ndarray:
        """Return how many of the values are less than each of ``numbers``, float32, 1-D."""
        found = np.empty(len(numbers), np.int64)
        _below(self._lows, self._uppers, self._begins, _keys(numbers.view(np.uint32)), found)
        return found

    def sums_below(self, indices: np.ndarray) -> np.ndarray:
        """Return the sums of the least values, as many as each of ``indices`` says, which rise; added up in order."""
        found = np.empty(len(indices))
        _add_up(self._lows, self._uppers, self._begins, self._kept, indices, found)
        return found


def _keys(bits: np.ndarray) -> np.ndarray:
    return np.asarray(bits ^ np.where(bits >= SIGN, ALL, SIGN))


def _values(keys: np.ndarray) -> np.ndarray:
    return np.asarray(keys ^ np.where(keys >= SIGN, SIGN, ALL)).view(np.float32)


@njit(cache=True)
def _count(bits, counts):  # type: ignore[no-untyped-def]
    for b in bits:
        counts[(b ^ (ALL if b >= SIGN else SIGN)) >> HALF] += (b & ~SIGN) != 0


@njit(cache=True)
def _fill(bits, places, lows):  # type: ignore[no-untyped-def]
    for b in bits:
        if (b & ~SIGN) != 0:
            key = b ^ (ALL if b >= SIGN else SIGN)
            lows[places[key >> HALF]] = key & LOW
            places[key >> HALF] += 1


@njit(cache=True)
def _sort_small(lows, begins):  # type: ignore[no-untyped-def]
    """Sort the buckets of few values by inserting one after another."""
    for bucket in range(len(begins) - 1):
        begin, end = begins[bucket], begins[bucket + 1]
        if end - begin <= SMALL:
            for i in range(begin + 1, end):
                low, j = lows[i], i
                while j > begin and lows[j - 1] > low:
                    lows[j] = lows[j - 1]
                    j -= 1
                lows[j] = low


@njit(cache=True)
def _distinct(lows, uppers, begins, found):  # type: ignore[no-untyped-def]
    """Fill ``found`` with the different keys; return how many there are, or one more than it has room for."""
    count = 0
    for bucket in range(len(uppers)):
        for i in range(begins[bucket], begins[bucket + 1]):
            if i == begins[bucket] or lows[i] != lows[i - 1]:
                if count == len(found):
                    return count + 1
                found[count] = uppers[bucket] << HALF | np.uint32(lows[i])
                count += 1
    return count


@njit(cache=True)
def _below(lows, uppers, begins, keys, found):  # type: ignore[no-untyped-def]
    for index, key in enumerate(keys):
        bucket = np.searchsorted(uppers, key >> HALF)
        place = begins[bucket]
        if bucket < len(uppers) and uppers[bucket] == key >> HALF:
            place += np.searchsorted(lows[place : begins[bucket + 1]], np.uint16(key & LOW))
        found[index] = place


@njit(cache=True)
def _add_up(lows, uppers, begins, kept, indices, sums):  # type: ignore[no-untyped-def]
    """Fill ``sums`` with those of the first values, as many as each of ``indices`` says; ``kept``: those of blocks."""
    bits = np.empty(1, np.uint32)
    value = bits.view(np.float32)
    total, i, bucket = 0.0, 0, 0
    for index, stop in enumerate(indices):
        block = min(stop // BLOCK, len(kept) - 1)
        if block * BLOCK > i:
            total, i = kept[block], block * BLOCK
            bucket = np.searchsorted(begins, i, side="right") - 1
        while i < stop:
            while begins[bucket + 1] <= i:
                bucket += 1
            for low in lows[i : min(begins[bucket + 1], stop)]:
                key = uppers[bucket] << HALF | np.uint32(low)
                bits[0] = key ^ (SIGN if key >= SIGN else ALL)
                total += np.float64(value[0])
                i += 1
        sums[index] = total
