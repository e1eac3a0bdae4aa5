"""The figures of sparse kernels on GPUs as the simulator gives them, by the keys of ``papers/gpu-kernels.toml``.

Each function runs the simulator and returns values with a note, empty where there is nothing to say. Matrices are
drawn: those of the Deep Learning Matrix Collection are not bundled (`gossamer simulate` reads them, as .smtx files).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..models import load_machine
from ..models.csr_spmm import spmm_cost
from ..models.tensorcore import gemm_cost
from ..simulator.machine import Machine
from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.gemm import Gemm
from ..workloads.patterns import Pattern
from ..workloads.trace import Layer
from .published import Figures

SIDE = 4096  # rows, columns and vectors of the products that were measured; SMALL: of others
SMALL = 64
DENSITIES = (0.5, 0.25, 0.2, 0.15, 0.1, 0.05)
SPLIT_DENSITIES = (0.25, 0.05)
UNEVEN = (8192, 2048, 128)  # rows, reduction, vectors
UNEVEN_LENGTH = 512  # nonzeros a row, mean
VARIATIONS = (0.25, 0.5, 1.0)  # standard deviation / mean of the nonzeros a row
SHAPES = ((512, 512), (2048, 512), (512, 2048), (256, 2304), (64, 576), (1024, 256), (2048, 1024))
SPARSITIES = (0.5, 0.7, 0.9, 0.98)
BLOCKS = (8, 16, 32, 64)


def scattered(rows: int, reduction: int, density: float, seed: int = 0) -> np.ndarray:
    """Return where a weight is kept, (rows, reduction) bool, each with probability ``density``."""
    kept: np.ndarray = np.random.default_rng(seed).random((rows, reduction), np.float32) < density
    return kept


def uneven(rows: int, reduction: int, mean: float, variation: float, seed: int = 0) -> np.ndarray:
    """Return where a weight is kept: log-normal nonzeros a row of this mean and coefficient of variation."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log1p(variation**2))
    lengths = np.clip(np.rint(mean * rng.lognormal(-(sigma**2) / 2, sigma, rows)), 0, reduction)
    kept = np.zeros((rows, reduction), bool)
    for row, length in zip(kept, lengths.astype(int), strict=True):
        row[rng.permutation(reduction)[:length]] = True
    return kept


def measured_figures() -> Figures:
    """Return the times in ms of the products that were measured on an A100, and where sparse and dense cross."""
    figures: Figures = {}
    sputnik, split, dense = (load_machine(f"a100-{name}") for name in ("sputnik", "row-split", "sgemm"))
    for side in (SIDE, SMALL):
        figures[f"dense {side}"] = (_dense_ms(dense, side, side, side), "")
        for density in DENSITIES:
            kept = scattered(side, side, density)
            figures[f"sputnik {side} {density:g}"] = (spmm_cost(sputnik, kept, side).latency_s * 1e3, "")
            if density in SPLIT_DENSITIES:
                figures[f"split {side} {density:g}"] = (spmm_cost(split, kept, side).latency_s * 1e3, "")
    points = [(density, _value(figures, f"sputnik {SIDE} {density:g}")) for density in DENSITIES]
    figures["crossing"] = (1 - _crossing(points, _value(figures, f"dense {SIDE}")), "")
    return figures


def paper_figures() -> Figures:
    """Return what the Sputnik paper tells of a V100, on drawn matrices."""
    sputnik, split, dense = (load_machine(f"v100-{name}") for name in ("sputnik", "row-split", "sgemm"))
    shares, ratios = [], []
    for rows, reduction in SHAPES:
        for sparsity in SPARSITIES:
            for columns in (64, 256):
                kept = scattered(rows, reduction, 1 - sparsity)
                mine, other = (spmm_cost(machine, kept, columns) for machine in (sputnik, split))
                shares.append(mine.utilization)
                ratios.append(other.latency_s / mine.latency_s)
    rows, reduction, columns = UNEVEN
    points = [
        (density, spmm_cost(sputnik, scattered(rows, reduction, density), columns).latency_s * 1e3)
        for density in (0.3, 0.2, 0.15, 0.1)
    ]
    crossing = 1 - _crossing(points, _dense_ms(dense, rows, reduction, columns))
    span = f"{len(ratios)} products, {min(ratios):.2f} to {max(ratios):.2f}"
    return {
        "peak": (max(shares), ""),
        "geomean": (float(np.exp(np.mean(np.log(ratios)))), span),
        "crossing": (crossing, ""),
    }


