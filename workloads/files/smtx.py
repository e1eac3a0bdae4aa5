"""Matrices of the Deep Learning Matrix Collection (.smtx): where the weights of pruned networks are, without values.

Three lines of text: ``rows, columns, nonzeros``; the rows + 1 row offsets; the column indices, from 0.
Source: Gale, Zaharia, Young, Elsen, "Sparse GPU Kernels for Deep Learning", SC 2020.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..trace import Trace
from .container import one_line, read_bytes
from .drawn import Draw
from .matrix_market import check_size, matrix_trace, scatter


def load_smtx(path: Path, draw: Draw) -> Trace:
    """Return the trace, named after ``path``, of the matrix in it; its values and activations are drawn.

    Raises InputError naming file, rule and value.
    """
    data = read_bytes(path, "an .smtx file")
    try:
        return matrix_trace(_parse(data, draw), path, draw, True, "DLMC")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _parse(data: bytes, draw: Draw) -> np.ndarray:
    lines = data.split(b"\n")
    if any(line.strip() for line in lines[3:]):
        raise InputError("three lines are needed (sizes, row offsets, column indices), and more follow")
    size, offsets, cols = (
        _integers(line, what)
        for line, what in zip([*lines, b"", b""], ("sizes", "row offsets", "column indices"), strict=False)
    )
    if size.size != 3:
        raise InputError(
            f"the first line must be 'rows, columns, nonzeros', not {one_line(lines[0][:80].decode('latin-1'))!r}"
        )
    rows, columns, count = (int(side) for side in size)
    check_size(rows, columns, cols.size)
    if offsets.size != rows + 1:
        raise InputError(f"{rows} rows need {rows + 1} row offsets, not {offsets.size}; copy the file again")
    if cols.size != count:
        raise InputError(f"{count} column indices are needed, as the first line says, not {cols.size}; copy it again")
    if offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
        raise InputError(f"row offsets must rise from 0 to {count} and never fall; copy the file again")
    wrong = np.flatnonzero((cols < 0) | (cols >= columns))
    if wrong.size:
        raise InputError(f"a column index must be from 0 to {columns - 1}, and number {wrong[0]} is {cols[wrong[0]]}")
    row = np.repeat(np.arange(rows), np.diff(offsets))
    return scatter((rows, columns), row, cols, draw.values(count), first=0)


def _integers(line: bytes, what: str) -> np.ndarray:
    try:
        return np.array(line.replace(b",", b" ").split()).astype(np.int64) if line.strip() else np.zeros(0, np.int64)
    except (ValueError, OverflowError):
        words = line.replace(b",", b" ").split()
        wrong = next((word for word in words if not _is_whole(word)), words[0])
        raise InputError(
            f"{what} must be whole numbers, and {one_line(wrong[:40].decode('latin-1'))!r} is none; copy the file again"
        ) from None


def _is_whole(word: bytes) -> bool:
    try:
        return -(2**63) <= int(word) < 2**63
    except ValueError:
        return False
