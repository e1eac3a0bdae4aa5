"""Matrix-vector products over the nonzero activations: exact in float64, and as a fixed-point datapath rounds them.

All functions take the matrix as (out, in) weights, float32, or as uint8 codes with a codebook; a batch of vectors as
`Nonzeros`. Sums run in the order of the columns, one row after another, so that every engine gets the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ...workloads.blocks import BLOCK, row_blocks
from .fixed_point import Datapath


@dataclass(frozen=True, eq=False)
class Nonzeros:
    """The nonzero activations of a batch of vectors, in order of their columns.

    Those of vector v are ``columns[starts[v] : starts[v + 1]]`` with ``values`` (float64).
    """

    columns: np.ndarray
    values: np.ndarray
    starts: np.ndarray

    @property
    def vectors(self) -> int:
        """Return the number of vectors."""
        return len(self.starts) - 1


def find_nonzeros(vectors: np.ndarray, bias: bool) -> Nonzeros:
    """Return the nonzeros of ``vectors``, (count, in); with ``bias``, each ends in a 1.0 in one more column."""
    count, size = vectors.shape
    columns = np.flatnonzero(vectors)
    values = vectors.reshape(-1)[columns].astype(np.float64)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.count_nonzero(vectors, axis=1), out=starts[1:])
    if count > 1:
        columns -= np.repeat(np.arange(count) * size, np.diff(starts))
    if bias:
        columns = np.insert(columns, starts[1:], size)
        values = np.insert(values, starts[1:], 1.0)
        starts += np.arange(count + 1)
    return Nonzeros(columns, values, starts)


def multiply(matrix: np.ndarray, codebook: np.ndarray | None, nonzeros: Nonzeros) -> tuple[np.ndarray, float]:
    """Return the products in float64, (vectors, out), and the largest magnitude of any sum on the way there."""
    out = np.zeros((nonzeros.vectors, len(matrix)))
    columns, values, starts = nonzeros.columns, nonzeros.values, nonzeros.starts
    if codebook is None:
        return out, _multiply(matrix, columns, values, starts, out)
    peak, codes = 0.0, codebook.astype(np.float64)
    for part in row_blocks(values, BLOCK // len(codes)):  # the products of each with every code
        peak = max(peak, _look_up_peak(matrix, columns, values[part, None] * codes, starts, part.start, out))
    return out, peak


def multiply_fixed(
    matrix: np.ndarray, codebook: np.ndarray | None, nonzeros: Nonzeros, datapath: Datapath
) -> tuple[np.ndarray, int]:
    """Return the accumulators' words, (vectors, out) int64, and how many additions saturated."""
    columns, starts = nonzeros.columns, nonzeros.starts
    least, greatest = datapath.accumulators.least, datapath.accumulators.greatest
    if codebook is None:
        words = datapath.activations.to_words(nonzeros.values)
        out, saturated = np.empty((nonzeros.vectors, len(matrix)), np.int64), 0
        limit, shift = _bounds(datapath)
        for rows in row_blocks(matrix):  # words take twice the memory of float32
            weights = datapath.weights.to_words(matrix[rows])
            part = np.zeros((nonzeros.vectors, len(weights)), np.int64)
            saturated += _multiply_fixed(weights, columns, words, starts, shift, limit, least, greatest, part)
            out[:, rows] = part
        return out, saturated
    limit, shift = _bounds(datapath)
    codes, saturated = datapath.weights.to_words(codebook), 0
    # Words and their sums lie far below 2**53, so float64 holds them exactly, and one compiled loop serves both.
    sums, bounds = np.zeros((nonzeros.vectors, len(matrix))), (float(least), float(greatest))
    for some in row_blocks(nonzeros.values, BLOCK // len(codes)):
        products = datapath.activations.to_words(nonzeros.values[some, None]) * codes
        table = (products + (1 << (shift - 1))) >> shift if shift > 0 else np.clip(products, -limit, limit) << -shift
        saturated += _look_up(matrix, columns, table.astype(np.float64), starts, some.start, *bounds, sums)
    return sums.astype(np.int64), saturated


def _bounds(datapath: Datapath) -> tuple[int, int]:
    """Return a limit to products and a shift that give the same accumulators as the datapath's, and fit 64 bits.

    A product that is shifted up saturates any accumulator once it exceeds the range of words, before the shift or by
    it; one of at most 47 bits that is shifted down by more than 62 is 0 after rounding.
    """
    bits = datapath.accumulators.word_bits
    return 1 << bits, min(max(datapath.shift, -bits - 1), 62)


@njit(cache=True)
def _look_up(codes, columns, table, starts, begin, least, greatest, out):  # type: ignore[no-untyped-def]
    """Add ``table[activation - begin, code]`` to ``out``, of the activations that the table has.

    Four rows at a time hide the latency of one row's additions.
    """
    rows = len(codes)
    saturated = 0
    for v in range(len(starts) - 1):
        first, end = max(starts[v], begin), min(starts[v + 1], begin + len(table))
        if first >= end:
            continue
        for r in range(0, rows - rows % 4, 4):
            a, b, c, d = out[v, r], out[v, r + 1], out[v, r + 2], out[v, r + 3]
            for j in range(first, end):
                column = columns[j]
                line = table[j - begin]
                a += line[codes[r, column]]
                b += line[codes[r + 1, column]]
                c += line[codes[r + 2, column]]
                d += line[codes[r + 3, column]]
                if max(max(a, b), max(c, d)) > greatest or min(min(a, b), min(c, d)) < least:
                    for total in (a, b, c, d):
                        saturated += total > greatest or total < least
                    a = min(max(a, least), greatest)
                    b = min(max(b, least), greatest)
                    c = min(max(c, least), greatest)
                    d = min(max(d, least), greatest)
            out[v, r] = a
            out[v, r + 1] = b
            out[v, r + 2] = c
            out[v, r + 3] = d
        for r in range(rows - rows % 4, rows):
            a = out[v, r]
            for j in range(first, end):
                a += table[j - begin, codes[r, columns[j]]]
                if a > greatest or a < least:
                    saturated += 1
                    a = min(max(a, least), greatest)
            out[v, r] = a
    return saturated


@njit(cache=True)
def _look_up_peak(codes, columns, table, starts, begin, out):  # type: ignore[no-untyped-def]
    """Add up as `_look_up` does, unbounded; return the largest magnitude met."""
    rows = len(codes)
    peak = 0.0
    for v in range(len(starts) - 1):
        first, end = max(starts[v], begin), min(starts[v + 1], begin + len(table))
        if first >= end:
            continue
        for r in range(0, rows - rows % 4, 4):
            a, b, c, d = out[v, r], out[v, r + 1], out[v, r + 2], out[v, r + 3]
            for j in range(first, end):
                column = columns[j]
                line = table[j - begin]
                a += line[codes[r, column]]
                b += line[codes[r + 1, column]]
                c += line[codes[r + 2, column]]
                d += line[codes[r + 3, column]]
                peak = max(peak, max(max(abs(a), abs(b)), max(abs(c), abs(d))))
            out[v, r] = a
            out[v, r + 1] = b
            out[v, r + 2] = c
            out[v, r + 3] = d
        for r in range(rows - rows % 4, rows):
            a = out[v, r]
            for j in range(first, end):
                a += table[j - begin, codes[r, columns[j]]]
                peak = max(peak, abs(a))
            out[v, r] = a
    return peak


@njit(cache=True)
def _multiply(weights, columns, values, starts, out):  # type: ignore[no-untyped-def]
    peak = 0.0
    for v in range(len(starts) - 1):
        for r in range(len(weights)):
            total = 0.0
            for j in range(starts[v], starts[v + 1]):
                total += np.float64(weights[r, columns[j]]) * values[j]
                peak = max(peak, abs(total))
            out[v, r] = total
    return peak


@njit(cache=True)
def _multiply_fixed(weights, columns, words, starts, shift, limit, least, greatest, out):  # type: ignore[no-untyped-def]
    saturated = 0
    half = (1 << (shift - 1)) if shift > 0 else 0
    for v in range(len(starts) - 1):
        for r in range(len(weights)):
            total = 0
            for j in range(starts[v], starts[v + 1]):
                product = weights[r, columns[j]] * words[j]
                total += (product + half) >> shift if shift > 0 else min(max(product, -limit), limit) << -shift
                if total > greatest or total < least:
                    saturated += 1
                    total = min(max(total, least), greatest)
            out[v, r] = total
    return saturated
