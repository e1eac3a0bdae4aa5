"""A layer of a trace, frozen and checked when it is made: one that exists keeps every rule of `rules`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .layer_fields import LayerFields
from .rules import ARRAYS, DEFAULTS, check_layer

NO_WEIGHT = np.zeros(0, np.float32)
NO_WEIGHT.flags.writeable = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer(LayerFields):
    """One layer of a trace.

    ``weight`` is float32, zero where pruned. A layer may instead carry ``codes`` (uint8, same shape, 0 = pruned) with
    their ``codebook`` (float32, entry 0 is 0.0); its ``weight`` is then ``codebook[codes]``, made when first asked for.
    ``bias`` is (out,), or ``bias_codes`` into the same codebook. ``mask`` is True where a weight was kept; without one
    every nonzero weight was. ``inputs`` is float32, the activations this layer was fed, of at least one sample.
    By ``op``:

    - ``linear``: weight (out, in), inputs (batch, ..., in). Rows that were gathered from a table of points say from
      which row: ``gather``, int32, the shape of the inputs without the last axis. Attributes, for dense layers that
      follow one another on the same rows: ``chain``, the widths from the first input to the last output, and
      ``chain_index``, which of them this one is; and ``samples``, as of a convolution.
    - ``conv2d``: weight (out, in / groups, height, width), inputs (batch, in, height, width). Attributes: stride,
      padding, dilation (pairs) and groups; ``samples``, where it is not the batch: how many samples its inputs are
      parts of.
    - ``lstm``: weight (4C, features + R), the gates below one another in torch's order i, f, g, o, columns for the
      input first, then for the last hidden state; inputs (samples, steps, features), the first states being 0. R is C,
      or P with a ``projection`` (P, C), which makes the hidden state of what the cells give. ``peephole`` (3, C): what
      i, f and o see of the cells. Each gate's two matrices and the projection keep the pattern, each on its own.
    - ``matmul``: weight (products, out, in) and inputs (products, rows, in), both activations: product p is
      inputs[p] @ weight[p].T. Attribute ``samples``: how many samples the products belong to.
    - ``sparse_conv3d``: weight (out, in, kernel_size ** 3), the offsets of a kernel in order of x, then y, then z;
      ``coordinates`` (n, 3) int32 of the points, all different, with inputs (n, in), or none where only the geometry is
      known; ``output_coordinates`` (m, 3) where they differ. Attributes: kernel_size; stride; tensor_stride, the
      spacing of the finer side; transposed; builds_map, False where an earlier layer left the same map.
    - ``point_op``: no weight. Attribute ``kind``: ``quantise`` (voxel_size), ``fps`` (samples), ``knn`` (k) or
      ``ball_query`` (k, radius, order "nearest" or "index"), on inputs (n, dimensions), the points, and, for the
      neighbours of other points than these, ``queries`` (m, dimensions).

    Raises InputError, naming layer, tensor, rule and value, for anything that breaks the rules.
    """

    def __post_init__(self) -> None:
        check_layer(self)
        for name in ARRAYS:
            array = self.__dict__.get(name)
            if array is not None:
                # A copy where someone could still write: torch's arrays go on changing while it trains.
                array = np.array(array, order="C", copy=True if array.flags.writeable else None)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        attributes = DEFAULTS.get(self.op, {}) | dict(self.attributes)
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
        object.__setattr__(self, "attributes", plain)
        if self.op == "point_op":
            self.__dict__["weight"] = NO_WEIGHT
        elif self.__dict__["weight"] is None:
            del self.__dict__["weight"]

    def __getattr__(self, name: str) -> Any:
        if name != "weight":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        assert self.codes is not None and self.codebook is not None
        weight = self.codebook[self.codes]
        weight.flags.writeable = False
        self.__dict__["weight"] = weight
        return weight

    def array(self, name: str) -> np.ndarray | None:
        """Return the array called ``name`` that the layer was given, or None; a coded layer was given no weight."""
        if name == "weight" and (self.codes is not None or self.op == "point_op"):
            return None
        array: np.ndarray | None = self.__dict__.get(name)
        return array

    @property
    def kept(self) -> np.ndarray:
        """The array whose nonzeros are the weights that are left: the codes where there are any, else the weight."""
        return self.weight if self.codes is None else self.codes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight."""
        return self.kept.shape

    @property
    def samples(self) -> int:
        """Count the samples behind the inputs; a cloud of points is one."""
        if self.op in ("sparse_conv3d", "point_op"):
            return 1
        return int(self.attributes.get("samples", len(self.inputs)))

    @property
    def has_bias(self) -> bool:
        """Tell whether the layer adds a bias."""
        return self.bias is not None or self.bias_codes is not None

    @property
    def size(self) -> int:
        """Count the weights, zeros included: those of the weight, and of a projection."""
        return self.kept.size + (0 if self.projection is None else self.projection.size)

    @cached_property
    def nonzeros(self) -> int:
        """Count the weights that are left."""
        projected = 0 if self.projection is None else np.count_nonzero(self.projection)
        return int(np.count_nonzero(self.kept) + projected)

    @property
    def sparsity(self) -> float:
        """Return the fraction of weights that are zero."""
        return 1 - self.nonzeros / self.size if self.size else 0.0
