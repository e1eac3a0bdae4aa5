"""Layers as matrix products, sizes first: what a machine that multiplies tiles is given.

A product is ``rows`` (outputs) x ``reduction`` (inputs) times ``reduction`` x ``columns`` (vectors). A convolution is
an implicit one: its columns are the output positions of all samples, and its reduction runs over the kernel's cells,
in each over the input channels, so that groups along the channels stay together. Patches are only made for values.

What stands for the weight of a matmul is an activation: nobody knows its zeros before it is there, so that it promises
no more than its pattern says, and is dense without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from .errors import InputError
from .lowering import check_product, lower, output_sides, reduction_axis
from .patterns import Pattern
from .trace import Layer


@dataclass(frozen=True)
class Gemm:
    """The sizes of ``count`` products of one layer, all alike: the groups of a convolution, the products of a matmul.

    ``channels`` x ``cells`` is the reduction: input features, for each cell of a convolution's kernel.
    ``input_words``: of the second operand in memory, of all products; a convolution's input, not its patches.
    ``pattern``: n and m of a promised N:M along the channels, (1, 1) where every weight may be nonzero, or None.
    """

    rows: int
    channels: int
    columns: int
    cells: int = 1
    count: int = 1
    input_words: int = 0
    pattern: tuple[int, int] | None = (1, 1)

    def __post_init__(self) -> None:
        for name in ("rows", "channels", "columns", "cells", "count"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} of a product must be at least 1, not {value}")
        if self.pattern is not None and not 0 < self.pattern[0] <= self.pattern[1]:
            raise InputError(f"pattern of a product must have 0 < n <= m, not {self.pattern[0]}:{self.pattern[1]}")
        if not self.input_words:
            object.__setattr__(self, "input_words", self.count * self.reduction * self.columns)

    @property
    def reduction(self) -> int:
        """Return the length of the sums."""
        return self.channels * self.cells

    @property
    def weights(self) -> int:
        """Return the weights of all products, zeros included."""
        return self.count * self.rows * self.reduction

    @property
    def outputs(self) -> int:
        """Return the outputs of all products."""
        return self.count * self.rows * self.columns

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of all products, zeros included."""
        return self.weights * self.columns

    def groups(self, m: int) -> int:
        """Return how many groups of ``m`` a row has; the channels of each cell are filled up to whole ones."""
        return self.cells * -(-self.channels // m)

    def bounds(self, m: int, size: int) -> list[int]:
        """Return where in the reduction each step of ``size`` groups of ``m`` begins, and where the last one ends."""
        per_cell = -(-self.channels // m)
        whole = [divmod(group, per_cell) for group in range(0, self.groups(m), size)]
        return [cell * self.channels + group * m for cell, group in whole] + [self.reduction]

    def dense(self) -> Gemm:
        """Return the same product with a weight that promises nothing."""
        return replace(self, pattern=(1, 1))


@dataclass(frozen=True, eq=False)
class Operands:
    """The values of one product: ``weight`` (rows, reduction), ``vectors`` (columns, reduction), ``bias`` (rows,).

    All float32; the reduction runs over cells, then channels. ``bias`` is None where there is none.
    """

    weight: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray | None = field(default=None)

    def of_rows(self, rows: slice) -> Operands:
        """Return the part that makes the outputs ``rows``."""
        return Operands(self.weight[rows], self.vectors, None if self.bias is None else self.bias[rows])


def lower_gemm(layer: Layer) -> Gemm:
    """Return the sizes of the products that compute ``layer``; nothing of their size is made.

    Raises InputError for a layer of another op than `lower` takes.
    """
    check_product(layer)
    shape, inputs = layer.shape, layer.inputs
    pattern = _promise(layer.pattern, reduction_axis(layer))
    if layer.op == "linear":
        return Gemm(rows=shape[0], channels=shape[1], columns=inputs.size // shape[1], pattern=pattern)
    if layer.op == "matmul":
        count, rows, depth = shape
        return Gemm(rows=rows, channels=depth, columns=inputs.shape[1], count=count, pattern=pattern or (1, 1))
    groups = layer.attributes["groups"]
    gemm = Gemm(
        rows=shape[0] // groups,
        channels=shape[1],
        columns=len(inputs) * prod(output_sides(layer)),
        cells=shape[2] * shape[3],
        count=groups,
        pattern=pattern,
    )
    # Strides may skip inputs, and patches may be fewer than the input has words.
    return replace(gemm, input_words=min(inputs.size, gemm.input_words))


def vectors(layer: Layer, gemm: Gemm) -> int:
    """Return how many vectors meet a weight: those of all products of a matmul, of a convolution those of one group."""
    return gemm.columns * gemm.count if layer.op == "matmul" else gemm.columns


def by_channel(layer: Layer) -> np.ndarray:
    """Return the weight's nonzero structure as a view, (outputs, channels, cells): codes or weights, as kept."""
    kept = layer.kept
    if layer.op == "matmul":
        return kept.reshape(-1, kept.shape[2], 1)
    return kept.reshape(kept.shape[0], kept.shape[1], -1)


def operands(layer: Layer) -> list[Operands]:
    """Return the values of each product of ``layer``, in the order of its sums; makes the patches of a convolution."""
    products = []
    channels = layer.shape[1]
    for product in lower(layer):
        weight, vectors = product.weight, product.vectors
        if layer.op == "conv2d":
            weight, vectors = (_by_cell(matrix, channels) for matrix in (weight, vectors))
        products.append(Operands(weight, vectors, product.bias_values))
    return products


def kept_operands(layer: Layer) -> np.ndarray:
    """Return (products, rows, reduction) of the weights of `operands`, nonzero where one is kept, were its value 0."""
    gemm = lower_gemm(layer)
    if layer.op != "conv2d":
        return layer.kept.reshape(gemm.count, gemm.rows, gemm.reduction)
    kept = _by_cell(layer.kept.reshape(gemm.count * gemm.rows, -1), gemm.channels)
    return kept.reshape(gemm.count, gemm.rows, gemm.reduction)


def _by_cell(matrix: np.ndarray, channels: int) -> np.ndarray:
    """Return (count, channels x cells) as (count, cells x channels)."""
    parts = matrix.reshape(len(matrix), channels, -1)
    return np.ascontiguousarray(parts.transpose(0, 2, 1)).reshape(len(matrix), -1)


def _promise(pattern: Pattern, axis: int) -> tuple[int, int] | None:
    """Return what ``pattern`` promises along the reduction: n and m, (1, 1) for dense, None for nothing regular."""
    if pattern.kind == "dense":
        return (1, 1)
    if pattern.kind == "n:m" and pattern.axis == axis:
        assert pattern.n is not None and pattern.m is not None
        return (pattern.n, pattern.m)
    return None
