"""The data folder of the EIE authors' own simulator (public repository RalphMao/EIE-simulator): one layer, dumped.

``act.dat``: float32 activations, one a column. ``arithm.dat``: float32 codebook, entry 0 is 0.0. For each PE K:
``ptr/ptrK.dat``: uint32 column pointers, columns + 1 of them, or one more where a bias column follows the last;
``spm/spmK.dat``: pairs of uint32 (code, zero run). Row i of the matrix belongs to PE i % PEs; code 0 is padding.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..limits import room
from ..trace import Layer, Trace
from .container import read_bytes
from .numbers import read_only

PARTS = ("act.dat", "arithm.dat", "ptr", "spm")
LONGEST_RUN = 255  # an index of 8 bits, the widest that EIE's format is used with


def load_eie_dump(folder: str | Path) -> Trace:
    """Return the dumped layer as a trace named after ``folder``, decoded to its full code matrix.

    The layer is called ``fc`` and carries codes, codebook, bias codes where there is a bias column, and the one vector
    of activations. The number of PEs is the number of ptr files. The dump does not say how many rows the matrix has:
    it has as many as the last row with an entry needs, so trailing rows without any are lost.
    Raises InputError naming file, rule and value.
    """
    folder = Path(folder)
    pe_count = _count_pes(folder)
    act = _read(folder / "act.dat", np.dtype("<f4"))
    codebook = _read(folder / "arithm.dat", np.dtype("<f4"))
    if not act.size:
        raise InputError(f"{folder / 'act.dat'}: at least one activation is needed, not 0; dump the layer again")
    if not 2 <= codebook.size <= 256:
        raise InputError(f"{folder / 'arithm.dat'}: the codebook must have 2 to 256 entries, not {codebook.size}")
    pointers = [_pointers(folder, pe, act.size) for pe in range(pe_count)]
    for pe, ptr in enumerate(pointers):
        if ptr.size != pointers[0].size:
            raise InputError(
                f"{folder / f'ptr/ptr{pe}.dat'}: every PE must have as many pointers as PE 0, {pointers[0].size}, "
                f"not {ptr.size}"
            )
    slices = [_slice(folder, pe, pe_count, ptr, codebook.size) for pe, ptr in enumerate(pointers)]
    rows, cols, codes = (np.concatenate(parts) for parts in zip(*slices, strict=True))
    if not rows.size:
        raise InputError(f"{folder}: a dump must hold at least one weight, and all entries are padding")
    row_count = int(rows.max()) + 1
    limit = room(sum(len(part) for part, _, _ in slices))
    if row_count * act.size > limit:
        raise InputError(f"{folder}: the matrix must have at most {limit} elements, not {row_count} x {act.size}")
    is_bias = cols == act.size
    matrix = np.zeros((row_count, act.size), np.uint8)
    matrix[rows[~is_bias], cols[~is_bias]] = codes[~is_bias]
    bias = None
    if pointers[0].size == act.size + 2:
        bias = np.zeros(row_count, np.uint8)
        bias[rows[is_bias]] = codes[is_bias]
    try:
        layer = Layer(
            name="fc",
            op="linear",
            codes=read_only(matrix),
            bias_codes=bias,
            codebook=codebook,
            inputs=act.reshape(1, -1),
        )
        return Trace(
            name=folder.resolve().name or "eie-dump",
            layers=(layer,),
            provenance={"source": "data folder of the EIE authors' simulator", "pe_count": pe_count},
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def _count_pes(folder: Path) -> int:
    missing = [name for name in PARTS if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"{folder}: a dump of the EIE simulator has {', '.join(PARTS)}, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; give the simulator's data folder"
        )
    numbers = {}
    for kind in ("ptr", "spm"):
        try:
            names = [path.name for path in (folder / kind).iterdir()]
        except OSError as error:
            raise InputError(f"{folder / kind}: a folder of {kind}K.dat is needed, and {error.strerror}") from None
        found = (re.fullmatch(rf"{kind}(0|[1-9][0-9]{{0,8}})\.dat", name) for name in names)
        numbers[kind] = {int(match[1]) for match in found if match}
    pe_count = len(numbers["ptr"])
    if not pe_count:
        raise InputError(f"{folder / 'ptr'}: one file ptrK.dat a PE is needed, and there is none")
    for kind in ("ptr", "spm"):
        lost = set(range(pe_count)) - numbers[kind]
        if lost:
            raise InputError(
                f"{folder / kind}: {pe_count} PEs need {kind}0.dat to {kind}{pe_count - 1}.dat, "
                f"and {kind}{min(lost)}.dat is missing"
            )
    extra = numbers["spm"] - numbers["ptr"]
    if extra:
        raise InputError(f"{folder / 'spm'}: spm{min(extra)}.dat must have its ptr{min(extra)}.dat, and it is missing")
    return pe_count


def _slice(
    folder: Path, pe: int, pe_count: int, ptr: np.ndarray, book_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and code of each weight of one PE; the bias is the column after the last."""
    path = folder / f"spm/spm{pe}.dat"
    pairs = _read(path, np.dtype(("<u4", 2))).reshape(-1, 2)
    if ptr[-1] > len(pairs):
        raise InputError(f"{path}: {ptr[-1]} entries are needed, as the last pointer says, not {len(pairs)}")
    code, run = pairs[: ptr[-1]].T
    _check_below(path, "code", code, book_size, "as many as the codebook has")
    _check_below(path, "zero run", run, LONGEST_RUN + 1, "to fit 8 bits")
    # reached[e]: rows of this PE that entries 0..e-1 pass over, all columns together
    reached = np.concatenate(([0], np.cumsum(run.astype(np.int64) + 1)))
    counts = np.diff(ptr)
    position = reached[1:] - np.repeat(reached[ptr[:-1]], counts) - 1
    column = np.repeat(np.arange(counts.size), counts)
    kept = code != 0
    return pe + pe_count * position[kept], column[kept], code[kept].astype(np.uint8)


def _pointers(folder: Path, pe: int, columns: int) -> np.ndarray:
    path = folder / f"ptr/ptr{pe}.dat"
    ptr = _read(path, np.dtype("<u4")).astype(np.int64)
    if ptr.size not in (columns + 1, columns + 2):
        raise InputError(
            f"{path}: {columns} activations need {columns + 1} pointers, or {columns + 2} with a bias column, "
            f"not {ptr.size}"
        )
    if ptr[0] != 0:
        raise InputError(f"{path}: pointers must start at 0, not {ptr[0]}")
    falls = np.flatnonzero(np.diff(ptr) < 0)
    if falls.size:
        at = int(falls[0]) + 1
        raise InputError(f"{path}: pointers must never fall, and number {at} is {ptr[at]} after {ptr[at - 1]}")
    return ptr


def _check_below(path: Path, what: str, values: np.ndarray, limit: int, why: str) -> None:
    wrong = np.flatnonzero(values >= limit)
    if wrong.size:
        at = int(wrong[0])
        raise InputError(f"{path}: a {what} must be below {limit}, {why}, and entry {at} has {values[at]}")


def _read(path: Path, dtype: np.dtype[np.generic]) -> np.ndarray:
    data = read_bytes(path, "a dump's file")
    if len(data) % dtype.itemsize:
        raise InputError(f"{path}: the size must be a multiple of {dtype.itemsize} bytes, not {len(data)}")
    return np.frombuffer(data, dtype)
