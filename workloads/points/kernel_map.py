"""Kernel maps: for each offset of a kernel, which input lies there as seen from which output.

An input i and an output j are a map at offset o if ``coords_in[i] == coords_out[j] + o``. Offsets are ordered with x
slowest and z fastest, so that those of one (x, y) are consecutive: one merge of the sorted keys finds them all, as the
inputs in a short range of keys. A map of a cloud onto itself is mirror-symmetric, so that half of them is enough.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

import numpy as np
from numba import njit

from ..checks import whole
from ..errors import InputError
from .keys import GUARD, downsample, pack, shift, unpack

Maps: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
KERNEL_LIMIT = 31  # cells along a side


def offsets(kernel_size: int, tensor_stride: int = 1) -> np.ndarray:
    """Return the offsets of a cubic kernel in their order, int32 (kernel_size^3, 3).

    An odd size k reaches from -(k - 1) / 2 to (k - 1) / 2, an even one from 0 to k - 1, each times ``tensor_stride``,
    the distance of neighbours in units of the finest voxels. Raises InputError for a reach above GUARD.
    """
    size = whole(kernel_size, "kernel_size", 1, KERNEL_LIMIT)
    step = whole(tensor_stride, "tensor_stride", 1, GUARD)
    first = -(size // 2) if size % 2 else 0
    if (first + size - 1) * step > GUARD:
        raise InputError(f"a kernel must reach at most {GUARD} voxels, and {size} cells reach {size - 1} x {step}")
    reach = range(first * step, (first + size) * step, step)
    return np.array(list(itertools.product(reach, repeat=3)), np.int32)


def kernel_map(coords: np.ndarray, kernel_size: int = 3, stride: int = 1, *, tensor_stride: int = 1) -> Maps:
    """Return the maps of a convolution of ``coords``: for each offset, the indices of inputs and of their outputs.

    ``coords`` are (n, 3) integers, each once, in any order. With ``stride`` 1 the outputs lie where the inputs do and
    are numbered alike. With a larger one they are ``downsample(coords, tensor_stride * stride)``. The offsets are
    those of `offsets` and in their order; the pairs of one are int64 and sorted by the output's key, and so by the
    input's. Raises InputError.
    """
    step = whole(stride, "stride", 1, GUARD)
    if step == 1:
        return maps_between(coords, coords, kernel_size, tensor_stride)
    coarse = whole(tensor_stride, "tensor_stride", 1, GUARD) * step
    return maps_between(coords, downsample(coords, coarse), kernel_size, tensor_stride)


def maps_between(coords_in: np.ndarray, coords_out: np.ndarray, kernel_size: int = 3, tensor_stride: int = 1) -> Maps:
    """Return the maps from ``coords_in`` to ``coords_out``, both (n, 3) integers, each once, in any order.

    The rest is as in `kernel_map`. Raises InputError.
    """
    cells = offsets(kernel_size, tensor_stride)
    size = round(len(cells) ** (1 / 3))
    keys_in, order_in = _in_order(pack(coords_in))
    is_mirrored = size % 2 == 1 and coords_in is coords_out
    keys_out, order_out = (keys_in, order_in) if coords_in is coords_out else _in_order(pack(coords_out))
    maps: Maps = []
    room = np.empty((2, size, len(keys_out)), np.int64)  # an output is met once an offset at most
    for first in range(0, len(cells), size):
        begin, length = first, size
        if is_mirrored and begin <= len(cells) // 2:
            if begin + size <= len(cells) // 2:
                continue  # the whole (x, y) is in the first half
            begin, length = len(cells) // 2, size // 2 + 1
        counts = np.zeros(length, np.int64)
        _merge(keys_in, keys_out, shift(cells[begin]), tensor_stride, room[0], room[1], counts)
        for into, out, count in zip(*room, counts.tolist(), strict=False):
            maps.append((_named(into[:count], order_in), _named(out[:count], order_out)))
    return transposed(maps[:0:-1]) + maps if is_mirrored else maps


def transposed(maps: Maps) -> Maps:
    """Return ``maps`` with inputs and outputs swapped: those of the transposed convolution, offsets as they were."""
    return [(out, into) for into, out in maps]


def _in_order(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ``keys`` sorted, and their places before; None where they were. Raises InputError for a key met twice."""
    if (keys[1:] > keys[:-1]).all():
        return keys, None
    order = np.argsort(keys)
    keys = keys[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if twice.size:
        at = tuple(unpack(keys[twice[:1]])[0].tolist())
        raise InputError(f"every coordinate must occur once, and {at} occurs twice; downsample drops such")
    return keys, order


def _named(places: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return the indices that sorted ``places`` had before they were sorted, in memory of their own."""
    return places.copy() if order is None else np.asarray(order[places])


@njit(cache=True)
def _merge(keys_in, keys_out, shift, step, into, outof, counts):  # type: ignore[no-untyped-def]
    """Fill ``into`` and ``outof``, (cells, n_out), with the pairs at ``shift`` and the cells above it along z."""
    span = (len(counts) - 1) * step
    at = 0
    for out in range(len(keys_out)):
        low = keys_out[out] + shift
        while at < len(keys_in) and keys_in[at] < low:
            at += 1
        met = at
        while met < len(keys_in) and keys_in[met] <= low + span:
            distance = keys_in[met] - low
            if distance % step == 0:
                cell = distance // step
                into[cell, counts[cell]] = met
                outof[cell, counts[cell]] = out
                counts[cell] += 1
            met += 1
