"""The values that tensor cores compute: operands in the machine's number format, sums in its accumulators.

Products of operands of up to 11 significant bits are exact in float32. Sums run along the reduction, weight by weight;
that order is assumed, for the cores' own is not published, and it is the one of `parts.tensorcore.mux`. With fp16
accumulators the sum is rounded after each addition. What a format cannot hold is infinite, as in IEEE 754: cores do not
clip. Of an infinite input and a weight of zero the product is NaN here, of a pruned weight too, which a sparse core
would leave out. Integers are scaled so that a tensor's largest magnitude is the largest integer (assumed: symmetric,
one scale a tensor).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from ....workloads.blocks import row_blocks
from ....workloads.gemm import Operands, operands
from ....workloads.lowering import join
from ....workloads.trace import Layer
from ..accuracy import accuracy
from ..fixed_point import largest
from .config import DTYPE_BITS, Config

MANTISSA_BITS = {"bf16": 7, "tf32": 10}  # stored ones
INTEGERS = ("int8", "int4")


@dataclass(frozen=True, eq=False)
class Rounded:
    """The operands of a product as the cores see them, float32 or int32; outputs are sums times ``scale`` plus bias."""

    weight: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray | None
    scale: float

    @classmethod
    def of(cls, given: Operands, dtype: str, weight_peak: float, input_peak: float) -> Rounded:
        """Return ``given`` in ``dtype``; the peaks are the largest magnitudes of all products of the layer."""
        if dtype in INTEGERS:
            greatest = (1 << (DTYPE_BITS[dtype] - 1)) - 1
            scales = [peak / greatest if peak else 1.0 for peak in (weight_peak, input_peak)]
            whole, inputs = (
                np.rint(array / np.float64(scale)).astype(np.int32)
                for array, scale in zip((given.weight, given.vectors), scales, strict=True)
            )
            return cls(whole, inputs, given.bias, scales[0] * scales[1])
        return cls(round_to(given.weight, dtype), round_to(given.vectors, dtype), given.bias, 1.0)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """Return the outputs of ``sums``, (columns, rows), as the epilogue makes them in float32."""
        output = sums.astype(np.float32) if self.scale == 1.0 else (sums * self.scale).astype(np.float32)
        return output if self.bias is None else output + self.bias


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return ``values`` as the float format ``dtype`` holds them, in float32.

    fp16 and bf16 round to nearest, ties to even, tf32 to nearest, ties away from zero; what lies beyond the largest
    number becomes infinite, and NaN stays. Sources: IEEE 754; NVIDIA, PTX ISA, cvt.rn and cvt.rna.tf32, the only
    conversion to tf32 that every such core has.
    """
    if dtype == "fp16":
        values = np.ascontiguousarray(values, np.float32)
        held = np.empty_like(values)
        _round_to_half(values.reshape(-1), held.reshape(-1))
        return held
    drop = 23 - MANTISSA_BITS[dtype]
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half: np.ndarray | np.uint32 = np.uint32(1 << (drop - 1))
    if dtype == "bf16":
        half = half - np.uint32(1) + ((words >> np.uint32(drop)) & np.uint32(1))
    rounded = (words + half) & ~np.uint32((1 << drop) - 1)
    special = words & np.uint32(0x7F800000) == np.uint32(0x7F800000)
    return np.where(special, words, rounded).view(np.float32)


def zeros(columns: int, rows: int, dtype: str) -> np.ndarray:
    """Return empty accumulators, (columns, rows)."""
    return np.zeros((columns, rows), np.int32 if dtype in INTEGERS else np.float32)


def multiply(config: Config, weight: np.ndarray, vectors: np.ndarray, sums: np.ndarray) -> None:
    """Add the product of ``weight`` (rows, k) and ``vectors`` (columns, k) to ``sums`` (columns, rows)."""
    if config.accumulate != "fp16":
        accumulate(weight, vectors, sums)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(weight.shape[1]):
            sums += vectors[:, k, None] * weight[:, k]
            sums[:] = sums.astype(np.float16)


