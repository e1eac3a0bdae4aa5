"""EIE's interleaved CSC: one slice a processing element, row positions as runs of zeros.

Source: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016, section III.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True, eq=False)
class Counts:
    """How many entries the encoding of a matrix has: ``entries`` (padding included) and ``nonzeros``, (cols, PEs).

    Whole numbers of as few bytes as hold them, unsigned where they are not int32.
    """

    entries: np.ndarray
    nonzeros: np.ndarray


@dataclass(frozen=True, eq=False)
class Csc:
    """A (rows, cols) matrix as one slice a PE.

    ``values`` and ``runs`` hold the entries of PE 0, then of PE 1, and so on; those of a PE begin at ``starts[pe]``.
    An entry is a value and the number of zeros before it in its column (``runs``, at most 2**index_bits - 1).
    ``pointers`` is (PEs, cols + 1): the entries of column j of a PE are ``pointers[pe, j] .. pointers[pe, j + 1]``
    of its slice. Entries of value 0 are padding.
    """

    rows: int
    cols: int
    index_bits: int
    values: np.ndarray
    runs: np.ndarray
    starts: np.ndarray
    pointers: np.ndarray

    @property
    def pe_count(self) -> int:
        """Return the number of slices."""
        return len(self.pointers)

    @property
    def entries(self) -> int:
        """Count all entries, padding included."""
        return len(self.values)

    @property
    def padding(self) -> int:
        """Count the entries that only bridge runs of zeros."""
        return int(np.count_nonzero(self.values == 0))

    def slice(self, pe: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values, runs and pointers of one PE."""
        own = slice(self.starts[pe], self.starts[pe + 1])
        return self.values[own], self.runs[own], self.pointers[pe]

    def bits(self, code_bits: int = 4, pointer_bits: int = 16) -> dict[str, int]:
        """Return the storage by part, in bits: codes, runs and pointers of all PEs."""
        return storage_bits(self.entries, self.cols + 1, self.pe_count, code_bits, self.index_bits, pointer_bits)


def storage_bits(
    entries: int, pointers: int, pe_count: int, code_bits: int, index_bits: int, pointer_bits: int
) -> dict[str, int]:
    """Return the bits of an encoding by part: ``entries`` in all, ``pointers`` in each of ``pe_count`` PEs."""
    return {
        "codes": entries * code_bits,
        "runs": entries * index_bits,
        "pointers": pe_count * pointers * pointer_bits,
    }


