"""CSR SpMM on a GPU: a sparse weight without structure, times dense vectors, on multiply-adders without tensor cores.

Sputnik's kernel (1-D tiles, sub-warps, vector loads, row swizzle) and a plain row split are configurations of one
machine. `parts.csr_spmm.rows` has what warps get, `parts.csr_spmm.timing` the recurrences, `parts.csr_spmm.units` steps
the units.

Source: Gale, Zaharia, Young, Elsen, "Sparse GPU Kernels for Deep Learning", SC 2020, and its library Sputnik.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.gemm import Gemm, kept_operands, lower_gemm, operands, vectors
from .parts.csr_spmm import values as csr_spmm_values
from .parts.csr_spmm.config import LINE_BYTES, SECTOR_BYTES, Config, choose
from .parts.csr_spmm.rows import measure_work
from .parts.csr_spmm.sharing import GRAINS
from .parts.csr_spmm.timing import CAUSES, Account, Times, measure, solve
from .parts.energy import energy_of
from .parts.roofline import roofline
from .parts.tensorcore.values import judge, lost_operands, range_warnings
from .parts.ticks import TICKS

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

__all__ = ["Config", "SpmmCost", "area_mm2", "error_bound", "events", "fast", "spmm_cost"]

OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "gpu-event"  # which energies an Accelergy reference table replaces
HOW_ROWS = ("sm_count", "block_rows", "tile_depth", "subwarp_threads", "sparse_vector", "residue_unroll", "order",
            "dtype", "index_bits")  # fmt: skip


@dataclass(frozen=True)
class SpmmCost:
    """What a product costs: causes are cycles of all SMs; see `LayerResult`."""

    cycles: int
    latency_s: float
    utilization: float
    load_balance: float
    cycles_by_cause: dict[str, int]
    counts: dict[str, int]


def spmm_cost(machine: Machine, kept: np.ndarray, columns: int) -> SpmmCost:
    """Return what a weight times ``columns`` vectors costs on ``machine``; needs no values.

    ``kept`` is (rows, reduction), nonzero where a weight is stored. The figures are those of `fast`.
    """
    gemm = Gemm(kept.shape[0], kept.shape[1], columns, pattern=None)
    config: Config = choose(machine.config, columns)
    times = measure(config, gemm, measure_work(config, kept[None]))
    account = solve(config, times)
    macs = int(np.count_nonzero(kept)) * columns
    multipliers = config.sm_count * config.fma_per_clk
    return SpmmCost(
        cycles=account.cycles,
        latency_s=account.cycles / config.clock_hz,
        utilization=macs / (multipliers * account.cycles),
        load_balance=_load_balance(config, times, account),
        cycles_by_cause=_causes(config, times, account)[0]["sm"],
        counts=_counts(macs, times, account),
    )


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences; the cost grows with thread blocks."""
    gemm = memo((layer, "gemm"), lambda: lower_gemm(layer))
    config: Config = choose(machine.config, gemm.columns)
    output = None
    if config.functional:  # first, for what is worked out of warps then takes more than the layer, if that is tall
        output = memo((layer, "csr values", config.dtype), lambda: csr_spmm_values.run(config, layer))
    key = (layer, "csr rows", *(getattr(config, name) for name in HOW_ROWS))
    work = memo(key, lambda: measure_work(config, _stored(layer, gemm)))
    times = measure(config, gemm, work)
    account = solve(config, times)
    return _result(machine, config, layer, gemm, times, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its units; see `parts.csr_spmm.units`."""
    from .parts.csr_spmm.units import run

    gemm = lower_gemm(layer)
    config: Config = choose(machine.config, gemm.columns)
    times = measure(config, gemm, measure_work(config, _stored(layer, gemm)))
    given = operands(layer)
    rounded = csr_spmm_values.prepare(config, given)
    # What is stored is what the layer keeps, were it rounded to zero.
    matrices = [
        csr_spmm_values.stored(layer, kept, held.weight)
        for kept, held in zip(kept_operands(layer), rounded, strict=True)
    ]
    dense = [np.ascontiguousarray(held.vectors.T) for held in rounded] if config.functional else None
    account, sums = run(config, gemm, times, matrices, dense, timeline)
    output = None
    if config.functional:
        parts = [held.finish(np.ascontiguousarray(part.T)) for held, part in zip(rounded, sums, strict=True)]
        output = judge(layer, given, lost_operands(rounded), parts)
    return _result(machine, config, layer, gemm, times, account, output)


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64; for `gossamer check`."""
    return csr_spmm_values.error_bound(machine.config, layer)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of the chip."""
    return None


def _stored(layer: Layer, gemm: Gemm) -> np.ndarray:
    """Return the layer's weight, (products, rows, reduction), nonzero where a value is stored.

    What stands for the weight of a product of activations is not known before it is there: all of it is stored.
    """
    shape = (gemm.count, gemm.rows, gemm.reduction)
    if layer.op == "matmul":
        return np.broadcast_to(np.uint8(1), shape)
    return layer.kept.reshape(shape)


def _causes(
    config: Config, times: Times, account: Account
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, list[int]]]]:
    """Return cycles by cause, of all units and of each; those of each unit add up to the cycles of the layer."""
    share = config.blocks_per_sm * config.warps_per_block
    spent = np.stack([account.causes[cause] for cause in CAUSES])  # (causes, slots), in ticks of warps
    of_sm = spent.reshape(len(CAUSES), config.blocks_per_sm, config.sm_count).sum(axis=1)  # blocks are dealt in turn
    ends = -(-of_sm.cumsum(axis=0) // (TICKS * share))
    cycles = np.diff(ends, axis=0, prepend=0)
    each = {"sm": {cause: row.tolist() for cause, row in zip(CAUSES, cycles, strict=True)}}
    sectors = account.sums["l2_read"] + account.sums["l2_write"]
    working = {"l2": sectors * times.prices[0].sector // GRAINS, "hbm": times.hbm}
    for unit, ticks in working.items():
        busy = -(-min(ticks, account.total) // TICKS)
        each[unit] = {"busy": [busy], "idle": [account.cycles - busy]}
    return {unit: {cause: sum(row) for cause, row in causes.items()} for unit, causes in each.items()}, each


def _load_balance(config: Config, times: Times, account: Account) -> float:
    """Return the share of the time of all warps that none waited for a longer row, nor for other SMs."""
    waits = sum(int(account.causes[cause].sum()) for cause in ("subwarp_idle", "warp_idle", "idle"))
    return 1 - waits / (times.slots * config.warps_per_block * account.total)


def _counts(macs: int, times: Times, account: Account) -> dict[str, int]:
    sums = account.sums
    return {
        "macs": macs,
        "instructions": sums["instructions"],
        "multiplications": sums["multiplications"],
        "padding_multiplications": sums["padding"],
        "idle_multiplications": sums["idle"],
        "masked_nonzeros": sums["masked"],
        "dense_rows": sums["dense_rows"],
        "dense_row_misses": sums["dense_misses"],
        "ctas": sums["blocks"],
        "waves": -(-sums["blocks"] // times.slots),
        "l1_read_bytes": sums["l1_lines"] * LINE_BYTES,
        "smem_read_bytes": sums["smem_read"] * LINE_BYTES,
        "smem_write_bytes": sums["smem_write"],
        "l2_read_bytes": sums["l2_read"] * SECTOR_BYTES,
        "l2_write_bytes": sums["l2_write"] * SECTOR_BYTES,
        "hbm_read_bytes": times.hbm_read_bytes,
        "hbm_write_bytes": times.hbm_write_bytes,
    }


def _macs(layer: Layer, gemm: Gemm) -> int:
    return gemm.macs if layer.op == "matmul" else layer.nonzeros * gemm.columns


def _result(
    machine: Machine,
    config: Config,
    layer: Layer,
    gemm: Gemm,
    times: Times,
    account: Account,
    output: tuple[np.ndarray, dict[str, float]] | None,
) -> LayerResult:
    counts, cycles = _counts(_macs(layer, gemm), times, account), account.cycles
    causes, each = _causes(config, times, account)
    multipliers = config.sm_count * config.fma_per_clk
    energy, warnings = energy_of(
        machine.energy, cycles, {"sm": config.sm_count}, counts, word_bits=8 * config.value_bytes
    )
    macs, moved = counts["macs"], counts["hbm_read_bytes"] + counts["hbm_write_bytes"]
    peak, bandwidth = multipliers * config.clock_hz, config.hbm_bytes_per_s * config.hbm_efficiency
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=vectors(layer, gemm),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=macs / multipliers,
        macs=macs,
        utilization=macs / (multipliers * cycles),
        load_balance=_load_balance(config, times, account),
        cycles_by_cause=causes,
        cycles_per_unit=each,
        counts=counts,
        energy_j=energy,
        traffic_bytes={
            "l1": counts["l1_read_bytes"],
            "smem": counts["smem_read_bytes"] + counts["smem_write_bytes"],
            "l2": counts["l2_read_bytes"] + counts["l2_write_bytes"],
            "hbm": moved,
        },
        storage_bits=dict(times.storage_bits),
        arithmetic=None if output is None else output[1],
        roofline=roofline(macs, moved, cycles / config.clock_hz, peak, bandwidth),
        tiling={
            "block_rows": config.block_rows, "tile_columns": config.tile_columns,
            "rows_per_warp": config.rows_per_warp, "blocks_per_sm": config.blocks_per_sm,
        },
        warnings=[
            *warnings,
            *_capacity_warnings(config, gemm, times),
            *([] if output is None else range_warnings(output[1], config.dtype)),
        ],
    )  # fmt: skip
    return result if output is None else result.with_output(output[0])


def _capacity_warnings(config: Config, gemm: Gemm, times: Times) -> list[str]:
    warnings = []
    if gemm.reduction > 1 << config.index_bits:
        warnings.append(
            f"columns need indices of {(gemm.reduction - 1).bit_length()} bits, and index_bits is {config.index_bits}"
        )
    if times.slab_bytes > config.l2_bytes:
        warnings.append(
            f"the slice of the dense matrix in use takes {times.slab_bytes} bytes of {config.l2_bytes} in L2"
        )
    moved = gemm.input_words * config.value_bytes + sum(times.storage_bits.values()) // 8 + times.hbm_write_bytes
    if moved > config.hbm_bytes:
        warnings.append(f"operands and outputs take {moved} bytes of {config.hbm_bytes} in HBM")
    return warnings
