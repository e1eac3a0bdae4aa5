"""Sparse convolutional networks as tables of rows, and their way through a cloud of voxels.

A row reads the values that earlier rows made, by name; ``voxels`` is the network's input. A value lies on the voxels
of one tensor stride: those of a downsampling are made where it stands, those of a transposed convolution were there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, cast

import numpy as np

from ..files.numbers import read_only
from ..trace import Layer
from .kernel_map import Maps, maps_between, transposed
from .keys import downsample, voxelise
from .sparse_conv import sparse_convolution
from .weights import Channels, Parameters, Weighted

INPUT = "voxels"
POINT_FEATURES = 4  # x, y, z, remission


@dataclass(frozen=True)
class Conv:
    """A convolution of the value ``source`` to ``width`` channels, and a ReLU unless a sum follows."""

    name: str
    source: str
    width: int
    kernel_size: int = 3
    stride: int = 1
    transposed: bool = False
    relu: bool = True


@dataclass(frozen=True)
class Add:
    """The sum of two values on the same voxels, and a ReLU."""

    name: str
    sources: tuple[str, str]


@dataclass(frozen=True)
class Concat:
    """The channels of two values on the same voxels, side by side."""

    name: str
    sources: tuple[str, str]


Row: TypeAlias = Conv | Add | Concat


def res_unet(stem: Sequence[int], encoders: Sequence[int], decoders: Sequence[int]) -> tuple[Row, ...]:
    """Return the rows of a sparse residual U-Net, two residual blocks a stage.

    ``stem``: widths of the convolutions at stride 1. Each of ``encoders`` halves the resolution by a kernel of 2 that
    keeps the width, and its blocks have the width given; each of ``decoders`` doubles it again, transposed, and takes
    the value of that resolution from the way down beside its own. A block is two kernels of 3, beside a shortcut that
    is a kernel of 1 where the widths differ.
    Source: SparseResUNet42, Choy et al., CVPR 2019, with the widths of Tang et al., ECCV 2020.
    """
    rows: list[Row] = []
    source, width = INPUT, POINT_FEATURES
    for number, width in enumerate(stem, start=1):
        rows.append(Conv(f"stem.conv{number}", source, width))
        source = rows[-1].name
    skips = [(source, width)]
    for number, wider in enumerate(encoders, start=1):
        rows.append(Conv(f"enc{number}.down", source, width, kernel_size=2, stride=2))
        rows += _blocks(f"enc{number}", rows[-1].name, width, wider)
        source, width = rows[-1].name, wider
        skips.append((source, width))
    skips.pop()
    for number, wider in enumerate(decoders, start=1):
        rows.append(Conv(f"dec{number}.up", source, wider, kernel_size=2, stride=2, transposed=True))
        skip, skip_width = skips.pop()
        rows.append(Concat(f"dec{number}.concat", (rows[-1].name, skip)))
        rows += _blocks(f"dec{number}", rows[-1].name, wider + skip_width, wider)
        source, width = rows[-1].name, wider
    return tuple(rows)


def _blocks(stage: str, source: str, width: int, wider: int) -> list[Row]:
    rows: list[Row] = []
    for number in (1, 2):
        name, shortcut = f"{stage}.block{number}", source
        rows.append(Conv(f"{name}.conv1", source, wider))
        rows.append(Conv(f"{name}.conv2", f"{name}.conv1", wider, relu=False))
        if width != wider:
            shortcut = f"{name}.shortcut"
            rows.append(Conv(shortcut, source, wider, kernel_size=1, relu=False))
        rows.append(Add(name, (f"{name}.conv2", shortcut)))
        source, width = name, wider
    return rows


@dataclass(frozen=True)
class _Value:
    """What a row made: features on the voxels of ``tensor_stride``, float32 (voxels, channels), None if not asked."""

    tensor_stride: int
    features: np.ndarray | None


@dataclass(frozen=True)
class VoxelNetwork:
    """A network of sparse convolutions; its last row's channels are its output."""

    description: str
    rows: tuple[Row, ...]
    voxel_size: float = 0.05  # m

    @cached_property
    def weighted(self) -> tuple[Weighted, ...]:
        """Return its layers with weights, in order: what each reads, and which channels are added to which."""
        group = self._groups()
        channels: dict[str, Channels] = {INPUT: ((None, POINT_FEATURES),)}
        table = []
        for row in self.rows:
            if isinstance(row, Conv):
                # Points lie on surfaces: an output meets about the square of a side; of a transposed kernel, one.
                side = max(1, row.kernel_size // row.stride) if row.transposed else row.kernel_size
                table.append(
                    Weighted(row.name, channels[row.source], row.width, group[row.name], row.kernel_size**3, side**2)
                )
                channels[row.name] = ((group[row.name], row.width),)
            elif isinstance(row, Add):
                channels[row.name] = channels[row.sources[0]]
            else:
                channels[row.name] = channels[row.sources[0]] + channels[row.sources[1]]
        return tuple(table)

    def _groups(self) -> dict[str, str | None]:
        """Return the group of each row's channels, named after one of its rows; None where they are the output's."""
        group: dict[str, str | None] = {INPUT: None}
        for row in self.rows:
            group[row.name] = row.name
            if isinstance(row, Add):
                mine, other = (group[source] for source in row.sources)
                joined = None if mine is None or other is None else mine
                group[row.name] = joined
                group |= {name: joined for name, of in group.items() if of in (mine, other)}
        output = group[self.rows[-1].name]
        return {name: None if of == output else of for name, of in group.items()}

    def run(
        self, points: np.ndarray, parameters: Mapping[str, Parameters], *, voxel_size: float, features: bool
    ) -> list[Layer]:
        """Return the layers of the network on ``points``, float32 (n, 4), with values if ``features`` asks for them.

        A voxel's input is the mean of its points. The first layer quantises the points. A layer builds its kernel map
        unless an earlier one left the same; a kernel of 1 has none to build.
        """
        coords, inverse = voxelise(points[:, :3], voxel_size)
        layers = [
            Layer(
                name="quantise", op="point_op", inputs=np.ascontiguousarray(points[:, :3]),
                attributes={"kind": "quantise", "voxel_size": float(voxel_size)},
            )
        ]  # fmt: skip
        run = _Run(coords, features)
        values = {INPUT: _Value(1, _means(points, inverse, len(coords)) if features else None)}
        for row in self.rows:
            if isinstance(row, Conv):
                layer, values[row.name] = run.convolve(row, values[row.source], parameters[row.name])
                layers.append(layer)
            else:
                values[row.name] = _join(row, *(values[source] for source in row.sources))
        return layers


class _Run:
    """The voxels of one cloud at each tensor stride, and the kernel maps that were already needed."""

    def __init__(self, coords: np.ndarray, features: bool) -> None:
        self._coords = {1: read_only(coords)}
        self._features = features
        self._built: set[tuple[int, int, int]] = set()
        self._maps: dict[tuple[int, int, int], Maps] = {}

    def convolve(self, row: Conv, source: _Value, given: Parameters) -> tuple[Layer, _Value]:
        """Return the layer of ``row`` on ``source``, and the value that it makes."""
        before = source.tensor_stride
        after = before // row.stride if row.transposed else before * row.stride
        fine, coarse = min(before, after), max(before, after)
        if after not in self._coords:
            self._coords[after] = read_only(downsample(self._coords[before], after))
        map_ = (fine, coarse, row.kernel_size)  # a transposed convolution has that of its downsampling
        is_identity = row.kernel_size == 1 and row.stride == 1
        layer = Layer(
            name=row.name,
            op="sparse_conv3d",
            weight=given.weight,
            bias=given.bias,
            inputs=cast(np.ndarray, source.features),  # None where only the geometry is wanted
            coordinates=self._coords[before],
            output_coordinates=None if before == after else self._coords[after],
            attributes={
                "kernel_size": row.kernel_size,
                "stride": row.stride,
                "tensor_stride": fine,
                "transposed": row.transposed,
                "builds_map": not is_identity and map_ not in self._built,
            },
        )
        self._built.add(map_)
        if not self._features:
            return layer, _Value(after, None)
        if map_ not in self._maps:
            self._maps[map_] = maps_between(self._coords[fine], self._coords[coarse], row.kernel_size, fine)
        maps = transposed(self._maps[map_]) if row.transposed else self._maps[map_]
        sums = sparse_convolution(layer, maps)
        return layer, _Value(after, read_only(np.maximum(sums, 0, out=sums) if row.relu else sums))


def _join(row: Add | Concat, first: _Value, second: _Value) -> _Value:
    assert first.tensor_stride == second.tensor_stride
    if first.features is None or second.features is None:
        return _Value(first.tensor_stride, None)
    if isinstance(row, Concat):
        return _Value(first.tensor_stride, read_only(np.concatenate([first.features, second.features], axis=1)))
    return _Value(first.tensor_stride, read_only(np.maximum(first.features + second.features, 0)))


def _means(points: np.ndarray, inverse: np.ndarray, voxels: int) -> np.ndarray:
    """Return the mean of the points in each voxel, float32 (voxels, columns)."""
    counts = np.bincount(inverse, minlength=voxels)
    sums = [np.bincount(inverse, weights=column, minlength=voxels) for column in points.T]
    return read_only((np.stack(sums, axis=1) / counts[:, None]).astype(np.float32))