def count(matrix: np.ndarray, pe_count: int, index_bits: int = 4) -> Counts:
    """Return how many entries `encode` would store for each column and PE, in one pass and without storing them.

    Arguments and errors are those of `encode`.
    """
    matrix = _checked(matrix, pe_count, index_bits)
    shape = (matrix.shape[1], pe_count)
    # An entry takes a row of its PE's at least. Half the bytes are twice the columns in a cache, and a matrix of fewer
    # rows than PEs has more counts than weights.
    most = -(-matrix.shape[0] // pe_count)
    dtype = np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.int32
    counts = Counts(np.empty(shape, dtype), np.empty(shape, dtype))
    _count(matrix, index_bits, counts.entries, counts.nonzeros)
    return counts


def encode(matrix: np.ndarray, pe_count: int, index_bits: int = 4) -> Csc:
    """Return ``matrix`` in EIE's interleaved CSC, one slice a PE.

    ``matrix`` is (rows, cols), of real numbers but float16, which numba does not know; row r belongs to PE
    r % pe_count. Runs restart at each column, over the PE's own rows only; one longer than 2**index_bits - 1 is bridged
    by stored zeros. Zeros after the last nonzero of a column are not stored. Raises ValueError if ``matrix`` is not 2-D
    or of another kind, ``pe_count`` is below 1, or ``index_bits`` is not 2 .. 8.
    Source: section III; the index width is 4 bits there.
    """
    matrix = _checked(matrix, pe_count, index_bits)
    entries = count(matrix, pe_count, index_bits).entries
    pointers = np.zeros((pe_count, matrix.shape[1] + 1), np.int64)
    np.cumsum(entries.T, axis=1, out=pointers[:, 1:])
    starts = np.zeros(pe_count + 1, np.int64)
    np.cumsum(pointers[:, -1], out=starts[1:])
    values = np.empty(starts[-1], matrix.dtype)
    runs = np.empty(starts[-1], np.uint8)
    _fill(matrix, index_bits, pointers, starts, values, runs)
    rows, cols = matrix.shape
    return Csc(rows, cols, index_bits, values, runs, starts, pointers)


def decode(csc: Csc) -> np.ndarray:
    """Return the (rows, cols) matrix that ``csc`` stores.

    Raises ValueError where pointers fall, do not end at the slice's end, or an entry lies below the last row.
    """
    length = np.diff(csc.starts)
    if csc.pointers.shape != (len(length), csc.cols + 1):
        raise ValueError(f"pointers must be {(len(length), csc.cols + 1)}, cols + 1 a PE, not {csc.pointers.shape}")
    if (csc.pointers[:, 0] != 0).any() or (np.diff(csc.pointers, axis=1) < 0).any():
        raise ValueError("pointers must start at 0 and never fall")
    if (csc.pointers[:, -1] != length).any():
        raise ValueError("the last pointer of each PE must be one past its last entry")
    matrix = np.zeros((csc.rows, csc.cols), csc.values.dtype)
    bad = _decode(csc.pointers, csc.starts, csc.values, csc.runs, matrix)
    if bad >= 0:
        raise ValueError(f"every entry must lie in one of the {csc.rows} rows, and entry {bad} lies below the last")
    return matrix


def _checked(matrix: np.ndarray, pe_count: int, index_bits: int) -> np.ndarray:
    if matrix.ndim != 2:
        raise ValueError(f"matrix must have 2 dimensions, not {matrix.ndim}")
    if pe_count < 1:
        raise ValueError(f"pe_count must be at least 1, not {pe_count}")
    if not 2 <= index_bits <= 8:
        raise ValueError(f"index_bits must be 2 to 8, not {index_bits}")
    if matrix.dtype.kind not in "biuf" or matrix.itemsize > 8 or matrix.dtype == np.float16:
        raise ValueError(f"matrix must hold integers, float32 or float64, not {matrix.dtype}; convert it")
    matrix = np.ascontiguousarray(matrix, matrix.dtype.newbyteorder("="))
    return matrix.view(np.uint8) if matrix.dtype == np.bool_ else matrix


@njit(cache=True)
def _count(matrix, index_bits, entries, nonzeros):  # type: ignore[no-untyped-def]
    rows, cols = matrix.shape
    pe_count = entries.shape[1]
    # One PE's rows at a time keeps these three in the first cache and lets the inner loop run in vector lanes.
    last = np.empty(cols, np.int32)
    stored = np.empty(cols, np.int32)
    kept = np.empty(cols, np.int32)
    for pe in range(pe_count):
        last[:] = -1
        stored[:] = 0
        kept[:] = 0
        local = np.int32(0)
        for r in range(pe, rows, pe_count):
            row = matrix[r]
            for c in range(cols):
                nonzero = row[c] != 0
                run = local - last[c] - 1
                stored[c] += 1 + (run >> index_bits) if nonzero else 0
                kept[c] += 1 if nonzero else 0
                last[c] = local if nonzero else last[c]
            local += 1
        for c in range(cols):
            entries[c, pe] = stored[c]
            nonzeros[c, pe] = kept[c]


@njit(cache=True)
def _fill(matrix, index_bits, pointers, starts, values, runs):  # type: ignore[no-untyped-def]
    rows, cols = matrix.shape
    pe_count = len(pointers)
    longest = (1 << index_bits) - 1
    place = np.empty(cols, np.int64)
    last = np.empty(cols, np.int64)
    kept = np.empty(cols + 1, np.int64)
    for pe in range(pe_count):
        for c in range(cols):
            place[c] = starts[pe] + pointers[pe, c]
        last[:] = -1
        for local in range((rows - pe + pe_count - 1) // pe_count):
            row = matrix[pe + local * pe_count]
            # Which weights are left is random: collecting their columns without a branch spares the mispredictions.
            found = 0
            for c in range(cols):
                kept[found] = c
                found += row[c] != 0
            for c in kept[:found]:
                run = local - last[c] - 1
                last[c] = local
                e = place[c]
                while run > longest:
                    values[e] = 0
                    runs[e] = longest
                    e += 1
                    run -= longest + 1
                values[e] = row[c]
                runs[e] = run
                place[c] = e + 1


@njit(cache=True)
def _decode(pointers, starts, values, runs, matrix):  # type: ignore[no-untyped-def]
    rows, cols = matrix.shape
    pe_count = len(pointers)
    for pe in range(pe_count):
        for c in range(cols):
            local = -1
            for e in range(starts[pe] + pointers[pe, c], starts[pe] + pointers[pe, c + 1]):
                local += runs[e] + 1
                row = pe + local * pe_count
                if row >= rows:
                    return e
                matrix[row, c] = values[e]
    return -1
