"""Sparse tensor cores: N:M multiplexing, from one instruction to a whole network.

Two levels. *Instructions*: warps on the cores of one SM (`parts.tensorcore.instruction`). *Products*: a layer's GEMMs
in CTA and warp tiles, bounded by cores, shared memory, L2 and HBM (`parts.tensorcore.gemm`, which has the formulas;
`parts.tensorcore.units` steps the units).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.errors import InputError
from ..workloads.gemm import Gemm, by_channel, lower_gemm, operands, vectors
from .parts.energy import energy_of
from .parts.roofline import roofline
from .parts.tensorcore import values as tensorcore_values
from .parts.tensorcore.causes import by_cycles
from .parts.tensorcore.config import Config
from .parts.tensorcore.gemm import CAUSES, Account, count, solve
from .parts.tensorcore.instruction import instruction_throughput
from .parts.tensorcore.plan import Plan, plan
from .parts.tensorcore.tiles import Times, measure
from .parts.tensorcore.tiling import choose, fits, held_bytes

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

__all__ = ["Config", "GemmCost", "area_mm2", "events", "fast", "gemm_cost", "instruction_throughput"]

OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "tensorcore-event"  # which energies an Accelergy reference table replaces


@dataclass(frozen=True)
class GemmCost:
    """What a product costs: ``kind`` is how it was issued; causes are cycles of all SMs; see `LayerResult`.

    ``tiling``: its CTA tile, and the CTAs that share the reduction of one.
    """

    kind: str
    tiling: dict[str, int]
    cycles: int
    latency_s: float
    cycles_by_cause: dict[str, int]
    counts: dict[str, int]
    roofline: dict[str, float]


def gemm_cost(machine: Machine, gemm: Gemm, engine: str = "fast") -> GemmCost:
    """Return what the product of the sizes and pattern of ``gemm`` costs on ``machine``; needs no values.

    ``engine`` is "fast" or "event"; both give the same figures, the event engine in a time that grows with the tiles.
    """
    config = choose(machine.config, gemm, None)
    planned = plan(config, gemm, None)
    times = measure(config, gemm, planned)
    if engine == "event":
        from .parts.tensorcore.units import run

        account = run(config, gemm, planned, times, None, None)
    else:
        account = solve(config, gemm, planned, times)
    n, m = gemm.pattern or (1, 1)
    macs = gemm.macs * n // m if not planned.kind.is_dense else gemm.macs
    count(config, gemm, times, account, macs)
    causes, _ = _causes(config, times, account)
    return GemmCost(
        kind=planned.kind.label,
        tiling=_tiling(config, times),
        cycles=account.cycles,
        latency_s=account.cycles / config.clock_hz,
        cycles_by_cause=causes["sm"],
        counts=account.counts,
        roofline=_roofline(config, account),
    )


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences; the cost grows with tiles, not with products."""
    given: Config = machine.config
    _check(given, layer)
    gemm = memo((layer, "gemm"), lambda: lower_gemm(layer))
    config = memo((layer, "tiling", given), lambda: choose(given, gemm, by_channel(layer)))
    how = ("sparsity", "dtype", "largest_m", "vector_rows", "lockstep_rows", "cta_rows", "cta_depth")
    key = (layer, "plan", *(getattr(config, name) for name in how))
    planned = memo(key, lambda: plan(config, gemm, by_channel(layer)))
    times = measure(config, gemm, planned)
    account = solve(config, gemm, planned, times)
    output = None
    if config.functional:
        edges = _edges(gemm, planned, times)
        key = (layer, "values", config.dtype, config.accumulate, edges)
        output = memo(key, lambda: tensorcore_values.run(config, layer, edges))
    return _result(machine, config, layer, gemm, planned, times, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its units; see `parts.tensorcore.units`."""
    from .parts.tensorcore.units import Values, run

    config: Config = machine.config
    _check(config, layer)
    gemm = lower_gemm(layer)
    config = choose(config, gemm, by_channel(layer))
    planned = plan(config, gemm, by_channel(layer))
    times = measure(config, gemm, planned)
    values, given = None, []
    if config.functional:
        given = operands(layer)
        rounded = tensorcore_values.prepare(config, given)
        sums = [[tensorcore_values.zeros(gemm.columns, gemm.rows, config.dtype) for _ in times.slices] for _ in rounded]
        values = Values(rounded, sums)
    account = run(config, gemm, planned, times, values, timeline)
    output = None
    if values is not None:
        parts = [
            held.finish(tensorcore_values.add(config, sums))
            for held, sums in zip(values.operands, values.sums, strict=True)
        ]
        output = tensorcore_values.judge(layer, given, tensorcore_values.lost_operands(values.operands), parts)
    return _result(machine, config, layer, gemm, planned, times, account, output)


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64; for `gossamer check`."""
    config: Config = machine.config
    return tensorcore_values.rounding_bound(layer, config.dtype, config.accumulate, config.split_k)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of the chip."""
    return None


def _check(config: Config, layer: Layer) -> None:
    if config.dtype == "b1":
        raise InputError(
            f"layer {layer.name}: dtype b1 multiplies bits, and a trace has numbers; choose another, "
            "or simulate instructions alone"
        )


def _causes(
    config: Config, times: Times, account: Account
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, list[int]]]]:
    return by_cycles(config, times, account, {cause: account.causes[cause] for cause in CAUSES})


def _roofline(config: Config, account: Account) -> dict[str, float]:
    counts = account.counts
    peak = _multipliers(config) * config.clock_hz
    moved = counts["hbm_read_bytes"] + counts["hbm_write_bytes"]
    bandwidth = config.hbm_bytes_per_s * config.hbm_efficiency
    return roofline(counts["macs"], moved, account.cycles / config.clock_hz, peak, bandwidth)


def _multipliers(config: Config) -> float:
    return config.sm_count * config.tensor_cores_per_sm * config.fma_per_clk(config.dtype, config.accumulate)


def _tiling(config: Config, times: Times) -> dict[str, int]:
    return {"cta_rows": config.cta_rows, "cta_columns": config.cta_columns, "split_k": len(times.slices)}


def _edges(gemm: Gemm, planned: Plan, times: Times) -> tuple[int, ...]:
    """Return where in the reduction the share of each CTA begins, and where the last one ends."""
    bounds = gemm.bounds(planned.kind.m, planned.slab_groups)
    return (*(bounds[start] for start, _ in times.slices), bounds[-1])


def _result(
    machine: Machine,
    config: Config,
    layer: Layer,
    gemm: Gemm,
    planned: Plan,
    times: Times,
    account: Account,
    output: tuple[np.ndarray, dict[str, float]] | None,
) -> LayerResult:
    kind, multipliers = planned.kind, _multipliers(config)
    # A core that issues a weight dense multiplies its zeros too.
    macs = gemm.macs if kind.is_dense else layer.nonzeros * gemm.columns
    count(config, gemm, times, account, macs)
    counts, cycles = account.counts, account.cycles
    causes, each = _causes(config, times, account)
    word_bits = round(8 * config.element_bytes)
    energy, warnings = energy_of(machine.energy, cycles, {"sm": config.sm_count}, counts, word_bits=word_bits)
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=vectors(layer, gemm),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=gemm.count * gemm.rows * gemm.columns * gemm.groups(kind.m) * kind.n / multipliers,
        macs=macs,
        utilization=macs / (multipliers * cycles),
        load_balance=None,
        cycles_by_cause=causes,
        cycles_per_unit=each,
        counts=dict(counts),
        energy_j=energy,
        traffic_bytes={
            "smem": counts["smem_read_bytes"] + counts["smem_write_bytes"],
            "l2": counts["l2_read_bytes"] + counts["l2_write_bytes"],
            "hbm": counts["hbm_read_bytes"] + counts["hbm_write_bytes"],
        },
        storage_bits=dict(times.storage_bits),
        arithmetic=None if output is None else output[1],
        roofline=_roofline(config, account),
        tiling=_tiling(config, times),
        warnings=[
            *planned.warnings,
            *warnings,
            *_capacity_warnings(config, planned, times),
            *([] if output is None else tensorcore_values.range_warnings(output[1], config.dtype)),
        ],
    )
    return result if output is None else result.with_output(output[0])


def _capacity_warnings(config: Config, planned: Plan, times: Times) -> list[str]:
    warnings = []
    if not fits(config, times):
        held = held_bytes(config, times)
        warnings.append(f"the steps in flight take {held} bytes of {config.smem_bytes} in the shared memory of an SM")
    weight = sum(times.storage_bits.values())
    smaller = min(weight, times.hbm_read_bits - weight) // 8
    if smaller > config.l2_bytes:
        warnings.append(
            f"the smaller operand takes {smaller} bytes of {config.l2_bytes} in L2: "
            "that HBM moves each once is optimistic"
        )
    if times.partial_bits // 8 > config.l2_bytes:
        warnings.append(f"partial sums of the split reduction take {times.partial_bits // 8} bytes of "
                        f"{config.l2_bytes} in L2")  # fmt: skip
    moved = (times.hbm_read_bits + times.hbm_write_bits) // 8
    if moved > config.hbm_bytes:
        warnings.append(f"operands and outputs take {moved} bytes of {config.hbm_bytes} in HBM")
    return warnings
