"""The figures of the EIE paper as the simulator gives them, by the keys of ``papers/eie.toml``.

Each function runs the simulator and returns values with a note, empty where there is nothing to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..models import eie, load_machine, vary
from ..simulator.machine import Machine
from ..simulator.memo import Memo
from ..simulator.result import LayerResult, Result
from ..simulator.simulate import simulate
from ..workloads.files.eie_dump import load_eie_dump
from ..workloads.formats import csc
from ..workloads.synth import EIE_LAYERS, eie_layer
from ..workloads.trace import Trace
from .published import Figures

ROW_SIGMA = 0.13  # gives the rows of Alex-8 the spread of the real layer (std 139 at a mean of 1,051)
QUEUES = (2, 8, 256)
PES = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Run:
    """A layer of Table III on 64 PEs: ``base``, by queue depth, by PE count, and the share idle in lock-step."""

    base: LayerResult
    by_queue: dict[int, LayerResult]
    by_pes: dict[int, LayerResult]
    idle_lock_step: float


def dump_figures(folder: Path) -> Figures:
    """Return the figures of the layer in the authors' dump, on several queue depths and PE counts."""
    trace = load_eie_dump(folder)
    machine, memo = load_machine("eie-64pe"), Memo.for_trace(trace)
    layer = _run(machine, trace, memo)
    assert layer.output is not None
    values: dict[str, float] = {
        "cycles": layer.cycles,
        "actual_us": layer.latency_s * 1e6,
        "theoretical_us": _theoretical_us(layer, machine),
        "utilization": layer.utilization,
        "class": int(layer.output[0].argmax()),
        **{name: layer.counts[name] for name in ("macs", "ptr_reads", "spmat_reads")},
        **{f"cycles_queue_{depth}": _run(machine, trace, memo, queue_depth=depth).cycles for depth in (2, 4, 16)},
        **{f"cycles_pe_{count}": _run(machine, trace, memo, pe_count=count).cycles for count in (1, 4, 16, 256)},
    }
    return {key: (value, "") for key, value in values.items()}


def layer_runs() -> tuple[dict[str, Run], dict[str, LayerResult], Result, Result]:
    """Return the nine layers with uniform rows, those with unequal rows, and Alex-7 on 64 PEs and on the 256 of 28 nm.

    One layer is in memory at a time.
    """
    machine = load_machine("eie-64pe")
    uniform, unequal = {}, {}
    for layer in EIE_LAYERS:
        trace = eie_layer(layer.name)
        memo = Memo.for_trace(trace)
        by_queue = {depth: _run(machine, trace, memo, queue_depth=depth) for depth in QUEUES}
        by_pes = {count: _run(machine, trace, memo, pe_count=count) for count in PES}
        uniform[layer.name] = Run(by_queue[machine.config.queue_depth], by_queue, by_pes, _idle_in_lock_step(trace, 64))
        if layer.name == "Alex-7":
            alex7 = simulate(machine, trace, memo=memo)
            alex7_256 = simulate(load_machine("eie-256pe"), trace, memo=memo)
        unequal_trace = eie_layer(layer.name, row_sigma=ROW_SIGMA)
        unequal[layer.name] = _run(machine, unequal_trace, Memo.for_trace(unequal_trace))
    return uniform, unequal, alex7, alex7_256


def layer_figures(uniform: dict[str, Run], unequal: dict[str, LayerResult]) -> dict[str, dict[str, float]]:
    """Return the times of each layer in microseconds, by layer and figure."""
    machine = load_machine("eie-64pe")
    return {
        name: {
            "theoretical": _theoretical_us(run.base, machine),
            "uniform": run.base.latency_s * 1e6,
            "rows": unequal[name].latency_s * 1e6,
            "ratio": _ratio(run.base),
        }
        for name, run in uniform.items()
    }


def table_figures(alex7: Result, alex7_256: Result) -> Figures:
    """Return power, area and frames of Tables II and V from runs of Alex-7 at 45 and at 28 nm."""
    energy = load_machine("eie-64pe").energy
    assert energy is not None
    pe = energy.energy(1, {"pe": 1, "lnzd_node": 0}, {}).total  # joules a cycle
    values = {
        "pe_power_mw": pe * load_machine("eie-64pe").config.clock_hz * 1e3,
        "pe_area_um2": (energy.area_mm2({"pe": 1, "lnzd_node": 0}) or 0.0) * 1e6,
    }
    for suffix, result in (("", alex7), ("_256", alex7_256)):
        total = result.total
        assert total.energy_j is not None and total.area_mm2 is not None
        values |= {
            f"power_w{suffix}": total.energy_j.total / total.latency_s,
            f"area_mm2{suffix}": total.area_mm2,
            f"frames_per_s{suffix}": 1 / total.latency_s,
            f"frames_per_j{suffix}": 1 / total.energy_j.total,
        }
    return {key: (value, "") for key, value in values.items()}


