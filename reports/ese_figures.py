"""The figures of the ESE paper as the simulator gives them, by the keys of ``papers/ese.toml``."""

from __future__ import annotations

import numpy as np

from ..models import ese, load_machine, vary
from ..models.parts.ese.program import Program
from ..models.parts.ese.timing import Times
from ..simulator.machine import Machine
from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..simulator.simulate import simulate
from ..workloads.pruning import balanced, magnitude
from ..workloads.synth.ese import ENTRIES, ese_lstm, unequal_rows
from ..workloads.trace import Layer, Trace
from .published import Figures

SEEDS = 10
LSTM_SEEDS = 3
SIGMAS = {"0": 0.0, "01": 0.1, "02": 0.2, "04": 0.4}
DEPTHS = (1, 2, 4, 8, 16, 64)


def lstm_figures() -> Figures:
    """Return times and rates of ESE's LSTM, one step of 32 voice vectors: the median of three seeds."""
    machine = load_machine("ese")
    results = [simulate(machine, ese_lstm(seed=seed)).layers[0] for seed in range(LSTM_SEEDS)]
    layer = sorted(results, key=lambda result: result.cycles)[len(results) // 2]
    assert layer.energy_j is not None
    spread = f"{min(r.latency_s for r in results) * 1e6:.1f} to {max(r.latency_s for r in results) * 1e6:.1f} us"
    weights, padding = 4 * 1024 * (153 + 512) + 512 * 1024, layer.counts["padding"]
    return {
        "entries": (layer.counts["entries"], f"drawn to this size; {padding / ENTRIES:.1%} are padding"),
        "theoretical_us": (layer.theoretical_cycles / machine.config.clock_hz * 1e6, ""),
        "real_us": (layer.latency_s * 1e6, f"one step from an idle engine; {spread} over {LSTM_SEEDS} seeds"),
        "gops": (2 * layer.counts["entries"] * layer.samples / layer.latency_s / 1e9, ""),
        "tops": (2 * weights * layer.samples / layer.latency_s / 1e12, ""),
        "power_w": (layer.energy_j.total / layer.latency_s, ""),
    }


def schedule_figures() -> Figures:
    """Return the time of each kind of matrix, and of the whole where other things are assumed."""
    machine, trace = load_machine("ese"), ese_lstm()
    memo = Memo.for_trace(trace)
    by_start, by_end = matrix_times(machine, trace.layers[0])

    def us(**fields: object) -> float:
        return simulate(vary(machine, **fields), trace, memo=memo).total.latency_s * 1e6

    return {
        "input_matrix": (float(np.mean([by_start[f"x_{gate}"] for gate in "fgo"])), "all but the first"),
        "hidden_matrix": (float(np.mean([by_end[f"r_{gate}"] for gate in "fgo"])), "all but the first"),
        "projection": (
            by_end["p"],
            "it waits for the last gate to pass, and its 16 rows a PE leave a fifth of the columns empty",
        ),
        "wide": (us(outputs_per_cycle=16), "16 results a cycle, as many as there are multipliers from memory"),
        "serial": (us(schedule="serial"), ""),
        "gates": (us(order="gate-by-gate"), ""),
        "one_memory": (us(dram_bytes_per_s=12.8e9), "one DDR3 memory in place of two"),
        "no_stall": (us(dram_bytes_per_s=1e15), "weights as if on chip"),
    }


def queue_figures() -> Figures:
    """Return how much of the PEs' time is lost to waiting within a matrix, by queue depth, and what 8 places save."""
    machine, trace = load_machine("ese"), ese_lstm()
    memo = Memo.for_trace(trace)
    lost = {}
    for depth in DEPTHS:
        balance = simulate(vary(machine, queue_depth=depth), trace, memo=memo).layers[0].load_balance
        assert balance is not None
        lost[depth] = 1 - balance
    shown = ", ".join(f"{depth}: {share:.1%}" for depth, share in lost.items())
    return {
        "saved_1_to_8": (lost[1] - lost[8], f"idle by depth: {shown}"),
        "saved_8_to_64": (lost[8] - lost[64], ""),
    }


def balance_figures() -> Figures:
    """Return what balanced pruning gains over one threshold, by how unequal rows are: means over ten seeds."""
    machine = load_machine("ese", energy="")
    figures: Figures = {}
    for key, sigma in SIGMAS.items():
        gains = [_gain(machine, sigma, seed) for seed in range(SEEDS)]
        note = f"mean of {SEEDS} seeds, standard deviation {np.std(gains, ddof=1):.3f}"
        figures[f"gain_{key}"] = (float(np.mean(gains)), note)
    whole = {
        pruning: simulate(machine, ese_lstm(row_sigma=0.2, pruning=pruning)).total.cycles
        for pruning in ("balanced", "global")
    }
    figures["gain_lstm"] = (whole["global"] / whole["balanced"], "all nine matrices, element-wise work included")
    return figures


def matrix_times(machine: Machine, layer: Layer) -> tuple[dict[str, float], dict[str, float]]:
    """Return the microseconds of each matrix of the first step of ``layer``, by name, counted in two ways.

    From its start to that of the next, of all but the last; from the end of the one before to its own, of all but the
    first.
    """
    config = machine.config
    program = Program.of(layer, config)
    cycles = np.array([ese.spmv_of(matrix, config).cycles for matrix in program.matrices])
    fetch, passes, waits = ese.follows(program, config, 1)
    count = len(cycles)
    times = Times.of(cycles, fetch[:count], passes[:count], waits[:count], config.schedule == "serial")
    names, unit = [matrix.name for matrix in program.matrices], 1e6 / config.clock_hz
    by_start = dict(zip(names[:-1], (np.diff(times.start) * unit).tolist(), strict=True))
    return by_start, dict(zip(names[1:], (np.diff(times.end) * unit).tolist(), strict=True))


def _gain(machine: Machine, sigma: float, seed: int) -> float:
    """Return the time of multiplying a (1024, 512) matrix, 10 % kept by one threshold, over that of a balanced one."""
    rng = np.random.default_rng(seed)
    weight = unequal_rows(rng, 1024, 512, sigma)
    inputs = 1 - rng.random((1, 512), np.float32)
    full = np.ones(weight.shape, bool)
    masks = {"global": magnitude(weight, full, 0.9), "balanced": balanced(weight, full, 0.9, machine.config.pe_count)}
    spans = {}
    for name, mask in masks.items():
        layer = Layer(name=name, op="linear", weight=np.where(mask, weight, np.float32(0)), inputs=inputs)
        spans[name] = _multiplying(simulate(machine, Trace(name=name, layers=(layer,))).layers[0])
    return spans["global"] / spans["balanced"]


def _multiplying(layer: LayerResult) -> int:
    """Return the cycles without those that the PEs wait for weights and for the element-wise unit."""
    causes = layer.cycles_per_unit["pe"]
    return layer.cycles - causes["memory"][0] - causes["element_wise"][0]
