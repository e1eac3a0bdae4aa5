"""The voxels of a batch of clouds in one array, so far apart along x that no kernel reaches from one to the next.

A convolution of the batch is then a convolution of one cloud, and what it gives a cloud does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..points.kernel_map import kernel_map
from ..points.keys import downsample, pack, unpack, voxelise
from ..rules import COORDINATE_LIMIT


@dataclass(frozen=True)
class Pairs:
    """The kernel maps of a convolution, one after another: which input meets which output, ``counts`` an offset."""

    inputs: np.ndarray
    outputs: np.ndarray
    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Where the features of a batch of clouds lie; maps and coarser voxels are found once and kept.

    ``coordinates``: int32 (n, 3), each once, in units of the finest voxels. ``cloud``: int64 (n,), whose of the
    ``clouds`` each is. ``tensor_stride``: the spacing of neighbours. Neither array may be written to.
    """

    coordinates: np.ndarray
    cloud: np.ndarray
    clouds: int
    tensor_stride: int = 1
    _pairs: dict[tuple[int, int], Pairs] = field(default_factory=dict, repr=False)
    _coarser: dict[int, Voxels] = field(default_factory=dict, repr=False)

    def pairs(self, kernel_size: int, stride: int = 1) -> Pairs:
        """Return the maps from these voxels to those of `coarser`, offsets in the order of `kernel_map`."""
        key = kernel_size, stride
        if key not in self._pairs:
            maps = kernel_map(self.coordinates, kernel_size, stride, tensor_stride=self.tensor_stride)
            inputs, outputs = (np.concatenate([each[side] for each in maps]) for side in (0, 1))
            self._pairs[key] = Pairs(inputs, outputs, tuple(len(each) for each, _ in maps))
        return self._pairs[key]

    def coarser(self, stride: int) -> Voxels:
        """Return the voxels of ``stride`` times the spacing that hold these; these themselves for a stride of 1."""
        if stride == 1:
            return self
        if stride not in self._coarser:
            spacing = self.tensor_stride * stride
            coordinates = downsample(self.coordinates, spacing)
            holder = np.searchsorted(pack(coordinates), pack(self.coordinates // spacing * spacing))
            cloud = np.empty(len(coordinates), np.int64)
            cloud[holder] = self.cloud
            self._coarser[stride] = Voxels(coordinates, cloud, self.clouds, spacing)
        return self._coarser[stride]


def voxels_of(points: np.ndarray, voxel_size: float, coarsest: int) -> Voxels:
    """Return the voxels of a batch of clouds, sorted by cloud and then by key.

    ``points``: real, (clouds, points, 3). ``coarsest``: the largest tensor stride to come, in voxels; kernels there
    reach that far and no farther, as those of size 3 do. Clouds are a multiple of it apart, so that voxels of every
    spacing lie in a cloud as they would in the cloud alone.
    Raises InputError for another shape, points that are not finite, and more clouds than there is room for.
    """
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise InputError(f"clouds must be (clouds, points, 3), each of one point at least, not {points.shape}")
    cells, inverse = voxelise(points.reshape(-1, 3), voxel_size)
    least, most = int(cells[:, 0].min()), int(cells[:, 0].max())
    pitch = -(-(most - least + 1 + 2 * coarsest) // coarsest) * coarsest
    if least + len(points) * pitch > COORDINATE_LIMIT:
        raise InputError(
            f"a batch must hold at most {max((COORDINATE_LIMIT - least) // pitch, 1)} clouds of {pitch} voxels along "
            f"x, not {len(points)}; take smaller batches, or larger voxels"
        )
    every = cells[inverse]
    every[:, 0] += np.repeat(np.arange(len(points), dtype=np.int32) * np.int32(pitch), points.shape[1])
    keys, first = np.unique(pack(every), return_index=True)
    return Voxels(unpack(keys), first // points.shape[1], len(points))
