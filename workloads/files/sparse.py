"""Arrays with many zeros, in the fewest bytes of three forms.

``dense``: every value. ``bitmap``: one bit an element, then the values that are not zero. ``gaps``: one byte for each
of these values, the zeros before it (0..254; 255 stands for 255 zeros and no value), then the values; below a density
of about 1/8 this is shorter than the bitmap. Values of a codebook with at most 16 entries go two to a byte, and masks
have no values at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from types import EllipsisType
from typing import Literal, Protocol

import numpy as np

from ..errors import InputError
from ..limits import ELEMENTS_LIMIT

Form = Literal["dense", "bitmap", "gaps"]
RUN = 255  # zeros that a byte without a value stands for
BLOCK = 2**16  # bytes of a bitmap or of gaps that are gone through at a time


def pack(array: np.ndarray, *, nibbles: bool = False) -> tuple[Form, dict[str, np.ndarray]]:
    """Return the shortest form of ``array`` and its parts by name; ``nibbles`` where no value exceeds 15.

    A negative zero becomes zero.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    count = int(np.count_nonzero(flat))
    # The places of the nonzeros take eight bytes each: only where gaps may be shorter are they made.
    kept = np.flatnonzero(flat) if count <= flat.size // 4 else None
    bits = 0 if flat.dtype == np.bool_ else 4 if nibbles else 8 * flat.itemsize
    gaps = None if kept is None else _gaps(kept, flat.size)
    size_of: dict[Form, float] = {"bitmap": -(-flat.size // 8) + count * bits / 8}
    if bits:
        size_of["dense"] = flat.size * bits / 8
    if gaps is not None:
        size_of["gaps"] = gaps.size + count * bits / 8
    form = min(size_of, key=lambda name: size_of[name])
    if form == "dense":
        return (form, {"values": _to_nibbles(flat)}) if nibbles else dense(array)
    if form == "gaps":
        assert gaps is not None
        parts = {"gaps": gaps}
    else:
        parts = {"bitmap": np.packbits(flat != 0)}
    if bits:
        values = flat[flat != 0]
        parts["values"] = _to_nibbles(values) if nibbles else values
    return form, parts


def dense(array: np.ndarray) -> tuple[Form, dict[str, np.ndarray]]:
    """Return the dense form of ``array`` and its one part, in the shape it has; a negative zero becomes zero."""
    return "dense", {"values": array + array.dtype.type(0)}


class Part(Protocol):
    """An array, or one that is still in a file: what is sliced off its first axis is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the lengths of the sides."""

    def __getitem__(self, part: slice | EllipsisType, /) -> np.ndarray:
        """Return the elements, or rows, of ``part``; all for ``...``."""


def unpack(
    form: Form,
    shape: tuple[int, ...],
    parts: Mapping[str, Part],
    dtype: type[np.generic],
    *,
    nibbles: bool = False,
) -> np.ndarray:
    """Return the array of ``shape`` that `pack` gave these parts for, read-only.

    Nothing is allocated before the length of the parts has proved the shape. The parts are gone through a block at a
    time. Raises InputError, the rule first.
    """
    size = prod(shape)
    if size > ELEMENTS_LIMIT:
        raise InputError(f"shape must come to at most {ELEMENTS_LIMIT} elements, not {shape}")
    if form == "dense":
        values = parts["values"]
        wanted: tuple[int, ...] = (-(-size // 2),) if nibbles else shape
        if values.shape != wanted:
            raise InputError(f"values must have shape {wanted}, not {values.shape}")
        return _from_nibbles(values, 0, size).reshape(shape) if nibbles else values[...]
    count = _count_bits(parts["bitmap"], size) if form == "bitmap" else _count_gaps(parts["gaps"], size)
    if dtype is not np.bool_:
        length = -(-count // 2) if nibbles else count
        if parts["values"].shape != (length,):
            raise InputError(
                f"values must have shape ({length},), as many as its {form} has places, not {parts['values'].shape}"
            )
    array = np.zeros(size, dtype)
    begin = 0
    for part, place, length in (
        _bitmap_places(parts["bitmap"], size) if form == "bitmap" else _gap_places(parts["gaps"])
    ):
        end = begin + length
        if dtype is np.bool_:
            array[part][place] = True
        else:
            array[part][place] = _from_nibbles(parts["values"], begin, end) if nibbles else parts["values"][begin:end]
        begin = end
    array.flags.writeable = False
    return array.reshape(shape)


def part_names(form: Form, dtype: type[np.generic]) -> tuple[str, ...]:
    """Return the names of the parts that ``form`` has for an array of ``dtype``."""
    names = {"dense": ("values",), "bitmap": ("bitmap", "values"), "gaps": ("gaps", "values")}[form]
    return tuple(name for name in names if name != "values") if dtype is np.bool_ else names


def _gaps(kept: np.ndarray, size: int) -> np.ndarray:
    zeros = np.diff(kept, prepend=-1) - 1
    last = np.cumsum(zeros // RUN + 1)  # where each value's own byte ends
    tail = size - 1 - (int(kept[-1]) if kept.size else -1)
    stream = np.full((int(last[-1]) if kept.size else 0) + tail // RUN, RUN, np.uint8)
    stream[last - 1] = zeros % RUN
    return stream


def _blocks(part: Part) -> Iterator[np.ndarray]:
    for start in range(0, part.shape[0], BLOCK):
        yield part[start : start + BLOCK]


def _count_gaps(gaps: Part, size: int) -> int:
    if len(gaps.shape) != 1:
        raise InputError(f"gaps must have one dimension, not shape {gaps.shape}")
    count = reached = 0
    for block in _blocks(gaps):
        valued = int(np.count_nonzero(block != RUN))
        count += valued
        reached += int(block.sum(dtype=np.int64)) + valued
    if not 0 <= size - reached < RUN:
        raise InputError(f"gaps must reach the end of its {size} elements, and reach {reached}")
    return count


def _gap_places(gaps: Part) -> Iterator[tuple[slice, np.ndarray, int]]:
    """Yield of a part of the array which of its elements have values, and how many."""
    reached = 0
    for block in _blocks(gaps):
        valued = block != RUN
        end = np.cumsum(block.astype(np.int64) + valued)
        place = end[valued] - 1
        yield slice(reached, reached + int(end[-1])), place, len(place)
        reached += int(end[-1])


def _count_bits(bitmap: Part, size: int) -> int:
    if bitmap.shape != (-(-size // 8),):
        raise InputError(f"bitmap must have shape ({-(-size // 8)},) for {size} elements, not {bitmap.shape}")
    return sum(length for _, _, length in _bitmap_places(bitmap, size))


def _bitmap_places(bitmap: Part, size: int) -> Iterator[tuple[slice, np.ndarray, int]]:
    """Yield of a part of the array which of its elements have values, and how many."""
    for index, block in enumerate(_blocks(bitmap)):
        start = index * 8 * BLOCK
        stop = min(start + 8 * BLOCK, size)
        place = np.unpackbits(block, count=stop - start).view(np.bool_)
        yield slice(start, stop), place, int(np.count_nonzero(place))


def _to_nibbles(values: np.ndarray) -> np.ndarray:
    even = np.zeros(values.size + values.size % 2, np.uint8)
    even[: values.size] = values.reshape(-1)
    return np.asarray(even[::2] | even[1::2] << 4)


def _from_nibbles(packed: Part, begin: int, end: int) -> np.ndarray:
    """Return the values from ``begin`` to ``end``, two of which are in a byte of ``packed``."""
    bytes_ = packed[begin // 2 : -(-end // 2)]
    return np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(-1)[begin % 2 :][: end - begin]
