"""Rows of a sparse matrix as warps get them: in which order, how many steps, and what of them is not work.

A sub-warp has one row. It reads it from the last multiple of its vector loads at or before the row's start
(reverse-offset alignment), in full steps, and multiplies what remains some nonzeros at a time. Rows that do not fill a
step are not aligned. Sub-warps of a warp go through their steps together, so that the longest row sets their number.

Source: Gale, Zaharia, Young, Elsen, "Sparse GPU Kernels for Deep Learning", SC 2020, and its library Sputnik:
sputnik/spmm/cuda_spmm.cu.cc (the loop), memory_aligner.h (the alignment), matrix_utils.cu.cc (``SortedRowSwizzle``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from .config import LINE_BYTES, SECTOR_BYTES, Config


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one product, in the order in which warps get them; arrays are (rows,) int64.

    ``order``: which row of the matrix it is. ``nonzeros``: that it has. ``masked``: of the row before, read to align
    the loads. ``steps``: full ones. ``residue``: nonzeros after them; ``unrolled``: the same, filled up.
    """

    order: np.ndarray
    nonzeros: np.ndarray
    masked: np.ndarray
    steps: np.ndarray
    residue: np.ndarray
    unrolled: np.ndarray


@dataclass(frozen=True, eq=False)
class Warps:
    """What the warps of a layer have to do; arrays are (warps,), those of one product after another.

    They are int32 where all of their figures fit.

    ``steps`` and ``unrolled``: of the longest row. ``slots``: nonzeros that the warp goes through, summed over its
    sub-warps. ``computed``: of these, those that a sub-warp multiplies, padding among them. ``nonzeros``: of these,
    real ones. ``masked``: of these, the row before's. ``loaded``: nonzeros read; ``sparse_lines``, ``sparse_sectors``:
    of 128 and 32 bytes, that they take. ``rows``: that are there. ``distinct``: rows of the dense matrix that the warp
    reads, each once however many of its rows ask for it.
    """

    steps: np.ndarray
    unrolled: np.ndarray
    slots: np.ndarray
    computed: np.ndarray
    nonzeros: np.ndarray
    masked: np.ndarray
    loaded: np.ndarray
    sparse_lines: np.ndarray
    sparse_sectors: np.ndarray
    rows: np.ndarray
    distinct: np.ndarray

    @property
    def count(self) -> int:
        """Return the number of warps that have the rows once."""
        return len(self.steps)

    def part(self, some: slice) -> Warps:
        """Return some of the warps, in int64."""
        return Warps(*(getattr(self, name)[some].astype(np.int64) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Work:
    """The warps of the ``products`` of a layer, and how they share dense rows.

    ``reads``: dense rows that warps read. ``first_reads``: of these, those that are the first of an SM; expected, where
    thread blocks are dealt out at random.
    """

    warps: Warps
    products: int
    first_reads: float
    reads: int


def split_rows(config: Config, lengths: np.ndarray) -> Rows:
    """Return the rows of the given ``lengths`` (rows,), in the order of ``config``."""
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    masked = offsets % config.sparse_vector
    masked[lengths + masked < config.tile_depth] = 0
    steps, residue = np.divmod(lengths + masked, config.tile_depth)
    unrolled = -(-residue // config.residue_unroll) * config.residue_unroll
    order = np.argsort(-lengths, kind="stable") if config.order == "sorted" else np.arange(len(lengths))
    return Rows(order, *(array[order] for array in (lengths, masked, steps, residue, unrolled)))


def measure_work(config: Config, kept: np.ndarray) -> Work:
    """Return the work of the products of a layer; ``kept`` is (products, rows, reduction), nonzero where stored."""
    per_warp = config.rows_per_warp
    products, count, depth = kept.shape
    warps = -(-count // config.block_rows) * config.warps_per_block
    # A warp goes through no more than its rows, aligned and filled up; the units that they take are no more than twice
    # as many, for a step's values and for its columns.
    longest = depth + config.sparse_vector + config.tile_depth + config.residue_unroll
    dtype = np.int32 if 4 * per_warp * longest < 1 << 31 else np.int64
    work = Warps(*(np.zeros(products * warps, dtype) for _ in Warps.__dataclass_fields__))
    first_reads, reads = 0.0, 0
    for number, matrix in enumerate(kept):
        own = slice(number * warps, (number + 1) * warps)
        lengths = np.empty(count, np.int64)
        _count(matrix, lengths)
        rows = split_rows(config, lengths)

        def grouped(array: np.ndarray) -> np.ndarray:
            return np.pad(array, (0, warps * per_warp - count)).reshape(warps, per_warp)

        distinct, readers = work.distinct[own], np.zeros(depth, np.int64)
        _read_dense(matrix, rows.order, per_warp, distinct, readers)
        steps, unrolled, residue = grouped(rows.steps), grouped(rows.unrolled), grouped(rows.residue)
        work.steps[own], work.unrolled[own] = steps.max(axis=1), unrolled.max(axis=1)
        work.slots[own] = (steps.max(axis=1) * config.tile_depth + unrolled.max(axis=1)) * per_warp
        work.computed[own] = (steps * config.tile_depth + unrolled).sum(axis=1)
        work.nonzeros[own] = grouped(rows.nonzeros).sum(axis=1)
        work.masked[own] = grouped(rows.masked).sum(axis=1)
        work.loaded[own] = (steps * config.tile_depth + residue).sum(axis=1)
        for asked, unit in ((work.sparse_lines, LINE_BYTES), (work.sparse_sectors, SECTOR_BYTES)):
            asked[own] = (steps * units(config, config.tile_depth, unit) + units(config, residue, unit)).sum(axis=1)
        work.rows[own] = grouped(np.ones(count, np.int64)).sum(axis=1)
        first_reads += float(config.sm_count * (1 - (1 - 1 / config.sm_count) ** readers).sum())
        reads += int(distinct.sum())
    return Work(work, products, first_reads, reads)


def units(config: Config, count: Any, unit: int) -> Any:
    """Return the units of ``unit`` bytes that ``count`` neighbouring nonzeros take, values and columns."""
    return -(-count * config.value_bytes // unit) + -(-count * config.index_bytes // unit)


@njit(cache=True)
def _count(matrix, lengths):  # type: ignore[no-untyped-def]
    for r in range(len(matrix)):
        found = 0
        for word in matrix[r]:
            found += word != 0
        lengths[r] = found


@njit(cache=True)
def _read_dense(matrix, order, per_warp, distinct, readers):  # type: ignore[no-untyped-def]
    """Fill ``distinct``: columns in which any row of a warp has a nonzero; add to ``readers``: warps by column."""
    depth = matrix.shape[1]
    read = np.empty(depth, np.bool_)
    for first in range(0, len(order), per_warp):
        read[:] = False
        for row in order[first : first + per_warp]:
            values = matrix[row]
            for c in range(depth):
                read[c] |= values[c] != 0
        found = 0
        for c in range(depth):
            found += read[c]
            readers[c] += read[c]
        distinct[first // per_warp] = found
