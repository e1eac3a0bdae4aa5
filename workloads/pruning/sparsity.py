"""What is left of pruned weights: how much, in which N:M groups, and on which processing elements. numpy alone.

Weights are kernels: arrays of at least 2 dimensions, (out, ...). Biases and norms are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..checks import whole
from ..errors import InputError

COUNTED_LIMIT = 2**16  # weights of a group, or processing elements: a report has a number for each


@dataclass(frozen=True)
class LayerSparsity:
    """How many weights of a kernel (or of all: name "total", shape ()) the mask keeps, and how many are not 0."""

    name: str
    shape: tuple[int, ...]
    size: int
    kept: int
    nonzeros: int

    @property
    def sparsity(self) -> float:
        """Return the share of weights that the mask prunes."""
        return 1 - self.kept / self.size


@dataclass(frozen=True)
class LayerGroups:
    """The N:M groups of a kernel: runs of ``m`` weights along the axis.

    ``histogram``: groups by their nonzeros, 0 .. m. ``violations``: groups with more than ``n``. ``padding``: zeros
    that fill the last group of every run, where the axis is no multiple of ``m``; such a kernel is not N:M as it is.
    """

    name: str
    shape: tuple[int, ...]
    n: int
    m: int
    histogram: tuple[int, ...]
    padding: int

    @property
    def groups(self) -> int:
        """Count the groups."""
        return sum(self.histogram)

    @property
    def violations(self) -> int:
        """Count the groups that hold more than n nonzeros."""
        return sum(self.histogram[self.n + 1 :])


@dataclass(frozen=True)
class LayerBalance:
    """The nonzeros of a kernel on each processing element; row r belongs to PE r % pe_count."""

    name: str
    shape: tuple[int, ...]
    nonzeros: tuple[int, ...]

    @property
    def least(self) -> int:
        """Return the nonzeros of the emptiest PE."""
        return min(self.nonzeros)

    @property
    def mean(self) -> float:
        """Return the mean of nonzeros a PE."""
        return sum(self.nonzeros) / len(self.nonzeros)

    @property
    def most(self) -> int:
        """Return the nonzeros of the fullest PE, for which all others wait."""
        return max(self.nonzeros)

    @property
    def balance(self) -> float:
        """Return mean / most: the share of PE time in use if every nonzero took one cycle; 1 where there are none."""
        return self.mean / self.most if self.most else 1.0


def sparsity_report(weights: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> tuple[LayerSparsity, ...]:
    """Return the sparsity of every kernel, in the order of ``weights``, and of all of them together, last.

    A kernel without a mask keeps all its weights. Raises InputError where a mask does not fit its weight.
    """
    layers = []
    for name, weight in _kernels(weights).items():
        mask = masks.get(name)
        if mask is not None and mask.shape != weight.shape:
            raise InputError(f"mask {name} must have the weight's shape {weight.shape}, not {mask.shape}")
        kept = weight.size if mask is None else int(np.count_nonzero(mask))
        layers.append(LayerSparsity(name, weight.shape, weight.size, kept, int(np.count_nonzero(weight))))
    columns = zip(*((layer.size, layer.kept, layer.nonzeros) for layer in layers), strict=True)
    return (*layers, LayerSparsity("total", (), *map(sum, columns)))


def nm_report(weights: Mapping[str, np.ndarray], n: int, m: int, axis: int = 1) -> tuple[LayerGroups, ...]:
    """Return the groups of ``m`` along ``axis`` of every kernel that has this axis, and how many hold more than ``n``.

    Axis 1 is that of the input channels, along which hardware multiplies and adds.
    """
    if not 0 < n <= m <= COUNTED_LIMIT or axis < 0:
        raise InputError(f"groups need 0 < n <= m <= {COUNTED_LIMIT} and axis >= 0, not {n}:{m} on axis {axis}")
    layers = []
    for name, weight in _kernels(weights).items():
        if axis >= weight.ndim:
            continue
        lanes = np.moveaxis(weight != 0, axis, -1).reshape(-1, weight.shape[axis])
        short = -lanes.shape[1] % m
        groups = np.add.reduceat(lanes, np.arange(0, lanes.shape[1], m), axis=1, dtype=np.int64)
        histogram = np.bincount(groups.ravel(), minlength=m + 1)
        layers.append(LayerGroups(name, weight.shape, n, m, tuple(histogram.tolist()), short * len(lanes)))
    return tuple(layers)


def balance_report(weights: Mapping[str, np.ndarray], pe_count: int) -> tuple[LayerBalance, ...]:
    """Return how the nonzeros of every kernel are spread over ``pe_count`` processing elements, rows interleaved."""
    pe_count = whole(pe_count, "pe_count", 1, COUNTED_LIMIT)
    layers = []
    for name, weight in _kernels(weights).items():
        rows = np.count_nonzero(weight.reshape(len(weight), -1), axis=1)
        pes = np.bincount(np.arange(len(rows)) % pe_count, weights=rows, minlength=pe_count)
        layers.append(LayerBalance(name, weight.shape, tuple(int(count) for count in pes)))
    return tuple(layers)


def _kernels(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    kernels = {name: weight for name, weight in weights.items() if weight.ndim > 1 and weight.size}
    if not kernels:
        met = f"none of {', '.join(weights)} is" if weights else "there are none"
        raise InputError(f"a report needs a weight of at least 2 dimensions, and {met}")
    return kernels