def balance_figures() -> Figures:
    """Return what row swizzle keeps of the throughput of equal rows, and gains, by the variation of row lengths."""
    rows, reduction, columns = UNEVEN
    machines = {order: load_machine("v100-sputnik", order=order) for order in ("sorted", "identity")}
    split = {order: load_machine("v100-row-split", order=order) for order in ("sorted", "identity")}
    figures: Figures = {}
    equal = spmm_cost(machines["sorted"], uneven(rows, reduction, UNEVEN_LENGTH, 0.0), columns)
    for variation in VARIATIONS:
        kept = uneven(rows, reduction, UNEVEN_LENGTH, variation)
        found = {order: spmm_cost(machine, kept, columns) for order, machine in machines.items()}
        for order, cost in found.items():
            figures[f"kept {order} {variation:g}"] = (cost.utilization / equal.utilization, "")
            idle = cost.cycles_by_cause["subwarp_idle"] / sum(cost.cycles_by_cause.values())
            figures[f"idle {order} {variation:g}"] = (idle, "")
        figures[f"gain {variation:g}"] = (found["identity"].cycles / found["sorted"].cycles, "")
        plain = {order: spmm_cost(machine, kept, columns).cycles for order, machine in split.items()}
        figures[f"split gain {variation:g}"] = (plain["identity"] / plain["sorted"], "")
    return figures


def block_figures() -> Figures:
    """Return what Block-ELLPACK on an A100's tensor cores gains over dense, by block and share of blocks left out."""
    dense = gemm_cost(load_machine("a100-dense"), Gemm(SIDE, SIDE, SIDE)).latency_s
    figures: Figures = {}
    for block in BLOCKS:
        machine = load_machine("a100-block-ell", block=block, functional=False)
        for sparsity in (0.5, 0.9):
            result = _blocks(machine, block, sparsity)
            figures[f"block {block} {sparsity:g}"] = (dense / result.latency_s, "")
    return figures


def _blocks(machine: Machine, block: int, sparsity: float) -> LayerResult:
    """Return what a weight costs that keeps as many blocks in every block row."""
    count = SIDE // block
    rng = np.random.default_rng(0)
    kept = rng.random((count, count)).argsort(axis=1).argsort(axis=1) < round(count * (1 - sparsity))
    weight = np.repeat(np.repeat(kept, block, axis=0), block, axis=1).astype(np.float32)
    inputs = np.ones((SIDE, SIDE), np.float32)
    layer = Layer(
        name="blocks", op="linear", weight=weight, inputs=inputs, pattern=Pattern("block", block=(block, block))
    )
    return machine.engines.fast(machine, layer, Memo())


def _dense_ms(machine: Machine, rows: int, reduction: int, columns: int) -> float:
    return gemm_cost(machine, Gemm(rows, reduction, columns)).latency_s * 1e3


def _value(figures: Figures, key: str) -> float:
    value, _ = figures[key]
    assert value is not None
    return value


def _crossing(points: list[tuple[float, float]], dense: float) -> float:
    """Return the density, between those of ``points`` (falling densities, times), at which sparse takes ``dense``."""
    for (more, slow), (less, quick) in pairwise(points):
        if quick <= dense <= slow:
            return less + (more - less) * (dense - quick) / (slow - quick)
    return 1.0 if dense >= points[0][1] else 0.0
