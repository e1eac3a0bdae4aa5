"""The figures of tensor cores as the simulator gives them, by the keys of ``papers/tensor-core.toml``.

Each function runs the simulator and returns values with a note, empty where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models import load_machine, vary
from ..models.tensorcore import gemm_cost, instruction_throughput
from ..simulator.machine import Machine
from ..simulator.result import LayerResult
from ..simulator.simulate import simulate
from ..workloads.gemm import Gemm
from ..workloads.synth import gemm_layer
from .published import Figures

STUDY_LAYERS = ((128, 1152, 1024), (512, 1024, 256))  # rows, reduction, columns; of ResNet-50
STUDY = (
    ("dense", "dense", "sparseloop-stc"),
    ("2:4", "2:4", "sparseloop-stc"),
    ("2:6, coordinates", "2:6", "sparseloop-stc"),
    ("2:6, run-length", "2:6", "sparseloop-stc-rle"),
    ("2:8", "2:8", "sparseloop-stc"),
)
DSTC_DENSITIES = (1.0, 0.9, 0.7, 0.5, 0.3)  # of weights; activations are dense
DSTC_DENSE_CYCLES = 4600
REDUCTIONS = (256, 1024, 4096, 16384)
PATTERNS = ((2, 4), (1, 4), (1, 8), (1, 16), (1, 32))
MEASURED = Gemm(3072, 10240, 3072)  # rows, reduction, columns
FITTED = (
    "issue_min_cycles", "sparse_issue_min_cycles", "latency_base_cycles", "latency_per_cycle",
    "instruction_spacing_cycles", "loop_overhead_cycles",
)  # fmt: skip
BORROWERS = ("rtx3070ti-sparse", "h100-sparse")
HBM_80GB = 2039e9  # bytes/s


def instruction_figure(row: dict[str, Any], warps: int, ilp: int) -> tuple[float, float]:
    """Return latency in cycles, and multiply-adds a clock and SM, of the instruction in ``row`` on an A100."""
    found = instruction_throughput(
        load_machine("a100-sparse"),
        shape=tuple(row["shape"]),
        dtype=row["dtype"],
        accumulate=row["accumulate"],
        sparse=row["sparse"],
        warps=warps,
        ilp=ilp,
    )
    return found.latency_cycles, found.fma_per_clk_per_sm


def borrowed_figures() -> Figures:
    """Return the throughput of boards that rest on the A100's constants, with those that each of them borrows."""
    fitted = load_machine("a100-sparse").config
    figures: Figures = {}
    for name in BORROWERS:
        machine = load_machine(name)
        same = [field for field in FITTED if getattr(machine.config, field) == getattr(fitted, field)]
        rate = instruction_throughput(machine).fma_per_clk_per_sm
        figures[name] = (rate, f"assumed to be those of the A100: {', '.join(same)}" if same else "")
    return figures


def instruction_name(row: dict[str, Any]) -> str:
    """Return the name of the instruction in ``row``, as in "mma.sp m16n8k32 fp16, fp32"."""
    m, n, k = row["shape"]
    return f"mma{'.sp' * row['sparse']} m{m}n{n}k{k} {row['dtype']}, {row['accumulate']}"


def study_figures() -> Figures:
    """Return cycles of Sparseloop's layers in each pattern, and the energies of the first in uJ."""
    figures: Figures = {}
    for sizes in STUDY_LAYERS:
        found: dict[str, LayerResult] = {}
        for label, pattern, machine in STUDY:
            trace = gemm_layer(*sizes, pattern)
            found[label] = simulate(load_machine(machine), trace).layers[0]
            figures[f"{'x'.join(map(str, sizes))} {label}"] = (found[label].cycles, "")
        if sizes == STUDY_LAYERS[0]:
            for label in ("dense", "2:4"):
                energy = found[label].energy_j
                assert energy is not None
                figures[f"energy {label}"] = (energy.total * 1e6, "")
    return figures


def dual_side_figures() -> Figures:
    """Return the cycles of a dual-side core by the density of its weights, normalised to the published dense ones.

    One core on 256 x 512 weights and 256 vectors, 64 tiles, with neither launch nor values.
    """
    machine = load_machine("dstc-a100", core_count=1, launch_s=0.0, functional=False)
    cycles = {
        density: simulate(machine, gemm_layer(256, 512, 256, f"random:{density}", seed=1)).total.cycles
        for density in DSTC_DENSITIES
    }
    return {f"{density:g} 1": (DSTC_DENSE_CYCLES * cycles[density] / cycles[1.0], "") for density in DSTC_DENSITIES}


def product_figures() -> Figures:
    """Return what 2:4 gains over dense on an A100 by the length of the reduction, and what other patterns gain."""
    figures: Figures = {f"K {k}": (speedup(load_machine("a100-sparse"), 10240, k), "") for k in REDUCTIONS}
    machine = load_machine("a100-muxes")
    return figures | {
        f"N:M {n}:{m}": (speedup(machine, 4096, 4096, (n, m)), f"ideal {m / n:g} x: bandwidth is the limit")
        for n, m in PATTERNS
    }


def measured_figures() -> Figures:
    """Return the bounds of the product that was measured, in ms, and their ratio."""
    machine = vary(load_machine("a100-sparse"), hbm_bytes_per_s=HBM_80GB)
    dense, sparse = (gemm_cost(machine, gemm).latency_s * 1e3 for gemm in (MEASURED, with_pattern(MEASURED, (2, 4))))
    return {"dense": (dense, ""), "2:4": (sparse, ""), "speedup": (dense / sparse, "")}


def speedup(machine: Machine, side: int, reduction: int, pattern: tuple[int, int] = (2, 4)) -> float:
    """Return dense time over that of ``pattern`` for ``side`` x ``reduction`` weights and ``side`` columns."""
    dense = Gemm(side, reduction, side)
    return gemm_cost(machine, dense).latency_s / gemm_cost(machine, with_pattern(dense, pattern)).latency_s


def with_pattern(gemm: Gemm, pattern: Sequence[int]) -> Gemm:
    """Return ``gemm`` with a weight that keeps n of m."""
    n, m = pattern
    return Gemm(gemm.rows, gemm.channels, gemm.columns, pattern=(n, m))