def accumulate(weight: np.ndarray, vectors: np.ndarray, sums: np.ndarray) -> None:
    """Add the product as `multiply` does, in the accumulators' own precision."""
    finite = weight.dtype.kind == "i" or bool(np.isfinite(weight).all())
    _accumulate(np.ascontiguousarray(weight.T), np.ascontiguousarray(vectors), finite, sums)


def add(config: Config, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of the partial sums ``parts``, one or more, in order, each addition rounded as accumulators do."""
    total: np.ndarray | None = None
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts:
            if total is None:
                total = part
                continue
            total = total + part
            if config.accumulate == "fp16":
                total = total.astype(np.float16).astype(np.float32)
    assert total is not None
    return total


def run(config: Config, layer: Layer, edges: Sequence[int]) -> tuple[np.ndarray, dict[str, float]]:
    """Return a layer's outputs, (vectors, out) float32, and how far they are from float64.

    ``edges``: where in the reduction the shares begin that are summed apart, and where the last one ends.
    """
    given = operands(layer)
    outputs, lost = compute(given, config.dtype, lambda held: add(config, _partial_sums(config, held, edges)))
    return judge(layer, given, lost, outputs)


def compute(
    given: list[Operands], dtype: str, sums_of: Callable[[Rounded], np.ndarray]
) -> tuple[list[np.ndarray], int]:
    """Return the outputs of each product, (columns, rows), and how many operands are infinite or NaN in ``dtype``.

    ``sums_of`` returns the accumulators of a block of rows, (columns, rows of the block).
    """
    greatest, outputs, lost = peaks(given, dtype), [], 0
    for product in given:
        parts: list[np.ndarray] = []
        for rows in row_blocks(product.weight):
            held = Rounded.of(product.of_rows(rows), dtype, *greatest)
            lost += count_lost(held.weight) + (0 if parts else count_lost(held.vectors))
            parts.append(held.finish(sums_of(held)))
        outputs.append(np.concatenate(parts, axis=1))
    return outputs, lost


def _partial_sums(config: Config, product: Rounded, edges: Sequence[int]) -> Iterator[np.ndarray]:
    for first, last in pairwise(edges):
        sums = zeros(len(product.vectors), len(product.weight), config.dtype)
        multiply(config, product.weight[:, first:last], product.vectors[:, first:last], sums)
        yield sums


def prepare(config: Config, given: list[Operands]) -> list[Rounded]:
    """Return the products of a layer in the machine's number format."""
    greatest = peaks(given, config.dtype)
    return [Rounded.of(product, config.dtype, *greatest) for product in given]


def peaks(given: list[Operands], dtype: str) -> tuple[float, float]:
    """Return the largest magnitudes of weights and inputs, which scale integers; floats need none."""
    if dtype not in INTEGERS:
        return 0.0, 0.0
    return max(largest(product.weight) for product in given), max(largest(product.vectors) for product in given)


def count_lost(array: np.ndarray) -> int:
    """Count the numbers of ``array`` that are infinite or NaN."""
    return sum(int(np.count_nonzero(~np.isfinite(array[rows]))) for rows in row_blocks(array))


def lost_operands(rounded: list[Rounded]) -> int:
    """Count the operands that are infinite or NaN."""
    return sum(count_lost(array) for product in rounded for array in (product.weight, product.vectors))


def judge(
    layer: Layer, given: list[Operands], lost: int, outputs: list[np.ndarray]
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the output that those of the products make, and its error against float64 where it is finite.

    ``lost``: operands that are infinite or NaN in the machine's format.
    """
    exact = []
    for product in given:
        bias = 0.0 if product.bias is None else product.bias.astype(np.float64)
        vectors = product.vectors.astype(np.float64)
        parts = [vectors @ product.weight[rows].T.astype(np.float64) for rows in row_blocks(product.weight)]
        exact.append(np.concatenate(parts, axis=1) + bias)
    output, reference = join(layer, outputs), join(layer, exact)
    return output, accuracy(output, reference) | {"saturated": float(lost + count_lost(output))}


def range_warnings(arithmetic: dict[str, float], dtype: str) -> list[str]:
    """Return what a user must know where numbers left the range of ``dtype`` or of its accumulators."""
    lost = int(arithmetic["saturated"])
    return [f"{lost:,} operands and outputs are infinite or NaN: beyond the range of {dtype} cores"] if lost else []


def rounding_bound(layer: Layer, dtype: str, accumulate_in: str, shares: int = 1) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64; infinite where one is.

    What rounding did to the operands, and a step of the accumulators at every addition. ``shares``: at most so many
    parts of the reduction are summed apart.
    """
    step = {"fp16": 2.0**-11, "fp32": 2.0**-24}.get(accumulate_in, 0.0)
    bounds, given = [], operands(layer)
    weight_peak, input_peak = peaks(given, dtype)
    for product in given:
        held = Rounded.of(product, dtype, weight_peak, input_peak)
        weight, vectors = np.abs(product.weight.astype(np.float64)), np.abs(product.vectors.astype(np.float64))
        terms = weight.shape[1] + shares + 2  # the epilogue's scale, bias and float32 among them
        if dtype in INTEGERS:
            greatest = (1 << (DTYPE_BITS[dtype] - 1)) - 1
            off_weight = np.where(weight != 0, weight_peak / greatest / 2, 0.0)
            off_vectors = np.where(vectors != 0, input_peak / greatest / 2, 0.0)
            step = 2.0**-24
        else:
            off_weight = np.abs(held.weight - product.weight.astype(np.float64))
            off_vectors = np.abs(held.vectors - product.vectors.astype(np.float64))
        bias = 0.0 if product.bias is None else np.abs(product.bias.astype(np.float64))
        with np.errstate(invalid="ignore"):  # an infinite operand bounds nothing
            bound = vectors @ off_weight.T + off_vectors @ (weight + off_weight).T
            sums = (vectors + off_vectors) @ (weight + off_weight).T
        least = 2.0**-25 if step == 2.0**-11 else 2.0**-149  # what rounding near 0 may come to
        bounds.append(bound + terms * (step * (sums + bias) + least))
    return join(layer, bounds)


@njit(cache=True)
def _accumulate(weight, vectors, finite, sums):  # type: ignore[no-untyped-def]
    """Add weight (k, rows) times vectors, block by block of the weight so that it stays in cache; k ascends.

    A zero adds nothing to what is ``finite``; times an infinite weight it is NaN.
    """
    reduction, rows = weight.shape
    for row in range(0, rows, 512):
        last_row = min(rows, row + 512)
        for first in range(0, reduction, 64):
            last = min(reduction, first + 64)
            for v in range(len(vectors)):
                total = sums[v, row:last_row]
                for k in range(first, last):
                    x = vectors[v, k]
                    if x != 0 or not finite:
                        part = weight[k, row:last_row]
                        for r in range(len(total)):
                            total[r] += part[r] * x


@njit(cache=True)
def _round_to_half(values, rounded):  # type: ignore[no-untyped-def]
    """Fill ``rounded`` with float32 ``values`` as fp16 holds them: numpy's two conversions take several times as long.

    Veltkamp's splitting leaves 11 significant bits; below 2**-14, fp16 has steps of 2**-24, as float32 has above 1/2.
    """
    for i in range(len(values)):
        size = abs(values[i])
        scaled = size * np.float32(2**13 + 1)
        held = scaled - (scaled - size)
        held = (size + np.float32(0.5)) - np.float32(0.5) if size < np.float32(2.0**-14) else held
        held = np.float32(np.inf) if size >= np.float32(65520) else held  # halfway from 65504 to 2**16
        held = held if size == size else size
        rounded[i] = np.copysign(held, values[i])
