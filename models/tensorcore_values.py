"""The values that tensor cores compute: operands in the machine's number format, sums in its accumulators.

Products of operands of up to 11 significant bits are exact in float32. Sums run along the reduction, weight by weight;
that order is assumed, for the cores' own is not published, and it is the one of `gossamer.models.tensorcore_mux`. With
fp16 accumulators the sum is rounded after each addition. Integers are scaled so that a tensor's largest magnitude is
the largest integer (assumed: symmetric, one scale a tensor).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..workloads.gemm import Operands
from .tensorcore_config import DTYPE_BITS, Config

MANTISSA_BITS = {"bf16": 7, "tf32": 10}  # stored ones
INTEGERS = ("int8", "int4")


@dataclass(frozen=True, eq=False)
class Rounded:
    """The operands of a product as the cores see them, float32 or int32; outputs are sums times ``scale`` plus bias."""

    weight: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray | None
    scale: float
    saturated: int

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
            return cls(whole, inputs, given.bias, scales[0] * scales[1], 0)
        weight, clipped = round_to(given.weight, dtype)
        vectors, more = round_to(given.vectors, dtype)
        return cls(weight, vectors, given.bias, 1.0, clipped + more)

    def finish(self, sums: np.ndarray) -> np.ndarray:
        """Return the outputs of ``sums``, (columns, rows), as the epilogue makes them in float32."""
        output = sums.astype(np.float32) if self.scale == 1.0 else (sums * self.scale).astype(np.float32)
        return output if self.bias is None else output + self.bias


def round_to(values: np.ndarray, dtype: str) -> tuple[np.ndarray, int]:
    """Return float32 ``values`` rounded to ``dtype``, ties to even, still float32, and how many were clipped."""
    if dtype == "fp16":
        greatest = np.float32(65504)
        clipped = int(np.count_nonzero(np.abs(values) > greatest))
        held = np.clip(values, -greatest, greatest) if clipped else values
        return held.astype(np.float16).astype(np.float32), clipped
    drop = 23 - MANTISSA_BITS[dtype]
    words = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    half = np.uint64((1 << (drop - 1)) - 1)
    rounded = (words + half + ((words >> np.uint64(drop)) & np.uint64(1))) >> np.uint64(drop) << np.uint64(drop)
    held = rounded.astype(np.uint32).view(np.float32)
    over = ~np.isfinite(held)
    return np.where(over, values, held), int(np.count_nonzero(over))


def zeros(columns: int, rows: int, dtype: str) -> np.ndarray:
    """Return empty accumulators, (columns, rows)."""
    return np.zeros((columns, rows), np.int32 if dtype in INTEGERS else np.float32)


def multiply(config: Config, weight: np.ndarray, vectors: np.ndarray, sums: np.ndarray) -> None:
    """Add the product of ``weight`` (rows, k) and ``vectors`` (columns, k) to ``sums`` (columns, rows)."""
    if config.accumulate != "fp16":
        accumulate(weight, vectors, sums)
        return
    for k in range(weight.shape[1]):
        sums += vectors[:, k, None] * weight[:, k]
        sums[:] = np.clip(sums, -65504, 65504).astype(np.float16)


def accumulate(weight: np.ndarray, vectors: np.ndarray, sums: np.ndarray) -> None:
    """Add the product as `multiply` does, in the accumulators' own precision."""
    _accumulate(np.ascontiguousarray(weight.T), np.ascontiguousarray(vectors), sums)


def run(config: Config, given: list[Operands]) -> tuple[np.ndarray, dict[str, float]]:
    """Return a layer's outputs, (columns, rows of all products) float32, and how far they are from float64."""
    rounded = prepare(config, given)
    outputs = []
    for product in rounded:
        sums = zeros(len(product.vectors), len(product.weight), config.dtype)
        multiply(config, product.weight, product.vectors, sums)
        outputs.append(product.finish(sums))
    return judge(given, rounded, np.concatenate(outputs, axis=1))


def prepare(config: Config, given: list[Operands]) -> list[Rounded]:
    """Return the products of a layer in the machine's number format."""
    weight_peak = max(float(np.abs(product.weight).max()) for product in given)
    input_peak = max(float(np.abs(product.vectors).max()) for product in given)
    return [Rounded.of(product, config.dtype, weight_peak, input_peak) for product in given]


def judge(given: list[Operands], rounded: list[Rounded], output: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return ``output`` and its error against float64."""
    exact = []
    for product in given:
        bias = 0.0 if product.bias is None else product.bias.astype(np.float64)
        exact.append(product.vectors.astype(np.float64) @ product.weight.T.astype(np.float64) + bias)
    reference = np.concatenate(exact, axis=1)
    error = output - reference
    return output, {
        "max_abs_error": float(np.abs(error).max()),
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "max_abs_reference": float(np.abs(reference).max()),
        "rms_reference": float(np.sqrt(np.mean(reference**2))),
        "same_argmax": float(np.mean(output.argmax(axis=1) == reference.argmax(axis=1))),
        "saturated": sum(product.saturated for product in rounded),
    }


def rounding_bound(given: list[Operands], dtype: str, accumulate_in: str) -> np.ndarray:
    """Return how far each output may be from the exact one, (columns, rows) in float64, if nothing is clipped.

    What rounding did to the operands, and a step of the accumulators at every addition.
    """
    step = {"fp16": 2.0**-11, "fp32": 2.0**-24}.get(accumulate_in, 0.0)
    bounds = []
    weight_peak = max(float(np.abs(product.weight).max()) for product in given)
    input_peak = max(float(np.abs(product.vectors).max()) for product in given)
    for product in given:
        held = Rounded.of(product, dtype, weight_peak, input_peak)
        weight, vectors = np.abs(product.weight.astype(np.float64)), np.abs(product.vectors.astype(np.float64))
        terms = weight.shape[1] + 3  # the epilogue's scale, bias and float32 among them
        if dtype in INTEGERS:
            greatest = (1 << (DTYPE_BITS[dtype] - 1)) - 1
            off_weight = np.where(weight != 0, weight_peak / greatest / 2, 0.0)
            off_vectors = np.where(vectors != 0, input_peak / greatest / 2, 0.0)
            step = 2.0**-24
        else:
            off_weight = np.abs(held.weight - product.weight.astype(np.float64))
            off_vectors = np.abs(held.vectors - product.vectors.astype(np.float64))
        bound = vectors @ off_weight.T + off_vectors @ (weight + off_weight).T
        sums = (vectors + off_vectors) @ (weight + off_weight).T
        bias = 0.0 if product.bias is None else np.abs(product.bias.astype(np.float64))
        bounds.append(bound + terms * (step * (sums + bias) + 2.0**-25 * (step == 2.0**-11)))
    return np.concatenate(bounds, axis=1)


@njit(cache=True)
def _accumulate(weight, vectors, sums):  # type: ignore[no-untyped-def]
    """Add weight (k, rows) times vectors, block by block of the weight so that it stays in cache; k ascends."""
    reduction, rows = weight.shape
    for row in range(0, rows, 512):
        last_row = min(rows, row + 512)
        for first in range(0, reduction, 64):
            last = min(reduction, first + 64)
            for v in range(len(vectors)):
                total = sums[v, row:last_row]
                for k in range(first, last):
                    x = vectors[v, k]
                    if x != 0:
                        part = weight[k, row:last_row]
                        for r in range(len(total)):
                            total[r] += part[r] * x
