"""Weight sharing: a small codebook for the weights that are left, entry 0 kept for those that are not.

Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3: k-means with linearly spaced first centroids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from ..checks import whole
from .ordered import Ordered

BLOCK = 2**12  # values that are encoded at a time


@dataclass(frozen=True, eq=False)
class Quantized:
    """Weights as ``codes`` (uint8) into ``codebook`` (float32, entry 0 is 0.0), and the bias likewise."""

    codes: np.ndarray
    bias_codes: np.ndarray | None
    codebook: np.ndarray


def quantize(weight: np.ndarray, bias: np.ndarray | None, code_bits: int = 4) -> Quantized:
    """Return ``weight`` and ``bias`` with at most 2**code_bits - 1 shared nonzero values, and 0.

    ``weight`` any shape, ``bias`` 1-D or None, both float32; nonzeros never become code 0. The codewords
    minimise the squared error of the nonzeros of both, locally (k-means); values that fit the codebook as they are stay
    as they are. ``code_bits``: 1 to 8. Raises InputError for others.
    """
    whole(code_bits, "code_bits", 1, 8)
    centroids = cluster([weight] if bias is None else [weight, bias], (1 << code_bits) - 1)
    codebook = np.zeros(1 << code_bits, np.float32)
    codebook[1 : 1 + len(centroids)] = centroids
    edges = (centroids[1:] + centroids[:-1]) / 2

    def encode(array: np.ndarray) -> np.ndarray:
        codes = np.empty(array.shape, np.uint8)
        # What lies above an edge lies above the greatest float32 that is no greater than the edge.
        _encode(np.ascontiguousarray(array).reshape(-1), -_round_up(-edges), codes.reshape(-1))
        codes.flags.writeable = False  # a layer then keeps them as they are, without a copy
        return codes

    return Quantized(encode(weight), None if bias is None else encode(bias), codebook)


def cluster(arrays: Sequence[np.ndarray], count: int, rounds: int = 300) -> np.ndarray:
    """Return at most ``count`` centroids of the nonzeros of ``arrays``, float32, ascending, in float64.

    Lloyd's algorithm from centroids spaced evenly between the least and the greatest value, until no value changes its
    cluster or ``rounds`` are over. In one dimension a cluster is an interval of the sorted values, so a round costs
    ``count`` binary searches.
    """
    values = Ordered(arrays)
    few = values.distinct(count)
    if few is not None:
        return few.astype(np.float64)
    centroids = np.linspace(*values.ends(), count)
    before = None
    for _ in range(rounds):
        edges = np.array([0, *values.below(_round_up((centroids[1:] + centroids[:-1]) / 2)), len(values)])
        if before is not None and (edges == before).all():
            break
        before = edges
        size = np.diff(edges)
        total = np.diff(values.sums_below(edges))
        centroids = np.where(size > 0, total / np.maximum(size, 1), centroids)
    return centroids


def _round_up(numbers: np.ndarray) -> np.ndarray:
    """Return the least float32 that are at least ``numbers``: a search for these needs no values in float64."""
    near = numbers.astype(np.float32)
    return np.where(near < numbers, np.nextafter(near, np.float32(np.inf)), near)


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
