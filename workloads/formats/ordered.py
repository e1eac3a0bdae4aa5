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
SIGN, ALL = np.uint32(2**31), np.uint32(2**32 - 1)
HALF, LOW = np.uint32(16), np.uint32(2**16 - 1)


class Ordered:
    """The nonzeros of some float32 arrays, ascending, with searches, and with sums in float64 from the least on."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        """Sort the nonzeros of ``arrays``, of any shapes; beside them, two bytes a nonzero are taken."""
        bits = [np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32) for array in arrays]
        self._begins = np.zeros(BUCKETS + 1, np.int64)
        for part in bits:
            _count(part, self._begins[1:])
        np.cumsum(self._begins, out=self._begins)
        self._lows = np.empty(self._begins[-1], np.uint16)
        places = self._begins[:-1].copy()
        for part in bits:
            _fill(part, places, self._lows)
        for bucket in np.flatnonzero(np.diff(self._begins) > 1):
            self._lows[self._begins[bucket] : self._begins[bucket + 1]].sort()
        self._sums = np.zeros(len(self) // BLOCK + 1)  # of the values below 0, BLOCK, 2 BLOCK, ..
        _add_up(self._lows, self._begins, self._sums)

    def __len__(self) -> int:
        return len(self._lows)

    def distinct(self, most: int) -> np.ndarray | None:
        """Return the different values, ascending; None where there are more than ``most``."""
        found = np.empty(most, np.uint32)
        count = _distinct(self._lows, self._begins, found)
        return None if count > most else _values(found[:count])

    def ends(self) -> tuple[float, float]:
        """Return the least and the greatest value, of one at least."""
        keys = [np.flatnonzero(np.diff(self._begins))[side] << 16 | int(self._lows[side]) for side in (0, -1)]
        least, greatest = _values(np.array(keys, np.uint32))
        return float(least), float(greatest)

    def below(self, numbers: np.ndarray) -> np.ndarray:
        """Return how many of the values are less than each of ``numbers``, float32, 1-D."""
        found = np.empty(len(numbers), np.int64)
        for index, key in enumerate(_keys(numbers.view(np.uint32))):
            begin, end = self._begins[key >> HALF], self._begins[(key >> HALF) + 1]
            found[index] = begin + np.searchsorted(self._lows[begin:end], np.uint16(key & LOW))
        return found

    def sum_below(self, index: int) -> float:
        """Return the sum of the ``index`` least values, added up one after another."""
        kept = index // BLOCK
        return float(_sum(self._lows, self._begins, kept * BLOCK, index, self._sums[kept]))


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
def _distinct(lows, begins, found):  # type: ignore[no-untyped-def]
    """Fill ``found`` with the different keys; return how many there are, or one more than it has room for."""
    count = 0
    for bucket in range(len(begins) - 1):
        for i in range(begins[bucket], begins[bucket + 1]):
            if i == begins[bucket] or lows[i] != lows[i - 1]:
                if count == len(found):
                    return count + 1
                found[count] = np.uint32(bucket) << HALF | np.uint32(lows[i])
                count += 1
    return count


@njit(cache=True)
def _add_up(lows, begins, sums):  # type: ignore[no-untyped-def]
    bits = np.empty(1, np.uint32)
    value = bits.view(np.float32)
    total, i = 0.0, 0
    for bucket in range(len(begins) - 1):
        for low in lows[begins[bucket] : begins[bucket + 1]]:
            key = np.uint32(bucket) << HALF | np.uint32(low)
            bits[0] = key ^ (SIGN if key >= SIGN else ALL)
            total += np.float64(value[0])
            i += 1
            if i % BLOCK == 0:
                sums[i // BLOCK] = total


@njit(cache=True)
def _sum(lows, begins, start, stop, total):  # type: ignore[no-untyped-def]
    """Return ``total`` and the values from ``start`` to ``stop``, added up one after another."""
    bits = np.empty(1, np.uint32)
    value = bits.view(np.float32)
    bucket = np.searchsorted(begins, start, side="right") - 1
    for i in range(start, stop):
        while begins[bucket + 1] <= i:
            bucket += 1
        key = np.uint32(bucket) << HALF | np.uint32(lows[i])
        bits[0] = key ^ (SIGN if key >= SIGN else ALL)
        total += np.float64(value[0])
    return total
