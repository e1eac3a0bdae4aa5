"""TorchSparse on a GPU: sparse convolution as gather, grouped products and scatter, on demand, or as implicit GEMM.

A layer is a row of kernels (`parts.torchsparse.plan` says which, and what they move). One follows another:

    cycles of a kernel = launch + max(when the last SM is done, DRAM bytes / bandwidth, L2 bytes / bandwidth)

Tiles of tile_rows x tile_columns outputs go, in order, to whichever SM is free; a tile takes fill_cycles, and for each
tile_depth of the reduction what tile_rows * tile_columns * tile_depth products take at kernel_efficiency of the SM's
rate. Few rows thus leave SMs idle, and rows that no tile is full of cost as if it were. Here SMs are a recurrence;
`parts.torchsparse.units` steps them.

Assumed: kernels do not overlap; buffers between kernels go through DRAM; rows of features that L2 can hold are read
from DRAM once in a kernel; bias and rounding are part of the last kernel. Published are the dataflow and the grouping;
the GPU's figures are from memory or assumed, and none is fitted.

Sources: Tang et al., "TorchSparse", MLSys 2022; Tang et al., "TorchSparse++", MICRO 2023, implicit GEMM with sorted
masks; the public code of both (mit-han-lab/torchsparse), kernels and what they read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.errors import InputError
from ..workloads.points.keys import voxelise
from .parts.counting import check_count
from .parts.dispatch import first_free
from .parts.energy import energy_of
from .parts.pointacc.values import values
from .parts.torchsparse import groups
from .parts.torchsparse.account import Account
from .parts.torchsparse.config import Config
from .parts.torchsparse.groups import Group
from .parts.torchsparse.plan import (
    Convolution,
    Kernel,
    active_offsets,
    choose_groups,
    convolution_of,
    plan,
    product,
    products,
    quantising,
    search,
)

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer, Trace

__all__ = ["Config", "Tuning", "area_mm2", "events", "fast", "tune"]

OPS = ("sparse_conv3d", "linear", "point_op")


@dataclass(frozen=True)
class Tuning:
    """The grouping that the grid search found for ``layer``, its products' cycles, and those of separate products.

    ``centre_cycles``: of the product of the middle offset, which is the same in both, 0 where it is no identity.
    """

    layer: str
    epsilon: float
    threshold: int
    cycles: int
    separate_cycles: int
    centre_cycles: int


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, kernel by kernel. Raises InputError for other point operations."""
    config: Config = machine.config
    _check(machine, layer)
    account = Account.empty()
    if layer.op == "point_op":
        voxels = memo((layer, "voxels"), lambda: voxelise(layer.inputs, layer.attributes["voxel_size"])[0])
        for kernel in quantising(config, len(layer.inputs), len(voxels)):
            _book(account, config, kernel, 1)
        return _result(machine, layer, None, account, voxels if config.functional else None)
    conv = memo((layer, "convolution"), lambda: convolution_of(layer, memo))
    for kernel in kernels_of(config, conv):
        _book(account, config, kernel, conv.width)
    output = memo((layer, "float32 values"), lambda: values(layer, memo)) if _has_values(config, layer) else None
    return _result(machine, layer, conv, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its SMs; see `parts.torchsparse.units`."""
    from .parts.torchsparse.units import run_convolution, run_quantise

    config: Config = machine.config
    _check(machine, layer)
    account = Account.empty()
    if layer.op == "point_op":
        voxels = run_quantise(account, config, layer, timeline)
        return _result(machine, layer, None, account, voxels if config.functional else None)
    conv = convolution_of(layer, Memo())
    chosen = groups_of(config, conv)
    output = run_convolution(account, config, layer, conv, chosen, _has_values(config, layer), timeline)
    return _result(machine, layer, conv, account, output)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of the GPU."""
    return None


def tune(machine: Machine, trace: Trace) -> list[Tuning]:
    """Return, for each sparse convolution with maps, the epsilon and threshold of TorchSparse's grid that cost least.

    The search is that of ``grouping`` "tuned", over 6 values of epsilon and 10 of the threshold; a tie goes to the
    first.
    """
    config: Config = machine.config
    memo = Memo.for_trace(trace)
    found = []
    for layer in trace.layers:
        if layer.op != "sparse_conv3d":
            continue
        conv = convolution_of(layer, memo)
        if conv.is_plain:
            continue
        cost = _costing(config, conv)
        epsilon, threshold, cycles = search(config, conv, cost)
        apart = products(config, conv, groups.separate(conv.sizes, has_centre=conv.has_centre))
        centre = [product(config, conv, conv.outputs, adds=True, name="centre")] if conv.has_centre else []
        found.append(Tuning(layer.name, epsilon, threshold, cycles, cost(apart), cost(centre)))
    return found


def groups_of(config: Config, conv: Convolution) -> list[Group] | None:
    """Return the groups of ``conv``, None where the dataflow has none."""
    if conv.is_plain or config.dataflow != "gather-gemm-scatter":
        return None
    return choose_groups(config, conv, _costing(config, conv))


def kernels_of(config: Config, conv: Convolution) -> list[Kernel]:
    """Return the kernels of ``conv``, in order."""
    is_implicit = config.dataflow == "implicit-gemm" and not conv.is_plain
    return plan(config, conv, groups_of(config, conv), active_offsets(config, conv) if is_implicit else [])


def computed_cycles(config: Config, kernel: Kernel, columns: int) -> int:
    """Return when the last SM is done with ``kernel``, whose outputs have so many ``columns``."""
    if not len(kernel.steps):
        return 0
    step = config.step_cycles(columns)
    taken = {"fill_cycles": len(kernel.steps) * config.fill_cycles}
    taken[f"{config.dtype}_fma_per_clk kernel_efficiency"] = int(kernel.steps.sum()) * step
    check_count(config, taken)
    cycles = config.fill_cycles + kernel.steps * step
    if (cycles == cycles[0]).all():
        return int(cycles[0]) * -(-len(cycles) // config.sm_count)
    free = np.zeros(config.sm_count, np.int64)
    _assign(cycles, free)
    return int(free.max())


def _check(machine: Machine, layer: Layer) -> None:
    if layer.op == "point_op" and layer.attributes["kind"] != "quantise":
        raise InputError(
            f"layer {layer.name}: of point operations {machine.name} runs quantise, not {layer.attributes['kind']}; "
            "choose other layers with --layer, or another machine"
        )


def _has_values(config: Config, layer: Layer) -> bool:
    return config.functional and layer.inputs is not None


def _costing(config: Config, conv: Convolution) -> Callable[[list[Kernel]], int]:
    def cost(kernels: list[Kernel]) -> int:
        account = Account.empty()
        for kernel in kernels:
            _book(account, config, kernel, conv.width)
        return account.cycles

    return cost


def _book(account: Account, config: Config, kernel: Kernel, columns: int) -> None:
    share = config.movement_share if kernel.moves else Fraction(1)
    moved = config.memory_cycles(kernel.dram, kernel.l2, share)
    account.book(config, kernel.cause, computed_cycles(config, kernel, columns), moved)
    account.kernels += 1
    account.tiles += len(kernel.steps)
    account.steps += int(kernel.steps.sum())
    account.rows += kernel.rows
    account.l2 += kernel.l2
    account.dram[kernel.cause] += kernel.dram


def _result(
    machine: Machine, layer: Layer, conv: Convolution | None, account: Account, output: np.ndarray | None
) -> LayerResult:
    config: Config = machine.config
    pairs = 0 if conv is None else sum(conv.sizes)
    macs = 0 if conv is None else pairs * conv.channels * conv.width
    columns = 0 if conv is None else config.columns_of_tile(conv.width)
    multipliers, cycles = config.sm_count * config.fma_per_clk, account.cycles
    counts = {
        "macs": macs,
        "tile_macs": account.steps * config.tile_rows * columns * config.tile_depth,
        "pairs": pairs,
        "gemm_rows": account.rows,
        "padded_rows": account.rows - pairs,
        "kernels": account.kernels,
        "tiles": account.tiles,
        **{f"{cause}_dram_bytes": moved for cause, moved in account.dram.items()},
        "l2_bytes": account.l2,
    }
    value_bits = 8 * config.value_bytes
    energy, warnings = energy_of(machine.energy, cycles, {"sm": config.sm_count}, counts, word_bits=value_bits)
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=() if conv is None else layer.shape,
        samples=layer.samples,
        vectors=len(layer.inputs) if conv is None else conv.outputs,
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=macs / multipliers,
        macs=macs,
        utilization=macs / (multipliers * cycles) if cycles else 0.0,
        load_balance=None,
        cycles_by_cause={"gpu": dict(account.causes)},
        cycles_per_unit={"gpu": {cause: [spent] for cause, spent in account.causes.items()}},
        counts=counts,
        energy_j=energy,
        traffic_bytes={"dram": sum(account.dram.values()), "l2": account.l2},
        storage_bits={"weight": layer.kept.size * value_bits, "bias": layer.has_bias * layer.shape[0] * value_bits}
        if layer.op != "point_op"
        else {},
        warnings=warnings,
    )
    return result if output is None else result.with_output(output)


@njit(cache=True)
def _assign(cycles, free):  # type: ignore[no-untyped-def]
    for tile in range(len(cycles)):
        free[first_free(free)] += cycles[tile]
