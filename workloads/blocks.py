"""Large arrays a block of rows at a time: what is worked out of them then needs no second array of their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 2**20  # numbers


def row_blocks(array: np.ndarray, size: int = BLOCK, *, multiple: int = 1) -> Iterator[slice]:
    """Yield slices that cover the first axis of ``array``, each of ``size`` numbers at most, or of the fewest rows.

    Each but the last has a number of rows that ``multiple`` divides.
    """
    row = max(1, array[:1].size) * multiple
    step = max(1, size // row) * multiple
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


def first_where(wrong: Callable[..., np.ndarray], *arrays: np.ndarray) -> tuple[int, ...] | None:
    """Return the first place where ``wrong`` holds of the elements of ``arrays``, or None.

    ``arrays`` have one shape; ``wrong`` is given the same rows of each and returns bools of their shape.
    """
    if not arrays[0].ndim:
        return () if wrong(*arrays).any() else None
    for rows in row_blocks(arrays[0]):
        found = wrong(*(array[rows] for array in arrays))
        if found.any():
            first, *rest = np.unravel_index(int(found.argmax()), found.shape)
            return (rows.start + int(first), *map(int, rest))
    return None


def first_not_finite(array: np.ndarray) -> tuple[int, ...] | None:
    """Return the first place of ``array`` that holds NaN or an infinity, or None."""
    return first_where(lambda part: ~np.isfinite(part), array)
