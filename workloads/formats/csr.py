"""CSR, compressed sparse rows: of each row the nonzeros from left to right, each with its column.

Sources: Gale, Zaharia, Young, Elsen, "Sparse GPU Kernels for Deep Learning", SC 2020 (indices of 32 bits beside fp32
values, of 16 beside fp16); NVIDIA, cuSPARSE documentation, "Compressed Sparse Row (CSR)".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..checks import whole
from ..errors import InputError
from .words import words_of

OFFSET_BITS = 32


@dataclass(frozen=True, eq=False)
class Csr:
    """A (rows, cols) matrix: row r holds the entries ``offsets[r]`` up to, not including, ``offsets[r + 1]``.

    ``offsets`` is (rows + 1,) int64, ``columns`` (entries,) int32 and ascends in each row, ``values`` (entries,) of the
    matrix's dtype, in this machine's byte order. ``index_bits``: of a stored column.
    """

    rows: int
    cols: int
    index_bits: int
    offsets: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def entries(self) -> int:
        """Count the stored values."""
        return len(self.values)

    @property
    def lengths(self) -> np.ndarray:
        """Return the entries of each row, (rows,) int64."""
        return np.diff(self.offsets)

    def bits(self, value_bits: int | None = None, offset_bits: int = OFFSET_BITS) -> dict[str, int]:
        """Return the storage by part, in bits; ``value_bits`` of a value, those of its dtype where not given."""
        bits = 8 * self.values.itemsize if value_bits is None else value_bits
        return storage_bits(self.rows, self.entries, bits, self.index_bits, offset_bits)


def storage_bits(
    rows: int, entries: int, value_bits: int, index_bits: int, offset_bits: int = OFFSET_BITS
) -> dict[str, int]:
    """Return the bits of ``entries`` in ``rows`` by part: values, columns, and the offsets of rows + 1 rows."""
    return {"values": entries * value_bits, "columns": entries * index_bits, "offsets": (rows + 1) * offset_bits}


def encode(matrix: np.ndarray, index_bits: int = 32, where: str = "weight") -> Csr:
    """Return ``matrix`` in CSR; ``where`` names it in errors.

    ``matrix`` is (rows, cols), of real numbers; both zeros of a float are left out, and NaN is not. Raises InputError
    for another number of dimensions or kind of values, and where ``index_bits`` (1 to 32) cannot tell the columns.
    """
    if matrix.ndim != 2:
        raise InputError(f"{where}: CSR needs a matrix of 2 dimensions, not {matrix.ndim}")
    words, mask = words_of(matrix, f"{where}: CSR values")
    rows, cols = matrix.shape
    check_index_bits(index_bits, cols, where)
    offsets = np.zeros(rows + 1, np.int64)
    _count(words, mask, offsets)
    np.cumsum(offsets, out=offsets)
    columns, values = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], words.dtype)
    _fill(words, mask, offsets, columns, values)
    return Csr(rows, cols, index_bits, offsets, columns, values.view(matrix.dtype.newbyteorder("=")))


def decode(csr: Csr) -> np.ndarray:
    """Return the (rows, cols) matrix that ``csr`` stores.

    Raises ValueError where offsets do not rise from 0 to the number of entries, where there are not as many columns as
    values, and, naming the row, where columns do not ascend or lie outside the matrix.
    """
    if csr.offsets.shape != (csr.rows + 1,):
        raise ValueError(f"offsets must be {(csr.rows + 1,)}, rows + 1, not {csr.offsets.shape}")
    if csr.columns.shape != csr.values.shape or csr.values.ndim != 1:
        raise ValueError(f"columns must be {csr.values.shape}, as the values, not {csr.columns.shape}")
    if csr.offsets[0] != 0 or csr.offsets[-1] != csr.entries or (np.diff(csr.offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to {csr.entries}, the entries, and never fall")
    row_of = np.repeat(np.arange(csr.rows), csr.lengths)
    outside = (csr.columns < 0) | (csr.columns >= csr.cols)
    if outside.any():
        entry = int(outside.argmax())
        raise ValueError(f"columns must be from 0 to {csr.cols - 1}, and row {row_of[entry]} has {csr.columns[entry]}")
    falls = (np.diff(csr.columns) <= 0) & (np.diff(row_of) == 0)
    if falls.any():
        raise ValueError(f"columns must ascend in a row, and those of row {row_of[int(falls.argmax())]} do not")
    matrix = np.zeros((csr.rows, csr.cols), csr.values.dtype)
    matrix[row_of, csr.columns] = csr.values
    return matrix


def check_index_bits(index_bits: int, places: int, where: str) -> None:
    """Raise InputError unless an index of ``index_bits``, 1 to 32, tells ``places`` apart."""
    whole(index_bits, f"{where}: index_bits", 1, 32)
    need = max(places - 1, 0).bit_length()
    if need > index_bits:
        raise InputError(
            f"{where}: index_bits must be at least {need} to tell {places:,} columns apart, not {index_bits}"
        )


@njit(cache=True)
def _count(words, mask, offsets):  # type: ignore[no-untyped-def]
    for r in range(len(words)):
        found = 0
        for word in words[r]:
            found += (word & mask) != 0
        offsets[r + 1] = found


@njit(cache=True)
def _fill(words, mask, offsets, columns, values):  # type: ignore[no-untyped-def]
    for r in range(len(words)):
        row, e = words[r], offsets[r]
        for c in range(len(row)):
            if (row[c] & mask) != 0:
                columns[e] = c
                values[e] = row[c]
                e += 1
