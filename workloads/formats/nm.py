"""N:M: of every M consecutive weights along an axis N are kept, each with its position in the group.

Sources: NVIDIA, PTX ISA, "Matrix multiply-accumulate with sparse matrix A" (2:4; 1:2 for tf32; 4:8 in pairs for int4);
Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (arXiv 2104.08378).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..errors import InputError
from .words import words_of

NIBBLES_2_4 = (0b0100, 0b1000, 0b1001, 0b1100, 0b1101, 0b1110)  # two ordered 2-bit positions, low bits first
NIBBLES_1_2 = (0b0100, 0b1110)  # position 0, position 1: a 32-bit word counted as two halves


@dataclass(frozen=True, eq=False)
class Nm:
    """A weight of ``shape``, in groups of ``m`` along ``axis``; each keeps ``n`` values, ``width`` at a position.

    Rows are the other axes of the weight, in order. ``values`` is (rows, groups, n), of the weight's dtype, in this
    machine's byte order. ``positions`` is (rows, groups, n / width) uint8 and ascends in a group: a position p stands
    for elements p * width to (p + 1) * width - 1. A group of fewer nonzeros is filled with zeros, at the first places
    it has free.
    """

    n: int
    m: int
    axis: int
    width: int
    shape: tuple[int, ...]
    values: np.ndarray
    positions: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        """Return where each value lies along the axis, (rows, groups, n) int64: what the muxes select."""
        groups = np.arange(self.values.shape[1], dtype=np.int64)[:, None] * self.m
        first = self.positions.astype(np.int64) * self.width + groups
        return np.repeat(first, self.width, axis=2) + np.tile(np.arange(self.width), self.n // self.width)

    def bits(self, value_bits: int | None = None) -> dict[str, int]:
        """Return the storage by part, in bits; ``value_bits`` of a value, those of its dtype where not given."""
        bits = 8 * self.values.itemsize if value_bits is None else value_bits
        return storage_bits(self.values[..., 0].size, self.n, self.m, bits, self.width)


def storage_bits(groups: int, n: int, m: int, value_bits: int, width: int = 1) -> dict[str, int]:
    """Return the bits of ``groups`` groups by part: values, and positions of ceil(log2(m / width)) bits each."""
    slots, choices = n // width, m // width
    return {"values": groups * n * value_bits, "positions": groups * slots * (choices - 1).bit_length()}


def encode(weight: np.ndarray, n: int, m: int, axis: int = -1, width: int = 1, where: str = "weight") -> Nm:
    """Return ``weight`` in N:M along ``axis``.

    ``weight`` has any number of axes and any real dtype; ``width``: neighbours that are kept or left together (2 for
    the pairwise 4:8 of int4). ``where`` names the weight in errors. Raises InputError where n, m and width do not
    suit each other, groups do not tile the axis, or, naming row and group, where one holds more than ``n`` nonzeros
    (with a width, nonzeros in more than n / width of its runs).
    """
    _check_kind(n, m, width, where)
    if not -weight.ndim <= axis < weight.ndim:
        raise InputError(f"{where}: axis must be one of the weight's {weight.ndim}, not {axis}")
    axis %= weight.ndim
    if weight.shape[axis] % m:
        raise InputError(
            f"{where}: {n}:{m} groups must tile axis {axis} of the weight, whose shape is {weight.shape}; "
            f"pad it with zeros to a multiple of {m}"
        )
    words, mask = words_of(np.moveaxis(weight, axis, -1), f"{where}: N:M values")
    sizes = words.shape[:-1]  # of the other axes, in order
    groups = weight.shape[axis] // m
    rows = int(np.prod(sizes))
    words = words.reshape(rows, groups * m)
    values = np.empty((rows, groups, n), words.dtype)
    positions = np.empty((rows, groups, n // width), np.uint8)
    bad = _encode(words, mask, m, width, values, positions)
    if bad >= 0:
        row, group = divmod(bad, groups)
        kept = words[row, group * m : (group + 1) * m] & mask != 0
        if width == 1:
            has = f"{np.count_nonzero(kept)} nonzeros"
        else:
            met = np.count_nonzero(kept.reshape(-1, width).any(axis=1))
            has = f"nonzeros in {met} of its {m // width} runs of {width}"
        raise InputError(
            f"{where}: weight must keep {_name(n, m, width)} along axis {axis}, and group {group} of row "
            f"{_row_name(row, sizes)} has {has}; prune it again"
        )
    return Nm(n, m, axis, width, weight.shape, values.view(weight.dtype.newbyteorder("=")), positions)


def decode(nm: Nm) -> np.ndarray:
    """Return the weight that ``nm`` stores, in its shape and dtype; what is not stored is 0.

    Raises ValueError where a position lies outside its group or positions do not ascend.
    """
    slots = nm.n // nm.width
    rows, groups = nm.values.shape[:2]
    if nm.values.shape[2] != nm.n or nm.positions.shape != (rows, groups, slots):
        raise ValueError(f"positions must be {(rows, groups, slots)}, not {nm.positions.shape}")
    ahead = nm.positions[..., 1:] > nm.positions[..., :-1]
    legal = (nm.positions < nm.m // nm.width).all(axis=2) & ahead.all(axis=2)
    if not legal.all():
        row, group = (int(i) for i in np.argwhere(~legal)[0])
        raise ValueError(
            f"positions must ascend and be below {nm.m // nm.width}, and those of row {row}, group {group} are "
            f"{nm.positions[row, group].tolist()}"
        )
    flat = np.zeros((rows, groups * nm.m), nm.values.dtype)
    words = flat.view(f"u{flat.itemsize}")
    _decode(np.ascontiguousarray(nm.values).view(words.dtype), nm.positions, nm.m, nm.width, words)
    lanes = tuple(size for place, size in enumerate(nm.shape) if place != nm.axis)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(*lanes, groups * nm.m), -1, nm.axis))


def nibbles(nm: Nm) -> np.ndarray:
    """Return the PTX metadata of ``nm``, (rows, groups) uint8, four bits each.

    2:4, and 4:8 in pairs: two positions of 2 bits, low bits first. 1:2 (tf32): 0100 for position 0, 1110 for 1.
    Raises InputError for any other kind: no instruction takes it.
    """
    kind = (nm.n, nm.m, nm.width)
    if kind == (1, 2, 1):
        return np.where(nm.positions[..., 0] == 0, *map(np.uint8, NIBBLES_1_2))
    if kind in ((2, 4, 1), (4, 8, 2)):
        both: np.ndarray = nm.positions[..., 0] | (nm.positions[..., 1] << np.uint8(2))
        return both
    raise InputError(f"PTX metadata must be that of 2:4, 1:2 or 4:8 in pairs, not of {_name(*kind)}")


def from_nibbles(values: np.ndarray, metadata: np.ndarray, n: int, m: int, width: int = 1, where: str = "weight") -> Nm:
    """Return the N:M weight of ``values``, (rows, columns * n / m), whose PTX ``metadata`` is (rows, groups).

    The inverse of `nibbles`, groups along the last axis. Raises InputError naming row and group of a nibble that is
    none of PTX's ordered ones, or where the shapes do not suit each other.
    """
    kind = (n, m, width)
    if kind not in ((2, 4, 1), (1, 2, 1), (4, 8, 2)):
        raise InputError(f"{where}: PTX metadata must be that of 2:4, 1:2 or 4:8 in pairs, not of {_name(*kind)}")
    rows, groups = metadata.shape
    if values.shape != (rows, groups * n):
        raise InputError(
            f"{where}: {rows} x {groups} nibbles of {_name(*kind)} need values of shape {(rows, groups * n)}, "
            f"not {values.shape}"
        )
    known = NIBBLES_1_2 if m == 2 else NIBBLES_2_4
    legal = np.isin(metadata, known)
    if not legal.all():
        row, group = (int(i) for i in np.argwhere(~legal)[0])
        shown = ", ".join(f"{nibble:04b}" for nibble in known)
        raise InputError(
            f"{where}: metadata of {_name(*kind)} must be one of {shown}, and that of row {row}, group {group} is "
            f"{int(metadata[row, group]):04b}"
        )
    low, high = (metadata & 3).astype(np.uint8), (metadata >> 2).astype(np.uint8)
    positions = (low >> 1)[..., None] if m == 2 else np.stack([low, high], axis=2)
    kept = np.ascontiguousarray(values).reshape(rows, groups, n)
    return Nm(n, m, 1, width, (rows, groups * m), kept, positions)


def _check_kind(n: int, m: int, width: int, where: str) -> None:
    if not 1 <= n <= m <= 256:
        raise InputError(f"{where}: N:M needs 1 <= n <= m <= 256, not {n}:{m}")
    if width < 1 or n % width or m % width:
        raise InputError(f"{where}: width must divide n and m of {n}:{m}, not {width}")


def _name(n: int, m: int, width: int) -> str:
    return f"{n}:{m}" if width == 1 else f"{n}:{m} in runs of {width}"


def _row_name(row: int, sizes: tuple[int, ...]) -> str:
    """Return the place of ``row`` on the axes beside that of the groups, one number where there is one such axis."""
    place = tuple(int(i) for i in np.unravel_index(row, sizes)) if sizes else ()
    return str(place[0]) if len(place) == 1 else str(place)


@njit(cache=True)
def _encode(words, mask, m, width, values, positions):  # type: ignore[no-untyped-def]
    """Fill values and positions; return the first group (row * groups + group) that keeps too much, -1 for none."""
    rows, groups, n = values.shape
    slots, choices = n // width, m // width
    taken = np.empty(choices, np.int64)
    chosen = np.empty(choices + 1, np.int64)
    for r in range(rows):
        row = words[r]
        for g in range(groups):
            first = g * m
            found = np.int64(0)
            for p in range(choices):
                nonzero = np.int64((row[first + p * width] & mask) != 0)
                for e in range(1, width):
                    nonzero |= np.int64((row[first + p * width + e] & mask) != 0)
                taken[p] = nonzero
                found += nonzero
            if found > slots:
                return r * groups + g
            # A zero is stored while the group has fewer nonzeros than slots; order is kept either way. Which weights
            # are left is random: choosing without a branch spares the mispredictions.
            free = slots - found
            slot = np.int64(0)
            for p in range(choices):
                keep = taken[p] | np.int64(free > 0)
                free -= keep - taken[p]
                chosen[slot] = p
                slot += keep
            for s in range(slots):
                positions[r, g, s] = chosen[s]
                for e in range(width):
                    values[r, g, s * width + e] = row[first + chosen[s] * width + e]
    return -1


@njit(cache=True)
def _decode(values, positions, m, width, words):  # type: ignore[no-untyped-def]
    rows, groups, slots = positions.shape
    for r in range(rows):
        for g in range(groups):
            for s in range(slots):
                first = g * m + positions[r, g, s] * width
                for e in range(width):
                    words[r, first + e] = values[r, g, s * width + e]
