"""Arrays of any number type, as the float32 that traces are made of."""

from __future__ import annotations

import numpy as np

from ..blocks import first_not_finite, first_where
from ..errors import InputError


def to_float32(array: np.ndarray, what: str) -> np.ndarray:
    """Return ``array`` as float32: itself, or a new array, read-only so that nobody needs a copy of it.

    Integers and float64 are rounded; what is below float32's range becomes 0. Raises InputError, naming ``what`` and
    the place, for what float32 cannot hold.
    """
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what} must be real numbers, not {array.dtype}; convert it with astype('float32')")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        converted: np.ndarray = array.astype(np.float32, copy=False)
    place = first_not_finite(converted)
    if place is not None:
        rule = "must fit float32" if np.isfinite(array[place]) else "must be finite"
        raise InputError(f"{what} {rule}, and holds {array[place]} at {place}; replace such values")
    return converted if converted is array else read_only(converted)


NARROW = ("BF16", "F8_E4M3", "F8_E5M2")  # the container's names of floats that numpy has not


def narrow_to_float32(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Return the float32 that ``bits`` stand for, which are of one of the dtypes `NARROW`.

    Source of the 8-bit formats: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, table 1.
    """
    if dtype == "BF16":
        return bfloat16_to_float32(bits)
    every = np.arange(256, dtype=np.uint16)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return np.asarray((every << 8).view(np.float16).astype(np.float32)[bits])
    exponent, digits = (every >> 3) & 15, (every & 7).astype(np.float32)
    values = np.where(exponent > 0, np.ldexp(1 + digits / 8, exponent.astype(np.int32) - 7), np.ldexp(digits, -9))
    values[(every & 127) == 127] = np.nan  # the one pattern that is no number; there are no infinities
    return np.asarray(np.where(every < 128, values, -values).astype(np.float32)[bits])


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Return the float32 that the bfloat16 ``bits`` (uint16) stand for: their upper half."""
    wide: np.ndarray = np.left_shift(bits, 16, dtype=np.uint32)
    return wide.view(np.float32)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return ``array``, which nobody else holds, made read-only: a layer then keeps it as it is, without a copy."""
    array.flags.writeable = False
    return array


def without_negative_zeros(array: np.ndarray) -> np.ndarray:
    """Return ``array`` with every zero positive: itself where it has no other."""
    found = first_where(lambda part: np.signbit(part) & (part == 0), array)
    return array if found is None else read_only(array + array.dtype.type(0))
