"""The values that CSR SpMM computes: fp32, or fp16 operands, with sums in fp32.

A row's products are added from left to right, each by a fused multiply-add (here by way of float64, whose second
rounding can differ from the hardware's in the last place). What is not stored takes no part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from ....workloads.blocks import row_blocks
from ....workloads.formats.csr import Csr, encode
from ....workloads.gemm import Operands, kept_operands, operands
from ....workloads.lowering import join, lower
from ....workloads.trace import Layer
from ..tensorcore.values import Rounded, count_lost, judge, round_to, rounding_bound
from .config import Config

FLOAT32_STEP, FLOAT32_LEAST = 2.0**-24, 2.0**-149


def prepare(config: Config, given: list[Operands]) -> list[Rounded]:
    """Return the products of a layer in the machine's number format."""
    return [
        Rounded(_held(config, product.weight), _held(config, product.vectors), product.bias, 1.0) for product in given
    ]


def stored(layer: Layer, kept: np.ndarray, rounded: np.ndarray) -> Csr:
    """Return one product's weight as it is stored: ``rounded`` values, be they zero, wherever ``kept`` is nonzero.

    Of a product of activations all values are stored.
    """
    if layer.op == "matmul":
        rows, cols = rounded.shape
        columns = np.tile(np.arange(cols, dtype=np.int32), rows)
        return Csr(rows, cols, 32, np.arange(rows + 1, dtype=np.int64) * cols, columns, rounded.ravel())
    matrix = encode(kept)
    return replace(matrix, values=rounded[np.repeat(np.arange(matrix.rows), matrix.lengths), matrix.columns])


def run(config: Config, layer: Layer) -> tuple[np.ndarray, dict[str, float]]:
    """Return a layer's outputs, (vectors, out) float32, and how far they are from float64.

    Rows are independent: a block of them at a time is stored, so that no second matrix of the layer's size is made.
    """
    given = operands(layer)
    outputs, lost = [], 0
    # Weights without codes are what is kept: a convolution's need not be put in order a second time.
    every = [product.weight for product in given] if layer.codes is None else kept_operands(layer)
    for product, kept in zip(given, every, strict=True):
        vectors = _held(config, product.vectors)
        dense, parts = np.ascontiguousarray(vectors.T), []
        lost += count_lost(vectors)
        for rows in row_blocks(product.weight):
            part = product.of_rows(rows)
            held = Rounded(_held(config, part.weight), vectors, part.bias, 1.0)
            lost += count_lost(held.weight)
            matrix = stored(layer, kept[rows], held.weight)
            sums = np.zeros((len(part.weight), len(vectors)), np.float32)
            _multiply_all(matrix.values, matrix.columns, matrix.offsets, dense, sums)
            parts.append(held.finish(np.ascontiguousarray(sums.T)))
        outputs.append(np.concatenate(parts, axis=1))
    return judge(layer, given, lost, outputs)


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
        # A step an addition, one for the bias; each is rounded twice, by a hair more than half a step, near 0 of the
        # least number.
        terms, sums = weight.shape[1] + 2, vectors @ weight.T + bias
        bounds.append(terms * (FLOAT32_STEP * 1.0001 * sums + FLOAT32_LEAST))
    return join(layer, bounds)


def _held(config: Config, values: np.ndarray) -> np.ndarray:
    return values if config.dtype == "fp32" else round_to(values, "fp16")


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
