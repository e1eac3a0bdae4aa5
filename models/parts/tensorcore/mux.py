"""Select and multiply: the products that a sparse tensor core forms, in the order in which it adds them.

    D[i, j] = sum over groups g, slots s of  value[i, g, s] * B[m * g + position[i, g, s], j]

Every multiplier has an M:1 mux on B that the row's metadata sets; all columns j share it. `Assumed`, as no source gives
the order inside a core: groups ascend, slots in a group ascend, one rounding an addition, starting from 0.
Source: NVIDIA, PTX ISA, mma.sp.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ....workloads.errors import InputError
from ....workloads.formats.nm import Nm
from .config import ACCUMULATES, DTYPE_BITS
from .values import INTEGERS, round_to


def select_and_multiply(a: Nm, b: np.ndarray, dtype: str = "fp16", accumulate: str | None = None) -> np.ndarray:
    """Return A @ B as the muxes form it, (rows, columns); A is the N:M weight ``a``, grouped along its last axis.

    ``b`` is (reduction, columns). fp16, bf16 and tf32 operands are rounded to ``dtype``, as `round_to` does; their
    products are exact in float32, which sums are kept in ("fp32", the default), or rounded to float16 after each
    addition ("fp16"). int8 and int4 operands must be whole numbers in range; sums are int32 and wrap. The sums equal,
    bit for bit, those of the decoded matrix added in the same order: a zero adds nothing, where B is finite.
    Raises InputError for a dtype without sparse products, or values that it cannot hold.
    """
    known = [name for name in ACCUMULATES if name != "b1"]
    if dtype not in known:
        raise InputError(f"dtype of a sparse product must be one of {', '.join(known)}, not {dtype!r}")
    accumulate = ACCUMULATES[dtype][0] if accumulate is None else accumulate
    if accumulate not in ACCUMULATES[dtype]:
        raise InputError(f"accumulate of {dtype} must be {' or '.join(ACCUMULATES[dtype])}, not {accumulate!r}")
    reduction = a.values.shape[1] * a.m
    if a.axis != len(a.shape) - 1 or b.ndim != 2 or len(b) != reduction:
        raise InputError(
            f"A must be grouped along its last axis and B have its {reduction} rows, "
            f"not axis {a.axis} of {len(a.shape)} and B of shape {b.shape}"
        )
    rows = len(a.values)
    values = _operand(a.values, dtype, "A").reshape(rows, -1)
    columns = a.columns.reshape(rows, -1)
    operand = _operand(np.ascontiguousarray(b), dtype, "B")
    if accumulate == "fp16":
        return _sum_in_half(values, columns, operand)
    out = np.zeros((rows, b.shape[1]), operand.dtype)
    _accumulate(values, columns, operand, out)
    return out


def _operand(values: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Return ``values`` as the cores hold them; raises InputError, naming ``where``, for no whole number in range."""
    if dtype not in INTEGERS:
        return round_to(values, dtype)
    bound = 1 << (DTYPE_BITS[dtype] - 1)
    if values.size and (values.min() < -bound or values.max() >= bound or (values != np.rint(values)).any()):
        raise InputError(
            f"{where}: {dtype} takes whole numbers from {-bound} to {bound - 1}; quantize the values first"
        )
    return values.astype(np.int32)


def _sum_in_half(values: np.ndarray, columns: np.ndarray, operand: np.ndarray) -> np.ndarray:
    """Return the sums in float16: each product and sum in float32, then rounded."""
    out = np.zeros((len(values), operand.shape[1]), np.float16)
    with np.errstate(over="ignore"):
        for slot in range(values.shape[1]):
            out = (out + values[:, slot, None] * operand[columns[:, slot]]).astype(np.float16)
    return out


@njit(cache=True)
def _accumulate(values, columns, operand, out):  # type: ignore[no-untyped-def]
    rows, slots = values.shape
    for i in range(rows):
        for s in range(slots):
            value = values[i, s]
            selected = operand[columns[i, s]]
            for j in range(out.shape[1]):
                out[i, j] += value * selected[j]
