"""PointAcc: an accelerator of point cloud networks that maps, moves and multiplies in three units side by side.

The mapping unit finds which point meets which, by ranking alone (`parts.pointacc.mapping`; a hash table instead:
`parts.pointacc.hashing`). The memory management unit streams the rows of features that the maps ask for, through a
cache (`parts.pointacc.memory`). A systolic array multiplies them, and the three overlap (`parts.pointacc.matrix`).
Every row is streamed: zeros of weights and features are multiplied like any other number, so that pruning helps where
it makes a layer narrower.

Source: Lin et al., "PointAcc", MICRO 2021. What is published, derived and assumed: docs/background/pointacc.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.rules import UNTRAINED
from .parts.energy import energy_of
from .parts.pointacc import hashing as pointacc_hash
from .parts.pointacc import mapping as pointacc_mapping
from .parts.pointacc import maps as pointacc_maps
from .parts.pointacc.account import COUNTS, Account, count
from .parts.pointacc.config import Config
from .parts.pointacc.maps import Mapping
from .parts.pointacc.matrix import check_units, compose
from .parts.pointacc.memory import Schedule, Traffic, traffic
from .parts.pointacc.values import values
from .parts.pointacc.work import Work, work_of

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

__all__ = ["COUNTS", "ERT_BASE", "OPS", "Config", "area_mm2", "events", "fast"]

OPS = ("sparse_conv3d", "point_op", "linear", "matmul")
MEMORIES = {"feature": "feature_cache", "weight": "weight_buffer", "sum": "output_buffer"}
ERT_BASE = "pointacc-event"  # which energies an Accelergy reference table replaces


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``: the units' closed forms, and the cache's every lookup."""
    config: Config = machine.config
    if layer.op == "point_op":
        mapping = _map(config, layer, memo)
        assert mapping.output is not None
        output = mapping.output if config.functional else None
        account = Account(compose(config, mapping), count(mapping), len(mapping.output), output)
        return _result(machine, layer, None, account)
    mapping = _map(config, layer, memo) if layer.op == "sparse_conv3d" else Mapping()
    work = work_of(config, layer, memo)
    schedule, moved = _moved(config, work, memo)
    output = memo((layer, "values"), lambda: values(layer, memo)) if config.functional else None
    counts = count(mapping, work, schedule, moved, config)
    account = Account(compose(config, mapping, moved, schedule), counts, work.outputs, output)
    return _result(machine, layer, work, account)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its units; see `parts.pointacc.datapath`."""
    from .parts.pointacc import datapath as pointacc_datapath

    config: Config = machine.config
    work = None if layer.op == "point_op" else work_of(config, layer, Memo())
    return _result(machine, layer, work, pointacc_datapath.run(config, layer, work, timeline))


def area_mm2(machine: Machine) -> float | None:
    """Return the chip's area where the energy table has one with this array, as much SRAM and this merger."""
    if machine.energy is None or machine.config.mapper != "merge-sort":
        return None
    config: Config = machine.config
    sram = config.cache_bytes + config.weight_buffer_bytes + config.output_buffer_bytes + config.mapping_buffer_bytes
    unit = f"chip_{config.rows}x{config.columns}_{sram >> 10}_kib_merger_{config.merger_width}"
    if all(cell.unit != unit for cell in machine.energy.area):
        return None
    return machine.energy.area_mm2({unit: 1})


def _map(config: Config, layer: Layer, memo: Memo) -> Mapping:
    known = config.merge_unit, config.hash_unit, config.mapper, config.mapping_buffer_bytes
    sizes = config.key_bytes, config.index_bytes, config.coordinate_bytes
    if layer.op == "point_op":
        return memo(  # type: ignore[no-any-return]
            (layer, "mapping", *known, *sizes), lambda: pointacc_maps.run_point_op(config, layer, pointacc_mapping)
        )
    return memo(  # type: ignore[no-any-return]
        (layer, "mapping", *known, *sizes),
        lambda: pointacc_maps.build_map(config, layer, pointacc_mapping, pointacc_hash),
    )


def _moved(config: Config, work: Work, memo: Memo) -> tuple[Schedule, Traffic]:
    """Return the nest of ``work`` and what it moves; layers of the same widths on the same map move alike."""

    def build() -> tuple[Schedule, Traffic]:
        schedule = Schedule.of(config, work)
        return schedule, traffic(config, work, schedule)

    layer = work.key, work.map_indices, work.channels, work.width, work.has_bias, work.weights_together
    fused = work.inputs_on_chip, work.outputs_on_chip, work.tile
    hardware = (
        config.rows, config.columns, config.word_bytes, config.sum_bytes, config.index_bytes, config.cache_bytes,
        config.cache_block_rows, config.weight_buffer_bytes, config.output_buffer_bytes, config.loop_order,
        config.output_tile, config.flow,
    )  # fmt: skip
    return memo(("moved", *layer, *fused, *hardware), build)  # type: ignore[no-any-return]


def _result(machine: Machine, layer: Layer, work: Work | None, account: Account) -> LayerResult:
    config: Config = machine.config
    time, counts = account.time, account.counts
    check_units(config, time.mapping, time.stream + time.fill, time.memory)
    moved = counts["dram_read_bytes"] + counts["dram_write_bytes"]
    bits = 8 * config.word_bytes
    energy, misfits = energy_of(machine.energy, time.cycles, {"chip": 1}, counts, word_bits=bits)
    warnings = [*([] if work is None else _warnings(config, layer, work)), *misfits]
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=() if work is None else layer.shape,
        samples=layer.samples,
        vectors=account.vectors,
        cycles=time.cycles,
        latency_s=time.cycles / config.clock_hz,
        theoretical_cycles=counts["macs"] / config.multipliers,
        macs=counts["macs"],
        utilization=counts["macs"] / (config.multipliers * time.cycles) if time.cycles else 0.0,
        load_balance=None,
        cycles_by_cause=time.by_cause,
        cycles_per_unit={
            unit: {cause: [cycles] for cause, cycles in causes.items()} for unit, causes in time.by_cause.items()
        },
        counts=counts,
        energy_j=energy,
        traffic_bytes={
            **{
                memory: counts[f"{name}_sram_read_bytes"] + counts[f"{name}_sram_write_bytes"]
                for name, memory in MEMORIES.items()
            },
            "dram": moved,
        },
        storage_bits={
            "weight": 0 if layer.op in UNTRAINED else layer.kept.size * bits,
            "bias": 0 if work is None else layer.shape[0] * bits * layer.has_bias,
        },
        warnings=warnings,
    )  # fmt: skip
    return result if account.output is None else result.with_output(account.output)


def _warnings(config: Config, layer: Layer, work: Work) -> list[str]:
    if config.loop_order != "output-tile" or (config.flow == "gather-scatter" and work.map_indices == 2):
        return []
    tile = min(config.output_tile, work.outputs) * min(work.width, config.columns) * config.sum_bytes
    if tile <= config.output_buffer_bytes:
        return []
    return [
        f"the sums of a tile take {tile} bytes of {config.output_buffer_bytes} in the output buffer: sent to DRAM and "
        "back at each offset; choose a smaller output_tile"
    ]
