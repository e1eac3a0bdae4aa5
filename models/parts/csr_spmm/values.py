"""The values that CSR SpMM computes: fp32, or fp16 operands, with sums in fp32.

A row's products are added from left to right, each by a fused multiply-add (here by way of float64, whose second
rounding can differ from the hardware's in the last place). What is not stored takes no part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from ....workloads.formats.csr import Csr, encode
from ....workloads.gemm import Operands, operands
from ....workloads.lowering import join, lower
from ....workloads.trace import Layer
from ..tensorcore.values import Rounded, judge, lost_operands, round_to, rounding_bound
from .config import Config

FLOAT32_STEP = 2.0**-24


def prepare(config: Config, given: list[Operands]) -> list[Rounded]:
    """Return the products of a layer in the machine's number format."""
    if config.dtype == "fp32":
        return [Rounded(product.weight, product.vectors, product.bias, 1.0) for product in given]
    return [
        Rounded(round_to(product.weight, "fp16"), round_to(product.vectors, "fp16"), product.bias, 1.0)
        for product in given
    ]


def stored(layer: Layer, weight: np.ndarray, rounded: np.ndarray) -> Csr:
    """Return one product's ``weight`` as it is stored, with ``rounded`` values, some of which may have become zero.

    Of a product of activations all values are stored.
    """
    if layer.op == "matmul":
        rows, cols = weight.shape
        columns = np.tile(np.arange(cols, dtype=np.int32), rows)
        return Csr(rows, cols, 32, np.arange(rows + 1, dtype=np.int64) * cols, columns, rounded.ravel())
    matrix = encode(weight)
    return replace(matrix, values=rounded[np.repeat(np.arange(matrix.rows), matrix.lengths), matrix.columns])


def run(config: Config, layer: Layer) -> tuple[np.ndarray, dict[str, float]]:
    """Return a layer's outputs, (vectors, out) float32, and how far they are from float64."""
    given = operands(layer)
    rounded = prepare(config, given)
    outputs = []
    for product, exact in zip(rounded, given, strict=True):
        matrix, dense = stored(layer, exact.weight, product.weight), np.ascontiguousarray(product.vectors.T)
        sums = np.zeros((len(product.weight), len(product.vectors)), np.float32)
        _multiply_all(matrix.values, matrix.columns, matrix.offsets, dense, sums)
        outputs.append(product.finish(np.ascontiguousarray(sums.T)))
    return judge(layer, given, lost_operands(rounded), outputs)


def multiply(matrix: Csr, dense: np.ndarray, row: int, entries: range, columns: range, sums: np.ndarray) -> None:
    """Add to ``sums`` (rows, columns) the products of the ``entries`` of ``row`` and the ``columns`` of ``dense``."""
    _multiply(matrix.values, matrix.columns, entries.start, entries.stop, dense, columns.start, columns.stop, sums[row])


def error_bound(config: Config, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64."""
    if config.dtype == "fp16":
        return rounding_bound(layer, "fp16", "fp32")
    bounds = []
    for product in lower(layer):
        weight, vectors = np.abs(product.weight.astype(np.float64)), np.abs(product.vectors.astype(np.float64))
        bias = 0.0 if product.bias_values is None else np.abs(product.bias_values.astype(np.float64))
        # A step an addition, one for the bias; each is rounded twice, by a hair more than half a step.
        bounds.append((weight.shape[1] + 2) * FLOAT32_STEP * 1.0001 * (vectors @ weight.T + bias))
    return join(layer, bounds)


@njit(cache=True)
def _multiply_all(values, columns, offsets, dense, sums):  # type: ignore[no-untyped-def]
    for row in range(len(sums)):
        _multiply(values, columns, offsets[row], offsets[row + 1], dense, 0, sums.shape[1], sums[row])


@njit(cache=True)
def _multiply(values, columns, first, last, dense, start, end, sums):  # type: ignore[no-untyped-def]
    for e in range(first, last):
        value, row = np.float64(values[e]), dense[columns[e]]
        for n in range(start, end):
            sums[n] = np.float32(np.float64(sums[n]) + value * np.float64(row[n]))
