"""Weight sharing: a small codebook for the weights that are left, entry 0 kept for those that are not.

Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3: k-means with linearly spaced first centroids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..blocks import row_blocks
from ..checks import whole

BLOCK = 2**12  # values between two stored sums, and those that are encoded at a time


@dataclass(frozen=True, eq=False)
class Quantized:
    """Weights as ``codes`` (uint8) into ``codebook`` (float32, entry 0 is 0.0), and the bias likewise."""

    codes: np.ndarray
    bias_codes: np.ndarray | None
    codebook: np.ndarray


def quantize(weight: np.ndarray, bias: np.ndarray | None, code_bits: int = 4) -> Quantized:
    """Return ``weight`` and ``bias`` with at most 2**code_bits - 1 shared nonzero values, and 0.

    ``weight`` any shape, ``bias`` 1-D or None, both float32 or float64; nonzeros never become code 0. The codewords
    minimise the squared error of the nonzeros of both, locally (k-means); values that fit the codebook as they are stay
    as they are. ``code_bits``: 1 to 8. Raises InputError for others.
    """
    whole(code_bits, "code_bits", 1, 8)
    values = _nonzeros([weight] if bias is None else [weight, bias])
    values.sort()
    centroids = _cluster_sorted(values, (1 << code_bits) - 1)
    del values
    codebook = np.zeros(1 << code_bits, np.float32)
    codebook[1 : 1 + len(centroids)] = centroids
    edges = (centroids[1:] + centroids[:-1]) / 2

    def encode(array: np.ndarray) -> np.ndarray:
        codes = np.empty(array.shape, np.uint8)
        # What lies above an edge lies above the greatest number of its own kind that is no greater than the edge.
        _encode(np.ascontiguousarray(array).reshape(-1), -_round_up(-edges, array.dtype), codes.reshape(-1))
        codes.flags.writeable = False  # a layer then keeps them as they are, without a copy
        return codes

    return Quantized(encode(weight), None if bias is None else encode(bias), codebook)


def cluster(values: np.ndarray, count: int, rounds: int = 300) -> np.ndarray:
    """Return at most ``count`` centroids of the 1-D ``values``, ascending, in float64.

    Lloyd's algorithm from centroids spaced evenly between the least and the greatest value, until no value changes its
    cluster or ``rounds`` are over. In one dimension a cluster is an interval of the sorted values, so a round costs
    ``count`` binary searches.
    """
    return _cluster_sorted(np.sort(values), count, rounds)


def _cluster_sorted(ordered: np.ndarray, count: int, rounds: int = 300) -> np.ndarray:
    if not ordered.size:
        return ordered.astype(np.float64)
    first = ordered[1:] != ordered[:-1]
    if np.count_nonzero(first) < count:
        return np.concatenate([ordered[:1], ordered[1:][first]]).astype(np.float64)
    del first
    sums = _Sums(ordered)
    centroids = np.linspace(float(ordered[0]), float(ordered[-1]), count)
    before = None
    for _ in range(rounds):
        inner = np.searchsorted(ordered, _round_up((centroids[1:] + centroids[:-1]) / 2, ordered.dtype))
        edges = np.concatenate([[0], inner, [len(ordered)]])
        if before is not None and (edges == before).all():
            break
        before = edges
        size = np.diff(edges)
        total = np.diff([sums.below(int(edge)) for edge in edges])
        centroids = np.where(size > 0, total / np.maximum(size, 1), centroids)
    return centroids


def _nonzeros(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the nonzeros of all ``arrays``, 1-D; beside them, no array of the size of one is made."""
    values = np.empty(sum(np.count_nonzero(array) for array in arrays), np.result_type(*arrays))
    end = 0
    for array in arrays:
        for rows in row_blocks(array):
            found = array[rows][array[rows] != 0]
            values[end : end + found.size] = found
            end += found.size
    return values


class _Sums:
    """Sums in float64 of the first values of an array, added up one after another; few of them are kept."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._kept = [0.0]  # of the values below 0, BLOCK, 2 BLOCK, ..
        for start in range(0, len(values) - BLOCK + 1, BLOCK):
            self._kept.append(self._go_on(start, start + BLOCK))

    def below(self, index: int) -> float:
        """Return the sum of the values before ``index``."""
        return self._go_on(index - index % BLOCK, index)

    def _go_on(self, start: int, stop: int) -> float:
        sums = np.empty(stop - start + 1)
        sums[0], sums[1:] = self._kept[start // BLOCK], self._values[start:stop]
        return float(np.cumsum(sums)[-1])


def _round_up(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the least of ``dtype`` that are at least ``numbers``: a search for these needs no values in float64."""
    near = numbers.astype(dtype)
    return np.where(near < numbers, np.nextafter(near, dtype.type(np.inf)), near)


@njit(cache=True)
def _encode(values, edges, codes):  # type: ignore[no-untyped-def]
    """Fill ``codes`` with 0 for 0, else 1 + the ``edges`` below the value; a part at a time stays in cache."""
    for start in range(0, len(values), BLOCK):
        part, found = values[start : start + BLOCK], codes[start : start + BLOCK]
        found[:] = 1
        for edge in edges:
            for i in range(len(part)):
                found[i] += part[i] > edge
        for i in range(len(part)):
            found[i] = found[i] if part[i] != 0 else 0
