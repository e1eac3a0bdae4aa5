"""Block-ELLPACK: square blocks of a matrix, kept whole, the same number of them in every block row.

Source: NVIDIA, cuSPARSE documentation, "Blocked-Ellpack (Blocked-ELL)": ``ellColInd`` holds the column of each block,
-1 for one that is empty, ``ellValue`` its values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..checks import whole
from ..errors import InputError
from .csr import check_index_bits
from .words import words_of

PADDING = -1  # the column of a block that only fills its block row
BLOCK_LIMIT = 1024  # a small matrix in a large block takes the memory of the block


@dataclass(frozen=True, eq=False)
class BlockEll:
    """A (rows, cols) matrix in blocks of ``block`` x ``block``; a side that is no multiple is padded with zeros.

    ``columns`` is (block rows, width) int32, ascending, `PADDING` after the last block of a block row. ``values`` is
    (block rows, width, block, block) of the matrix's dtype. ``index_bits``: of a stored column.
    """

    rows: int
    cols: int
    block: int
    index_bits: int
    columns: np.ndarray
    values: np.ndarray

    @property
    def width(self) -> int:
        """Return the blocks of a block row, padding included."""
        return int(self.columns.shape[1])

    @property
    def blocks(self) -> int:
        """Count the blocks that hold a part of the matrix."""
        return int(np.count_nonzero(self.columns != PADDING))

    @property
    def padding_blocks(self) -> int:
        """Count the blocks that only fill their block row."""
        return self.columns.size - self.blocks

    def bits(self, value_bits: int | None = None) -> dict[str, int]:
        """Return the storage by part, in bits; ``value_bits`` of a value, those of its dtype where not given."""
        bits = 8 * self.values.itemsize if value_bits is None else value_bits
        return storage_bits(self.columns.size, self.block, bits, self.index_bits)


def storage_bits(blocks: int, block: int, value_bits: int, index_bits: int) -> dict[str, int]:
    """Return the bits of ``blocks`` blocks, padding included, by part: values and columns."""
    return {"values": blocks * block * block * value_bits, "columns": blocks * index_bits}


def kept_blocks(matrix: np.ndarray, block: int, where: str = "weight") -> np.ndarray:
    """Return which blocks of ``matrix``, 2-D, hold a nonzero, (block rows, block columns) bool.

    Raises InputError, naming ``where``, for values that are no real numbers.
    """
    rows, cols = matrix.shape
    kept = np.zeros((-(-rows // block), -(-cols // block)), bool)
    words, mask = words_of(matrix, f"{where}: Block-ELLPACK values")
    _find_kept(words, mask, block, kept)
    return kept


def encode(matrix: np.ndarray, block: int, index_bits: int = 32, where: str = "weight") -> BlockEll:
    """Return ``matrix`` in Block-ELLPACK: every block with a nonzero is kept, all of its zeros with it.

    ``matrix`` is (rows, cols), of real numbers, with neither side 0; block rows are filled up to the widest. Raises
    InputError for another shape or kind of values, a ``block`` outside 1 .. BLOCK_LIMIT, and where ``index_bits`` (1
    to 32) cannot tell the block columns apart. ``where`` names the matrix in errors.
    """
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{where}: Block-ELLPACK needs a matrix of 2 sides of at least 1, not {matrix.shape}")
    block = whole(block, f"{where}: block", 1, BLOCK_LIMIT)
    rows, cols = matrix.shape
    kept = kept_blocks(matrix, block, where)
    tall, wide = kept.shape
    check_index_bits(index_bits, wide, where)
    width = int(kept.sum(axis=1).max())
    columns = np.full((tall, width), PADDING, np.int32)
    place = np.cumsum(kept, axis=1) - 1
    down, across = np.nonzero(kept)
    columns[down, place[down, across]] = across
    values = np.zeros((tall, width, block, block), matrix.dtype)
    padded = np.pad(matrix, ((0, tall * block - rows), (0, wide * block - cols)))
    values[down, place[down, across]] = padded.reshape(tall, block, wide, block)[down, :, across]
    return BlockEll(rows, cols, block, index_bits, columns, values)


def decode(ell: BlockEll) -> np.ndarray:
    """Return the (rows, cols) matrix that ``ell`` stores.

    Raises ValueError, naming the block row, where columns do not ascend, lie outside the matrix, or follow padding,
    and where padding, or what lies beyond the matrix, holds a value.
    """
    block = ell.block
    tall, wide = -(-ell.rows // block), -(-ell.cols // block)
    if ell.columns.shape != (tall, ell.width) or ell.values.shape != (tall, ell.width, block, block):
        raise ValueError(
            f"columns and values must be of {tall} block rows and blocks of {block} x {block}, "
            f"not {ell.columns.shape} and {ell.values.shape}"
        )
    real = ell.columns != PADDING
    ahead = (ell.columns[:, 1:] > ell.columns[:, :-1]) | ~real[:, 1:]
    legal = ((ell.columns >= PADDING) & (ell.columns < wide)).all(axis=1) & ahead.all(axis=1)
    legal &= (real[:, :-1] | ~real[:, 1:]).all(axis=1)
    if not legal.all():
        row = int((~legal).argmax())
        raise ValueError(
            f"columns must ascend, be below {wide} and end in padding, and those of block row {row} are "
            f"{ell.columns[row].tolist()}"
        )
    if ell.values[~real].any():
        raise ValueError("blocks that are padding must be zero, and one holds a value")
    matrix = np.zeros((tall, block, wide, block), ell.values.dtype)
    down, place = np.nonzero(real)
    matrix[down, :, ell.columns[down, place], :] = ell.values[down, place]
    whole = matrix.reshape(tall * block, wide * block)
    if whole[ell.rows :].any() or whole[:, ell.cols :].any():
        raise ValueError(f"blocks at the edges must be zero beyond {ell.rows} x {ell.cols}, and one holds a value")
    return np.ascontiguousarray(whole[: ell.rows, : ell.cols])


@njit(cache=True)
def _find_kept(words, mask, block, kept):  # type: ignore[no-untyped-def]
    rows, cols = words.shape
    found = np.empty(cols, words.dtype)
    for first in range(0, rows, block):
        found[:] = 0
        for r in range(first, min(rows, first + block)):
            row = words[r]
            for c in range(cols):
                found[c] |= row[c]
        for c in range(cols):
            kept[first // block, c // block] |= (found[c] & mask) != 0
