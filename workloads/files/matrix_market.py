"""Matrix Market files (.mtx): one sparse or dense matrix in text, taken as the weight of one linear layer.

Format: Boisvert, Pozo, Remington, "The Matrix Market exchange formats", NISTIR 5935, 1996.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..limits import room
from ..trace import Layer, Trace
from .container import one_line, read_bytes
from .drawn import Draw
from .numbers import to_float32

BANNER = "%%MatrixMarket matrix"
FORMATS = ("coordinate", "array")
FIELDS = ("real", "double", "integer", "unsigned-integer", "pattern")  # two of them are scipy's
SYMMETRIES = ("general", "symmetric", "skew-symmetric")


def load_matrix_market(path: Path, draw: Draw) -> Trace:
    """Return the trace, named after ``path``, of the matrix in it; values of a pattern and activations are drawn.

    Entries count from 1; a symmetric or skew-symmetric file holds the lower triangle. Raises InputError.
    """
    try:
        matrix, is_drawn = _parse(read_bytes(path, "a Matrix Market file"), draw)
        return matrix_trace(matrix, path, draw, is_drawn, "Matrix Market")
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def matrix_trace(matrix: np.ndarray, path: Path, draw: Draw, values_are_drawn: bool, kind: str) -> Trace:
    """Return a trace with ``matrix`` (float32) as the weight of its one layer, and drawn activations."""
    inputs = draw.linear_inputs(matrix.shape[1])
    provenance: dict[str, object] = {"source": f"{kind} matrix in {path.name}"}
    provenance["drawn_inputs"] = {"layers": ["matrix"]} | draw.provenance()
    if values_are_drawn:
        provenance["drawn_weights"] = {"distribution": "standard normal", "seed": draw.seed}
    layer = Layer(name="matrix", op="linear", weight=matrix, inputs=inputs)
    return Trace(name=path.stem, layers=(layer,), provenance=provenance)


def check_size(rows: int, cols: int, entries: int) -> None:
    """Raise InputError unless a dense matrix of ``rows`` x ``cols`` is neither empty nor absurd for its ``entries``."""
    limit = room(entries)
    if rows < 1 or cols < 1 or rows * cols > limit:
        raise InputError(f"the matrix must have 1 to {limit} elements, zeros included, not {rows} x {cols}")


def scatter(
    shape: tuple[int, int], row: np.ndarray, col: np.ndarray, values: np.ndarray, *, first: int = 1
) -> np.ndarray:
    """Return the dense float32 matrix with ``values`` at (row, col), which count from 0.

    Raises InputError for a place met twice, as the file names it: by numbers that count from ``first``.
    """
    matrix = np.zeros(shape, np.float32)
    flat = row * shape[1] + col
    ordered = np.sort(flat)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        at = divmod(int(ordered[twice[0]]), shape[1])
        raise InputError(f"every place must occur once, and row {at[0] + first}, column {at[1] + first} occurs twice")
    matrix.reshape(-1)[flat] = values
    return matrix


def _parse(data: bytes, draw: Draw) -> tuple[np.ndarray, bool]:
    banner, _, rest = data.partition(b"\n")
    layout, kind, symmetry = _parse_banner(banner)
    size, body = _split_size(rest)
    try:
        sides = [int(word) for word in size.split()]
    except ValueError:
        sides = []
    if len(sides) != (3 if layout == "coordinate" else 2) or min(sides) < 0:
        wanted = "rows, columns and entries" if layout == "coordinate" else "rows and columns"
        raise InputError(f"the size line must give {wanted} as whole numbers, not {one_line(size.decode('latin-1'))!r}")
    rows, cols = sides[:2]
    check_size(rows, cols, body.count(b"\n") + 1)  # not as many entries as it claims, but as it can have
    if symmetry != "general" and rows != cols:
        raise InputError(f"a {symmetry} matrix must be square, not {rows} x {cols}")
    if layout == "array":
        return _parse_array(body, rows, cols, symmetry), False
    return _parse_coordinate(body, (rows, cols), sides[2], kind, symmetry, draw), kind == "pattern"


def _parse_banner(banner: bytes) -> tuple[str, str, str]:
    words = banner.decode("latin-1").lower().split()
    if words[:2] != BANNER.lower().split() or len(words) != 5:
        met = one_line(banner[:80].decode("latin-1"))
        raise InputError(f"the first line must be '{BANNER} FORMAT FIELD SYMMETRY', not {met!r}")
    for word, known in zip(words[2:], (FORMATS, FIELDS, SYMMETRIES), strict=True):
        if word not in known:
            raise InputError(f"the first line may say {', '.join(known)}, not {one_line(word)!r}; convert the matrix")
    layout, kind, symmetry = words[2:]
    if kind == "pattern" and (layout == "array" or symmetry == "skew-symmetric"):
        raise InputError(f"a pattern has no values, so it cannot be {layout} {symmetry}; convert the matrix")
    return layout, kind, symmetry


def _split_size(rest: bytes) -> tuple[bytes, bytes]:
    """Return the size line, the first that is neither comment nor blank, and all that follows it."""
    while rest:
        line, _, rest = rest.partition(b"\n")
        if line.strip() and not line.lstrip().startswith(b"%"):
            return line, rest
    return b"", b""


def _table(body: bytes, fields: list[tuple[str, type[np.generic]]], count: int, what: str) -> np.ndarray:
    """Return the ``count`` lines of numbers in ``body``, comments left out."""
    lines = [line for line in body.decode("latin-1").split("\n") if line.strip() and not line.lstrip().startswith("%")]
    if len(lines) != count:
        raise InputError(f"{count} {what} are needed, as the size line says, not {len(lines)}; copy the file again")
    if not lines:
        return np.zeros(0, fields)
    try:
        return np.loadtxt(lines, fields, comments="%", ndmin=1)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{what} must be numbers, {len(fields)} a line, and are not ({one_line(error)})") from None


def _parse_coordinate(
    body: bytes, shape: tuple[int, int], count: int, kind: str, symmetry: str, draw: Draw
) -> np.ndarray:
    fields: list[tuple[str, type[np.generic]]] = [("row", np.int64), ("col", np.int64)]
    if kind != "pattern":
        fields.append(("value", np.float64))
    table = _table(body, fields, count, "entries")
    row, col = table["row"] - 1, table["col"] - 1
    for name, index, side in (("row", row, shape[0]), ("column", col, shape[1])):
        wrong = np.flatnonzero((index < 0) | (index >= side))
        if wrong.size:
            at = int(wrong[0])
            raise InputError(f"a {name} must be from 1 to {side}, and entry {at + 1} has {int(index[at]) + 1}")
    values = draw.values(count) if kind == "pattern" else to_float32(table["value"], "entries")
    if symmetry == "general":
        return scatter(shape, row, col, values)
    above = np.flatnonzero(row < col if symmetry == "symmetric" else row <= col)
    if above.size:
        at = int(above[0])
        raise InputError(
            f"a {symmetry} file must hold the lower triangle, and entry {at + 1} is at row {row[at] + 1}, "
            f"column {col[at] + 1}"
        )
    off = row != col
    mirrored = values[off] if symmetry == "symmetric" else -values[off]
    return scatter(
        shape, np.append(row, col[off]), np.append(col, row[off]), np.append(values, mirrored).astype(np.float32)
    )


def _parse_array(body: bytes, rows: int, cols: int, symmetry: str) -> np.ndarray:
    """Return the matrix whose columns stand one below the other, the lower triangle's where it is symmetric."""
    if symmetry == "general":
        values = _values(body, rows * cols)
        return np.ascontiguousarray(values.reshape(cols, rows).T)
    diagonal = 0 if symmetry == "symmetric" else 1
    values = _values(body, rows * (rows + 1) // 2 - diagonal * rows)
    upper = np.zeros((rows, rows), np.float32)
    upper[np.triu_indices(rows, diagonal)] = values  # column by column of the lower triangle is row by row of this
    lower = np.tril(upper.T, -1)
    return upper + lower if symmetry == "symmetric" else lower - upper


def _values(body: bytes, count: int) -> np.ndarray:
    return to_float32(_table(body, [("value", np.float64)], count, "values")["value"], "values")
