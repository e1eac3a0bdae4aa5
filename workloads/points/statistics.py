"""What a cloud is like to a sparse network: voxels and neighbours at each stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .kernel_map import kernel_map
from .keys import downsample, voxelise

STRIDES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Statistics:
    """``points``; and for each of ``strides`` the ``voxels`` and the mean ``neighbours`` of 3^3, itself among them.

    ``ratios``: voxels at each stride but the first over those at the one before.
    """

    points: int
    strides: tuple[int, ...]
    voxels: tuple[int, ...]
    neighbours: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return how many voxels are left by each step to the next stride, as a share."""
        return tuple(coarse / fine for fine, coarse in zip(self.voxels, self.voxels[1:], strict=False))


def statistics(points: np.ndarray, voxel_size: float, strides: tuple[int, ...] = STRIDES) -> Statistics:
    """Return the statistics of ``points``, real (n, 3), n at least 1, in voxels so large. Raises InputError."""
    coords, _ = voxelise(points, voxel_size)
    if not len(coords):
        raise InputError("a cloud must have at least one point, and this has none")
    voxels, neighbours = [], []
    for stride in strides:
        coords = downsample(coords, stride)
        voxels.append(len(coords))
        pairs = sum(len(into) for into, _ in kernel_map(coords, 3, tensor_stride=stride))
        neighbours.append(pairs / len(coords))
    return Statistics(len(points), strides, tuple(voxels), tuple(neighbours))