def trend_figures(uniform: dict[str, Run], unequal: dict[str, LayerResult]) -> Figures:
    """Return what queue depth and PE count do to the nine layers, as shares and counts."""
    runs = list(uniform.values())
    balance = {depth: float(np.mean([_balance(run.by_queue[depth]) for run in runs])) for depth in QUEUES}
    most = PES[-1]
    scaling = {name: run.by_pes[1].cycles / run.by_pes[most].cycles / most for name, run in uniform.items()}
    paddings = [[_padding(run.by_pes[count]) for count in PES] for run in runs]
    lowest = min((name for name in scaling if name != "NT-We"), key=lambda name: scaling[name])
    return {
        "mean_ratio": (float(np.mean([_ratio(run.base) for run in runs])), ""),
        "mean_ratio_rows": (float(np.mean([_ratio(layer) for layer in unequal.values()])), ""),
        "idle_queue_2": (1 - balance[2], ""),
        "idle_lock_step": (float(np.mean([run.idle_lock_step for run in runs])), "from the entries of each column"),
        "gain_2_to_8": (balance[8] - balance[2], ""),
        "gain_8_to_256": (balance[256] - balance[8], ""),
        "scaling": (
            float(np.mean([value for name, value in scaling.items() if name != "NT-We"])),
            f"lowest: {lowest}, {scaling[lowest]:.2f}",
        ),
        "scaling_nt_we": (scaling["NT-We"], "600 rows leave 256 PEs two or three each"),
        "less_padding": (sum(all(np.diff(shares) <= 0) for shares in paddings), ""),
        "worse_balance": (sum(_balance(run.by_pes[most]) < _balance(run.by_pes[1]) for run in runs), ""),
    }


def limit_figures(uniform: dict[str, Run]) -> Figures:
    """Return what the paper's layers need of memories that are too small for them; 0 where no warning says so."""
    machine = load_machine("eie-64pe")
    config = machine.config

    def pointers(name: str) -> int:
        return int(uniform[name].base.storage_bits["pointers"] // config.pe_count // config.pointer_bits)

    def warned(name: str, memory: str, value: float) -> tuple[float, str]:
        warnings = [warning for warning in uniform[name].base.warnings if warning.startswith(f"{memory}:")]
        return (value, warnings[0]) if warnings else (0.0, f"no warning of {memory}")

    alex = [uniform[name].base for name in ("Alex-6", "Alex-7", "Alex-8")]
    together = [warning for warning in eie.network_warnings(machine, alex) if warning.startswith("Ptr SRAM")]
    outputs = -(-uniform["NT-Wd"].base.shape[0] // config.pe_count)
    entries = uniform["VGG-6"].base.storage_bits["codes"] / config.code_bits / config.pe_count
    return {
        "alex_pointers": (
            sum(pointers(name) for name in ("Alex-6", "Alex-7", "Alex-8")) if together else 0.0,
            together[0] if together else "no warning of Ptr SRAM",
        ),
        "vgg_pointers": warned("VGG-6", "Ptr SRAM", pointers("VGG-6")),
        "vgg_entries": warned("VGG-6", "pointers", entries),
        "wd_accumulators": warned("NT-Wd", "accumulators", outputs),
    }


def _run(machine: Machine, trace: Trace, memo: Memo, **overrides: int) -> LayerResult:
    return simulate(vary(machine, **overrides), trace, memo=memo).layers[0]


def _idle_in_lock_step(trace: Trace, pes: int) -> float:
    """Return the share of PE cycles without an entry where all PEs wait for the slowest after every activation."""
    layer = trace.layers[0]
    entries = csc.count(layer.kept, pes).entries[layer.inputs[0] != 0]
    return 1 - float(entries.sum()) / (pes * int(np.maximum(entries.max(axis=1), 1).sum()))


def _theoretical_us(layer: LayerResult, machine: Machine) -> float:
    return float(layer.theoretical_cycles / machine.config.clock_hz * 1e6)


def _ratio(layer: LayerResult) -> float:
    return layer.cycles / layer.theoretical_cycles


def _padding(layer: LayerResult) -> float:
    return layer.counts["padding"] / layer.counts["entries"]


def _balance(layer: LayerResult) -> float:
    assert layer.load_balance is not None
    return layer.load_balance
