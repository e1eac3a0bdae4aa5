"""Arrays as whole numbers of their own width, for kernels that tell zeros from the rest: numba knows no float16."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def words_of(array: np.ndarray, what: str) -> tuple[np.ndarray, np.unsignedinteger]:
    """Return ``array`` as unsigned words, contiguous and of this machine's byte order, and which bits count.

    A word is zero where none of these bits is set: both zeros of a float, as its sign does not count. Raises
    InputError, naming ``what``, for values that are no real numbers of 64 bits at most.
    """
    if array.dtype.kind not in "biuf" or array.itemsize > 8:
        raise InputError(f"{what} must be real numbers, not {array.dtype}")
    words = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).view(f"u{array.itemsize}")
    counted = 8 * array.itemsize - (array.dtype.kind == "f")
    mask: np.unsignedinteger = words.dtype.type((1 << counted) - 1)
    return words, mask
