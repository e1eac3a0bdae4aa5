"""Voxel coordinates as one number each, whose order is lexicographic: x, then y, then z.

A key is x << 42 | y << 21 | z, each with a bias of 2^20 so that none is negative. Adding the packed difference of two
coordinates to a key shifts it, and the order stays, as long as no coordinate leaves its 21 bits: a guard at both ends
sees to that. Flooring to a coarser grid does not keep the order, so that downsampling sorts again.
"""

from __future__ import annotations

import numpy as np

from ..checks import positive, whole
from ..errors import InputError

BITS = 21
BIAS = 1 << (BITS - 1)
GUARD = 1 << 12  # the farthest a coordinate may be shifted
LEAST, MOST = GUARD - BIAS, BIAS - GUARD - 1


def pack(coords: np.ndarray) -> np.ndarray:
    """Return the keys of ``coords``, (n, 3) of any integer dtype, as int64 (n,).

    Raises InputError for another shape or dtype and for a coordinate outside LEAST .. MOST.
    """
    coords = np.asarray(coords)
    if coords.ndim != 2 or coords.shape[1] != 3:
        raise InputError(f"coordinates must have shape (n, 3), not {coords.shape}")
    if coords.dtype.kind not in "iu":
        raise InputError(f"coordinates must be whole numbers, not {coords.dtype}; voxelise makes them of points")
    if coords.size and (coords.min() < LEAST or coords.max() > MOST):
        place = np.unravel_index(int(np.argmax((coords < LEAST) | (coords > MOST))), coords.shape)
        raise InputError(
            f"coordinates must be from {LEAST} to {MOST}, and row {place[0]} holds {coords[place]}; "
            "take larger voxels, or move the cloud to its origin"
        )
    x, y, z = coords.T.astype(np.int64) + BIAS
    return np.asarray(x << (2 * BITS) | y << BITS | z)


def unpack(keys: np.ndarray) -> np.ndarray:
    """Return the coordinates of ``keys``, int32 (n, 3)."""
    mask = (1 << BITS) - 1
    return np.stack([keys >> (2 * BITS), keys >> BITS & mask, keys & mask], axis=1).astype(np.int32) - np.int32(BIAS)


def shift(offset: np.ndarray) -> int:
    """Return what to add to a key to move its coordinate by ``offset``, three whole numbers of at most GUARD."""
    x, y, z = (int(step) for step in offset)
    return (x << (2 * BITS)) + (y << BITS) + z


def voxelise(points: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that ``points`` lie in, and which one each point lies in.

    ``points`` is (n, 3), real; ``voxel_size`` is a side, in the unit of the points. The voxels are int32 (m, 3), each
    once, in the order of their keys; the second array is int64 (n,). A point's voxel is the floor of its quotient, in
    float64. Raises InputError for points that are not finite or too far from the origin for voxels of this size.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise InputError(f"points must be real numbers of shape (n, 3), not {points.dtype} {points.shape}")
    side = positive(voxel_size, "voxel_size")
    with np.errstate(over="ignore", invalid="ignore"):
        cells = np.floor(points.astype(np.float64) / side)
        inside = (cells >= LEAST) & (cells <= MOST)
    if not inside.all():
        row, axis = divmod(int(np.argmin(inside)), 3)
        raise InputError(
            f"points must be finite and lie within {MOST} voxels of the origin, and point {row} holds "
            f"{points[row, axis]} with voxel_size {side:g}; drop it, or take larger voxels"
        )
    keys, inverse = np.unique(pack(cells.astype(np.int32)), return_inverse=True)
    return unpack(keys), inverse


def downsample(coords: np.ndarray, stride: int) -> np.ndarray:
    """Return ``coords`` floored to multiples of ``stride``, each once, in the order of their keys; int32 (m, 3).

    ``stride`` is the new tensor stride, 1 .. GUARD: in units of the finest voxels. Raises InputError.
    """
    size = whole(stride, "stride", 1, GUARD)
    coords = np.asarray(coords)
    pack(coords)  # checks
    keys = np.sort(pack(coords.astype(np.int32) // np.int32(size) * np.int32(size)))
    return unpack(keys[np.append(True, keys[1:] != keys[:-1])] if keys.size else keys)
