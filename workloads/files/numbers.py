"""Arrays of any number type, as the float32 that traces are made of."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def to_float32(array: np.ndarray, what: str) -> np.ndarray:
    """Return ``array`` as float32. Raises InputError, naming ``what`` and the place, for what float32 cannot hold.

    Integers and float64 are rounded; what is below float32's range becomes 0.
    """
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what} must be real numbers, not {array.dtype}; convert it with astype('float32')")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        converted = array.astype(np.float32)
    wrong = ~np.isfinite(converted)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        rule = "must fit float32" if np.isfinite(array[place]) else "must be finite"
        raise InputError(f"{what} {rule}, and holds {array[place]} at {place}; replace such values")
    return converted


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Return the float32 that the bfloat16 ``bits`` (uint16) stand for: their upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
