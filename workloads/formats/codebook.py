"""Weight sharing: a small codebook for the weights that are left, entry 0 kept for those that are not.

Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3: k-means with linearly spaced first centroids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Quantized:
    """Weights as ``codes`` (uint8) into ``codebook`` (float32, entry 0 is 0.0), and the bias likewise."""

    codes: np.ndarray
    bias_codes: np.ndarray | None
    codebook: np.ndarray


def quantize(weight: np.ndarray, bias: np.ndarray | None, code_bits: int = 4) -> Quantized:
    """Return ``weight`` and ``bias`` with at most 2**code_bits - 1 shared nonzero values, and 0.

    ``weight`` any shape, ``bias`` 1-D or None, both float; nonzeros never become code 0. The codewords minimise the
    squared error of the nonzeros of both, locally (k-means); values that fit the codebook as they are stay as they are.
    """
    values = weight[weight != 0]
    if bias is not None:
        values = np.concatenate([values, bias[bias != 0]])
    centroids = cluster(values, (1 << code_bits) - 1)
    codebook = np.zeros(1 << code_bits, np.float32)
    codebook[1 : 1 + len(centroids)] = centroids
    edges = (centroids[1:] + centroids[:-1]) / 2

    def encode(array: np.ndarray) -> np.ndarray:
        codes = np.zeros(array.shape, np.uint8)
        nonzero = array != 0
        codes[nonzero] = np.searchsorted(edges, array[nonzero]) + 1
        return codes

    return Quantized(encode(weight), None if bias is None else encode(bias), codebook)


def cluster(values: np.ndarray, count: int, rounds: int = 300) -> np.ndarray:
    """Return at most ``count`` centroids of the 1-D ``values``, ascending, in float64.

    Lloyd's algorithm from centroids spaced evenly between the least and the greatest value, until no value changes its
    cluster or ``rounds`` are over. In one dimension a cluster is an interval of the sorted values, so a round costs
    ``count`` binary searches.
    """
    ordered = np.sort(values.astype(np.float64, copy=False))
    if not ordered.size:
        return ordered
    distinct = ordered[np.flatnonzero(np.diff(ordered, prepend=-np.inf))]
    if len(distinct) <= count:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.linspace(ordered[0], ordered[-1], count)
    before = None
    for _ in range(rounds):
        inner = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(ordered)]])
        if before is not None and (edges == before).all():
            break
        before = edges
        size = np.diff(edges)
        total = sums[edges[1:]] - sums[edges[:-1]]
        centroids = np.where(size > 0, total / np.maximum(size, 1), centroids)
    return centroids
