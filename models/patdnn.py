"""PatDNN: pattern-pruned convolutions on the vector units of a mobile processor, with and without each technique.

Code goes through blocks of filters and tiles of outputs; a tile's outputs stay in registers while kernel after kernel
adds to them. What the techniques change:

- no optimisation: the kernels of a filter come in the order of their channels; for each the code looks up its pattern
  and jumps there, and a jump to another place than the last is lost time. A multiply-add loads what it multiplies.
- filter-kernel reorder: kernels of one pattern follow one another, so that the pattern changes at most once a pattern
  and filter; filters of one length are neighbours and are dealt to the cores in turn.
- elimination of redundant loads: within a kernel an input vector that several output rows need is loaded once; among
  the filters of a block the kernels of one pattern and channel load it once.
- tuning: tile sizes, filter block and loop order are chosen for each layer, the fastest by this model; where dense
  code is faster still, that is taken.

Filters may also lie side by side in the lanes of a vector (``lane_filters``, of a GPU): kernels go in lockstep, those
of different patterns one after another, and a filter that has no more kernels waits.

A 1 x 1 convolution has one pattern: only connectivity is left out. Kernels of other sizes are patterns of their own. A
linear layer is computed in full, lanes along its outputs. Values are float32; ``word_bytes`` sets what they take to
keep and to move.

Source: Niu et al., ASPLOS 2020 (arXiv 2001.00138), section 5. The paper gives no cycle model: this one is ours, its
constants are those of the processors as far as they are known, and none is fitted to the paper's speed-ups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..simulator.result import LayerResult
from ..workloads.lowering import lower
from .parts.counting import check_count
from .parts.dense import dense_output
from .parts.energy import energy_of
from .parts.patdnn.config import Config
from .parts.patdnn.plan import Geometry, Kernels, Plan, candidates, kernels_of
from .parts.patdnn.run import CAUSES, COUNTS, Run
from .parts.patdnn.timing import Layout
from .parts.patdnn.traffic import Traffic

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

__all__ = ["Config", "area_mm2", "events", "fast", "tuned"]

ERT_BASE = "mobile-45nm-event"  # which energies an Accelergy reference table replaces


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences of `parts.patdnn.timing`."""
    config: Config = machine.config

    def kernels(code: Config) -> Kernels:
        stored = (layer, "patdnn", code.sparse, code.reorder, code.pattern_codes, code.word_bytes)
        found: Kernels = memo(stored, lambda: kernels_of(layer, code))
        return found

    layout, plan = compiled(layer, config, kernels)
    output = memo((layer, "dense output"), lambda: dense_output(layer, lower(layer))) if config.functional else None
    return _result(machine, layer, layout, plan, layout.run(plan), output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping the units of `parts.patdnn.units`."""
    from .parts.patdnn.units import run_units

    layout, plan = compiled(layer, machine.config, lambda code: kernels_of(layer, code))
    run, sums = run_units(layer, layout.kernels, layout.geometry, plan, layout.config, timeline)
    return _result(machine, layer, layout, plan, run, sums)


def compiled(layer: Layer, config: Config, kernels: Callable[[Config], Kernels]) -> tuple[Layout, Plan]:
    """Return the code of ``layer``: its kernels as they are laid out, and the plan.

    With ``tune``, a layer that is faster with nothing left out gets dense code.
    """
    geometry = Geometry.of(layer)
    layout = Layout(kernels(config), geometry, config)
    plan = tuned(layout)
    if config.tune and config.sparse and not geometry.is_linear:
        cycles = layout.cycles(plan)
        # No dense code is faster than its multiply-adds: most layers need not be tried.
        if cycles * config.multipliers > layout.kernels.weight.size * geometry.positions:
            full = msgspec.structs.replace(config, sparse=False)
            dense = Layout(kernels(full), geometry, full)
            best = tuned(dense)
            if dense.cycles(best) < cycles:
                return dense, best
    return layout, plan


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of these cores."""
    return None


def tuned(layout: Layout) -> Plan:
    """Return the plan of a layer: the configured one, or with ``tune`` the fastest of all that fit the registers.

    The first of several that are as fast; plans that a small layer makes the same are tried once.
    """
    config, kept = layout.config, layout.kernels.kept
    given = Plan.of(config)
    if not config.tune:
        return given
    per_filter = -(-int(kept.max(initial=0)) // config.vector_width)
    tried: dict[Plan, int] = {}
    for plan in candidates(config):
        limited = layout.limited(plan)
        size = 1 if config.lane_filters > 1 else limited.block
        fits = size * (limited.rows * limited.vectors + per_filter) + 2 <= config.registers
        if limited not in tried and (fits or not tried):
            tried[limited] = layout.cycles(limited)
    return min(tried, key=tried.__getitem__)


def _result(
    machine: Machine,
    layer: Layer,
    layout: Layout,
    plan: Plan,
    run: Run,
    output: np.ndarray | None,
) -> LayerResult:
    kernels, geometry, config = layout.kernels, layout.geometry, layout.config
    traffic = Traffic.of(kernels, geometry, plan, run, config)
    computed = run.cycles
    cycles = max(computed, traffic.dram_cycles(config))
    check_count(config, {"dram_bytes_per_s dram_efficiency clock_hz": cycles}, times=config.cores)
    each = np.column_stack([run.causes, computed - run.done, np.full(config.cores, cycles - computed)])
    macs = int(kernels.weights_of.sum()) * geometry.positions
    counts = {"macs": macs} | {name: int(value) for name, value in zip(COUNTS, run.counts, strict=True)}
    loads = counts["input_loads"] + counts["weight_loads"] + counts["spills"]
    counts |= {
        "lane_fmas": counts["fmas"] * config.vector_width,
        "l1_words": (loads + counts["stores"]) * config.vector_width,
        "l1_fill_bytes": traffic.l1_fill,
        "dram_read_bytes": traffic.dram_read,
        "dram_write_bytes": traffic.dram_write,
    }
    word_bits = 8 * config.word_bytes
    energy, warnings = energy_of(machine.energy, cycles, {"core": config.cores}, counts, word_bits=word_bits)
    if counts["spills"]:
        warnings.append(
            f"registers: tiles of {plan.rows} x {plan.vectors} vectors of {plan.block} filters need more than "
            f"{config.registers}; choose smaller tiles"
        )
    used = plan.limited(geometry, kernels, config)
    busy = int(run.done.sum())
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(kernels.order) if geometry.is_linear else geometry.positions,
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=macs / config.multipliers,
        macs=macs,
        utilization=macs / (config.multipliers * cycles) if cycles else 0.0,
        load_balance=busy / (config.cores * computed) if computed else 1.0,
        cycles_by_cause={"core": {cause: int(each[:, i].sum()) for i, cause in enumerate(CAUSES)}},
        cycles_per_unit={"core": {cause: each[:, i].tolist() for i, cause in enumerate(CAUSES)}},
        counts=counts,
        energy_j=energy,
        traffic_bytes={"l1": traffic.l1_fill, "dram": traffic.dram_read + traffic.dram_write},
        storage_bits=kernels.stored_bits,
        tiling={
            "tile_rows": used.rows,
            "tile_vectors": used.vectors,
            "filter_block": used.block,
            "tiles_outside": int(used.order == "tiles"),
            "patterns": len(kernels.patterns),
            "dense_code": int(not config.sparse or geometry.is_linear),
        },
        warnings=warnings,
    )
    return result if output is None else result.with_output(output)
