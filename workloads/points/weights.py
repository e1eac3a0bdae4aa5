"""The weights of a network for point clouds: drawn or read, by layer, and pruned by channel or by magnitude.

A network says of each layer with weights whose channels it reads and whose it makes. Channels that are added to one
another belong to one group and are pruned together; a pruned channel is taken out of the layers that make it and of
those that read it, so that both shrink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import InputError
from ..files.container import one_line, read_container
from ..files.npy import read_npz
from ..files.numbers import NARROW, narrow_to_float32, read_only, to_float32
from ..pruning import kept_count, largest, magnitude

Channels: TypeAlias = tuple[tuple[str | None, int], ...]
"""What channels of a value belong to, in order: groups with their widths; None where none may be pruned."""


@dataclass(frozen=True)
class Weighted:
    """A layer with weights as its network's table has it, before any pruning.

    ``inputs``: the channels that it reads. ``group``: the one its ``width`` outputs belong to, None where they must
    stay. ``offsets``: of a kernel; 0 for a dense layer, whose weight has two dimensions. ``met``: how many of the
    offsets an output meets on a surface.
    """

    name: str
    inputs: Channels
    width: int
    group: str | None = None
    offsets: int = 0
    met: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight, (out, in) or (out, in, offsets)."""
        matrix = (self.width, sum(width for _, width in self.inputs))
        return (*matrix, self.offsets) if self.offsets else matrix


@dataclass(frozen=True, eq=False)
class Parameters:
    """The weight of a layer, float32 and read-only, and its bias (out,) where it has one."""

    weight: np.ndarray
    bias: np.ndarray | None = None


def draw(table: Sequence[Weighted], seed: int) -> dict[str, Parameters]:
    """Return normal weights by layer, drawn from ``seed``; the variance is 2 / (inputs x met offsets), no bias.

    Source: He et al., ICCV 2015. That a surface meets the square of a kernel's side is `assumed`; it keeps features
    of a size, and no cycle depends on it.
    """
    drawn = {}
    for index, layer in enumerate(table):
        weight = np.random.default_rng([seed, index, 4]).standard_normal(layer.shape, np.float32)
        weight[weight == 0] = 1  # a zero would count as pruned
        weight *= np.float32((2 / (layer.shape[1] * layer.met)) ** 0.5)
        drawn[layer.name] = Parameters(weight)
    return drawn


def read_weights(path: Path, table: Sequence[Weighted]) -> dict[str, Parameters]:
    """Return the weights in the .safetensors or .npz file at ``path``: NAME.weight, NAME.bias if any, by layer.

    Raises InputError, naming the file, for a layer that is missing, a name that is none, and a wrong shape.
    """
    arrays: Mapping[str, np.ndarray]
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path)
    elif path.suffix.lower() == ".safetensors":
        tensors = read_container(path, "a file of weights").tensors
        arrays = {
            n: narrow_to_float32(array, dtype) if dtype in NARROW else array for n, (dtype, array) in tensors.items()
        }
    else:
        raise InputError(f"{path}: the name of a file of weights must end in .safetensors or .npz; convert it")
    known = {f"{layer.name}.{part}" for layer in table for part in ("weight", "bias")}
    try:
        for name in sorted(arrays):
            if name not in known:
                raise InputError(
                    f"every array must be NAME.weight or NAME.bias of a layer, and {one_line(name)!r} is none; the "
                    f"layers: {', '.join(layer.name for layer in table)}"
                )
        return {layer.name: _given(layer, arrays) for layer in table}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _given(layer: Weighted, arrays: Mapping[str, np.ndarray]) -> Parameters:
    weight, bias = arrays.get(f"{layer.name}.weight"), arrays.get(f"{layer.name}.bias")
    axes = "(out, in, offsets)" if layer.offsets else "(out, in)"
    if weight is None:
        raise InputError(f"{layer.name}.weight is missing; it must be {axes} = {layer.shape}")
    for name, array, shape, words in (
        ("weight", weight, layer.shape, axes), ("bias", bias, (layer.width,), "(out,)"),
    ):  # fmt: skip
        if array is not None and array.shape != shape:
            raise InputError(f"{layer.name}.{name} must be {words} = {shape}, not {array.shape}")
    return Parameters(
        to_float32(weight, f"{layer.name}.weight"), None if bias is None else to_float32(bias, f"{layer.name}.bias")
    )


def prune(
    table: Sequence[Weighted], parameters: Mapping[str, Parameters], *, sparsity: float, channel_sparsity: float
) -> dict[str, Parameters]:
    """Return ``parameters`` without the share ``channel_sparsity`` of every group's channels, and then pruned.

    Of a group the channels of largest L2 norm over the weights that make them are kept, at least one; the others are
    gone from the shapes. Of what is left, each layer keeps its weights of largest magnitude, so that the share
    ``sparsity`` of them is zero. Source: Li et al., ICLR 2017 (norms of filters); Han et al., NIPS 2015 (magnitude).
    """
    if not 0 <= channel_sparsity < 1:
        raise InputError(f"channel_sparsity must be a fraction, at least 0 and below 1, not {channel_sparsity!r}")
    kept = _kept_channels(table, parameters, channel_sparsity) if channel_sparsity else {}
    pruned = {}
    for layer in table:
        weight, bias = parameters[layer.name].weight, parameters[layer.name].bias
        if kept:
            rows, columns = _places(((layer.group, layer.width),), kept), _places(layer.inputs, kept)
            weight = weight[rows][:, columns]
            bias = bias if bias is None else bias[rows]
        if kept_count(weight.size, sparsity) < weight.size:  # which refuses what is no fraction
            weight = np.where(magnitude(weight, np.ones(weight.shape, bool), sparsity), weight, np.float32(0))
        pruned[layer.name] = Parameters(read_only(weight), None if bias is None else read_only(bias))
    return pruned


def _kept_channels(
    table: Sequence[Weighted], parameters: Mapping[str, Parameters], sparsity: float
) -> dict[str, np.ndarray]:
    """Return which channels of each group are kept, ascending."""
    squares: dict[str, np.ndarray] = {}
    for layer in table:
        if layer.group is not None:
            own = np.square(parameters[layer.name].weight, dtype=np.float64).reshape(layer.width, -1).sum(axis=1)
            squares[layer.group] = squares[layer.group] + own if layer.group in squares else own
    kept = {}
    for group, norms in squares.items():
        count = max(1, kept_count(norms.size, sparsity))
        kept[group] = np.flatnonzero(largest(norms.reshape(1, -1), np.array([count]))[0])
    return kept


def _places(channels: Channels, kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the places of the kept among ``channels``."""
    starts = accumulate((width for _, width in channels), initial=0)
    parts = [
        start + (np.arange(width) if group is None else kept[group])
        for start, (group, width) in zip(starts, channels, strict=False)
    ]
    return np.concatenate(parts)
