"""Plots of sparse tensor cores: throughput by warps and ILP, what 2:4 gains by the reduction, what N:M gains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..models import load_machine
from ..models.tensorcore import gemm_cost, instruction_throughput
from ..simulator.machine import Machine
from ..simulator.simulate import simulate
from ..workloads.errors import InputError
from ..workloads.gemm import Gemm
from ..workloads.synth import gemm_layer
from .plots_style import LINES, MARKERS, REFERENCE, drawing, plot_path, powers
from .tensorcore_figures import STUDY_LAYERS, speedup, with_pattern

WARPS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32)
ILPS = (1, 2, 3, 4, 6)
DEPTHS = tuple(2**power for power in range(6, 16))
SIDES = (1024, 4096, 10240)
RATIOS = (2, 4, 8, 16, 32)  # M / N


def draw_all(folder: Path, suffix: str = ".png") -> list[Path]:
    """Return the paths of all plots of an A100, drawn into ``folder``."""
    machine = load_machine("a100-sparse")
    return [
        plot_throughput(machine, folder / f"throughput{suffix}"),
        plot_speedup_by_k(machine, folder / f"speedup-by-k{suffix}"),
        plot_speedup_by_pattern(folder / f"speedup-by-pattern{suffix}"),
    ]


def plot_throughput(machine: Machine, path: str | Path) -> Path:
    """Return ``path``, which now shows multiply-adds a clock and SM by warps, a line an ILP, dense beside sparse."""
    path = plot_path(path)
    kinds = (("mma m16n8k16, fp16 to fp32", (16, 8, 16), False), ("mma.sp m16n8k32, fp16 to fp32", (16, 8, 32), True),
             ("mma.sp m16n8k16, fp16 to fp32", (16, 8, 16), True))  # fmt: skip
    cores = machine.config.tensor_cores_per_sm
    dense = cores * machine.config.fma_per_clk("fp16", "fp32")
    if not dense:
        raise InputError(f"{path}: a plot of throughput needs cores that multiply fp16, and {machine.name} has none")
    with drawing(path, 9.5, 3.2) as figure:
        axes = figure.subplots(1, len(kinds), sharey=True)
        for ax, (title, shape, sparse) in zip(axes, kinds, strict=True):
            ax.axhline(dense * (1 + sparse), color=REFERENCE, linestyle="--", linewidth=1, label="peak")
            for index, ilp in enumerate(ILPS):
                rates = [
                    instruction_throughput(machine, shape=shape, sparse=sparse, warps=warps, ilp=ilp).fma_per_clk_per_sm
                    for warps in WARPS
                ]
                ax.plot(WARPS, rates, color=LINES[index], marker=MARKERS[index], markersize=3, label=f"ILP {ilp}")
            ax.set_title(title, loc="left")
            ax.set_xlabel("warps of an SM")
            ax.set_xticks((1, 4, 8, 16, 24, 32))
        axes[0].set_ylim(0, None)
        axes[0].set_ylabel("FMA / clk / SM, on logical k")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ILPS) + 1)
    return path


def plot_speedup_by_k(machine: Machine, path: str | Path) -> Path:
    """Return ``path``, which now shows what 2:4 gains over dense by the length of the reduction, a line a size."""
    path = plot_path(path)
    with drawing(path, 5.2, 3.4) as figure:
        ax = figure.subplots()
        ax.axhline(2, color=REFERENCE, linestyle="--", linewidth=1, label="ideal")
        for index, side in enumerate(SIDES):
            gains = [speedup(machine, side, depth) for depth in DEPTHS]
            ax.plot(
                DEPTHS, gains, color=LINES[index], marker=MARKERS[index], markersize=4, label=f"{side:,} x {side:,}"
            )
        powers(ax.xaxis, 2)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylim(0.9, 2.1)
        ax.set_xlabel("K, the reduction")
        ax.set_ylabel("speed-up of 2:4 over dense")
        ax.set_title(f"on {machine.name}", loc="left")
        ax.legend(title="outputs")
    return path


def plot_speedup_by_pattern(path: str | Path) -> Path:
    """Return ``path``, which now shows what M / N gains over dense on four kinds of hardware, and the ideal.

    Of 4,096 x 4,096 x 4,096; Sparseloop's study on its first layer, of 128 x 1,152 weights and 1,024 columns.
    """
    path = plot_path(path)
    gemm = Gemm(4096, 4096, 4096)
    shared = load_machine("a100-vnm", largest_m=2 * max(RATIOS))
    kinds: tuple[tuple[str, Machine, Callable[[int], tuple[int, int]]], ...] = (
        ("M:1 muxes alone (2:4, 1:M)", load_machine("a100-muxes"), _one_of),
        ("B fetched 4 times as wide (2:4, 1:M)", load_machine("a100-wide-fetch"), _one_of),
        (f"V:2:M, {shared.config.vector_rows} rows, on 2:4 cores", shared, lambda ratio: (2, 2 * ratio)),
    )
    with drawing(path, 6.2, 4.0) as figure:
        ax = figure.subplots()
        ax.plot(RATIOS, RATIOS, color=REFERENCE, linestyle="--", linewidth=1, label="ideal")
        for index, (label, varied, pattern) in enumerate(kinds):
            dense = gemm_cost(varied, gemm).latency_s
            gains = [dense / gemm_cost(varied, with_pattern(gemm, pattern(ratio))).latency_s for ratio in RATIOS]
            ax.plot(RATIOS, gains, color=LINES[index], marker=MARKERS[index], markersize=4, label=label)
        ratios, gains = _study()
        ax.plot(ratios, gains, color=LINES[3], marker=MARKERS[3], markersize=4, label="Sparseloop's study (2:M)")
        powers(ax.xaxis, 2)
        powers(ax.yaxis, 2)
        ax.set_xlabel("M / N: weights over those that are kept")
        ax.set_ylabel("speed-up over dense")
        ax.set_title("4,096 x 4,096 x 4,096 on cores of an A100", loc="left")
        ax.legend()
    return path


def _one_of(ratio: int) -> tuple[int, int]:
    return (2, 4) if ratio == 2 else (1, ratio)


def _study() -> tuple[list[float], list[float]]:
    """Return M / N and speed-up over dense of 2:4, 2:6 and 2:8 in Sparseloop's study."""
    machine = load_machine("sparseloop-stc")
    cycles = [
        simulate(machine, gemm_layer(*STUDY_LAYERS[0], pattern)).total.cycles
        for pattern in ("dense", "2:4", "2:6", "2:8")
    ]
    return [2, 3, 4], [cycles[0] / one for one in cycles[1:]]
