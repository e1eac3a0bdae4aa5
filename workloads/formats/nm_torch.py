"""PyTorch's packed 2:4 weights, as `torch.sparse.to_sparse_semi_structured` makes them for CUTLASS; torch not needed.

Source: the layout that PyTorch states in ``torch/sparse/_semi_structured_conversions.py``: values (rows, columns / 2),
metadata words of 16 bits (of 32 for int8), each holding the nibbles of consecutive groups, low bits first. What
CUTLASS is given is a permutation of these words.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .nm import Nm, from_nibbles


def from_torch(values: np.ndarray, metadata: np.ndarray | None, reordered: bool = False, where: str = "weight") -> Nm:
    """Return the N:M weight that PyTorch packed into ``values`` and ``metadata``.

    ``values`` is (rows, columns / 2): float16, bfloat16 as uint16 or int16 words, int8, or float32 (1:2 as tf32).
    ``metadata`` is (rows, words) int16, int32 for int8 values: four or eight nibbles a word. ``reordered``: its words
    are still in CUTLASS's order, as `to_sparse_semi_structured` returns them; they are put back.
    Raises InputError for a cuSPARSELt blob (one array, without metadata), whose layout is not public, and where
    dtypes, shapes or nibbles do not fit.
    """
    if metadata is None or metadata.size == 0 or values.ndim == 1:
        raise InputError(
            f"{where}: packed 2:4 weights must come as values and metadata, and a cuSPARSELt blob is one array of no "
            "public layout; give the dense weight (to_dense() in PyTorch)"
        )
    if values.ndim != 2 or metadata.ndim != 2:
        raise InputError(f"{where}: values and metadata must have 2 dimensions, not {values.ndim} and {metadata.ndim}")
    expected = np.dtype(np.int32 if values.dtype == np.int8 else np.int16)
    if values.dtype not in (np.float16, np.uint16, np.int16, np.int8, np.float32):
        raise InputError(f"{where}: packed values must be 16-bit, int8 or float32, not {values.dtype}")
    if metadata.dtype != expected:
        raise InputError(f"{where}: metadata of {values.dtype} values must be {expected}, not {metadata.dtype}")
    rows, words = metadata.shape
    n, m = (1, 2) if values.dtype == np.float32 else (2, 4)
    per_word = 2 * expected.itemsize
    if values.shape != (rows, words * per_word * n):
        raise InputError(
            f"{where}: {rows} x {words} words of metadata need values of shape {(rows, words * per_word * n)}, "
            f"not {values.shape}"
        )
    if reordered:
        metadata = _in_order(metadata, where)
    unsigned = np.ascontiguousarray(metadata).view(f"u{expected.itemsize}")
    shifts = np.arange(per_word, dtype=unsigned.dtype) * 4
    found = ((unsigned[:, :, None] >> shifts) & 15).astype(np.uint8).reshape(rows, -1)
    return from_nibbles(values, found, n, m, where=where)


def _in_order(metadata: np.ndarray, where: str) -> np.ndarray:
    """Return the words of ``metadata`` in the order of rows and columns, out of CUTLASS's."""
    rows, words = metadata.shape
    block, stride = (32, 4) if metadata.itemsize == 2 else (16, 2)
    if rows % block or words % 2:
        raise InputError(
            f"{where}: reordered metadata must have a multiple of {block} rows and of 2 words, not {rows} x {words}"
        )
    row, word = np.indices((rows, words))
    # Rows are dealt over the block; then 2 x 2 blocks are transposed; then columns of two words are stored in turn.
    row = row // block * block + row % 8 * stride + row % block // 8
    moved = np.where(row % 2 == word % 2, 0, np.where(row % 2 == 0, 1, -1))
    row, word = row + moved, word - moved
    ordered: np.ndarray = metadata.reshape(-1)[word // 2 * (2 * rows) + row * 2 + word % 2]
    return ordered
