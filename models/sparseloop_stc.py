"""The sparse tensor core of Sparseloop's design study: N:M weights, stationary, on 1,024 multipliers and one memory.

Four sub-partitions of 16 rows x 16 multipliers. A *step* is one column (an input vector) against 16 kept weights of
each of 64 rows: every row picks its 16 operands out of the 16 M/N consecutive inputs that its groups span, and adds one
sum to its accumulator. Rows choose differently, so shared memory delivers all 16 M/N inputs; in the same cycle it
delivers a share of the next weights, 1,024 of them (and their metadata) in the 128 columns for which the present ones
stay. It has 42 words a clock, and steps overlap nothing else:

    cycles = ceil(R * steps * C / 64 * max(1, (16 M/N + 8 + md) / 42)),    steps = ceil(K / (16 M/N))

for R rows, a reduction of K and C columns; md, the words of metadata a step, is the bits of a kept weight's metadata:
none dense, 2 for 2:4, 4 for 2:6 and 2:8 (3 kept in 4), 2 for 2:6 in run-length. A step of fewer rows takes that share
of a cycle: the rest is left to the next one. DRAM costs energy, not time.

Where operands lie is chosen as the study's mapper does, by the least traffic: see `Mapping`.
Source: Wu et al., "Sparseloop", MICRO 2022, section 7, and its artifact (architecture, dataflow and energies). The
closed form is derived from its reference outputs.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.result import LayerResult
from ..workloads.lowering import lower, reduction_axis
from .parts.dense import dense_output
from .parts.energy import energy_of
from .parts.sparseloop_stc.mapping import Config, Gemm, Mapping, Scheme, Tally

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.result import Energy
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "sparseloop-stc-45nm-event"  # which energies an Accelergy reference table replaces


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the formulas above."""
    config: Config = machine.config
    products = memo((layer, "lowered"), lambda: lower(layer))
    scheme = Scheme.of(layer, config.metadata)
    tally = Tally()
    for product in products:
        gemm = Gemm.of(layer, scheme, len(product.vectors))
        mapping = Mapping.of(config, scheme, gemm)
        tally.macs += gemm.rows * gemm.kept * gemm.columns
        tally.row_steps += gemm.rows * gemm.steps(config, scheme) * gemm.columns
        tally.loaded += gemm.rows * gemm.kept * mapping.column_tiles(gemm)
        tally.fetched_weights += gemm.rows * gemm.kept * mapping.weight_fetches(gemm)
        tally.fetched_inputs += gemm.reduction * gemm.columns * mapping.input_fetches(gemm)
    slowest = max(Fraction(1), scheme.words_per_step(config) / config.smem_words_per_clk)
    tally.cycles = math.ceil(tally.row_steps * slowest / config.rows)
    output = memo((layer, "dense output"), lambda: dense_output(layer, products))
    return _result(machine, layer, tally, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, step by step; see `parts.sparseloop_stc.units`."""
    from .parts.sparseloop_stc import units as sparseloop_units

    tally, output = sparseloop_units.run_layer(machine.config, layer, timeline)
    return _result(machine, layer, tally, output)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of this design."""
    return None


def _result(machine: Machine, layer: Layer, tally: Tally, output: np.ndarray) -> LayerResult:
    config: Config = machine.config
    scheme = Scheme.of(layer, config.metadata)
    products = layer.shape[0] if layer.op == "matmul" else 1
    gemm = Gemm.of(layer, scheme, len(output) // products)
    outputs = math.prod(layer.shape[: reduction_axis(layer)])  # of all products
    counts = _counts(config, scheme, tally, outputs=output.size, biases=outputs * layer.has_bias)
    energy, warnings = _energy(machine, scheme, tally.cycles, counts)
    if not Mapping.of(config, scheme, gemm).fits:
        warnings.append(
            f"shared memory: weights of {min(config.rows, gemm.rows)} rows and one input vector exceed its "
            f"{config.smem_bytes} bytes; the reduction is not cut"
        )
    busy = -(-tally.row_steps // config.rows)
    compute = min(busy, -(-tally.macs // config.multipliers))
    causes = {"compute": compute, "padding": busy - compute, "smem": tally.cycles - busy}
    stored = outputs * gemm.kept
    data = counts["smem_reads"] + counts["smem_writes"]
    metadata = counts["metadata_reads"] + counts["metadata_writes"]
    dram = counts["dram_reads"] + counts["dram_metadata_reads"] + counts["dram_writes"]
    return LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(output),
        cycles=tally.cycles,
        latency_s=tally.cycles / config.clock_hz,
        theoretical_cycles=tally.macs / config.multipliers,
        macs=tally.macs,
        utilization=tally.macs / (config.multipliers * tally.cycles),
        load_balance=None,
        cycles_by_cause={"array": causes},
        cycles_per_unit={"array": {cause: [cycles] for cause, cycles in causes.items()}},
        counts=counts,
        energy_j=energy,
        traffic_bytes={
            name: -(-words * config.word_bits // 8)
            for name, words in (("smem", data), ("smem_metadata", metadata), ("dram", dram))
        },
        storage_bits={
            "values": stored * config.word_bits,
            "metadata": stored * scheme.bits,
            "bias": outputs * config.word_bits * layer.has_bias,
        },
        warnings=[*_pattern_warnings(layer, scheme, config), *warnings],
    ).with_output(output)


def _counts(config: Config, scheme: Scheme, tally: Tally, outputs: int, biases: int) -> dict[str, int]:
    """Return the words that each memory read and wrote, of ``word_bits``."""
    biased = outputs if biases else 0
    inputs = Fraction(tally.row_steps * config.reduction_lanes * scheme.m, scheme.n * config.rows)

    def metadata(weights: int) -> int:
        return -(-weights * scheme.bits // config.word_bits)

    return {
        "macs": tally.macs,
        "weight_register_reads": tally.macs,
        "weight_register_writes": tally.loaded,
        "register_metadata_reads": metadata(tally.macs),  # which of its inputs a multiplier selects
        "register_metadata_writes": metadata(tally.loaded),
        "accumulator_reads": tally.row_steps + biased,  # an addition reads, but the first; then the sum is read once
        "accumulator_writes": tally.row_steps + biased,
        "smem_reads": tally.loaded + math.ceil(inputs),
        "smem_writes": tally.fetched_weights + tally.fetched_inputs,
        "metadata_reads": metadata(tally.loaded),
        "metadata_writes": metadata(tally.fetched_weights),
        "dram_reads": tally.fetched_weights + tally.fetched_inputs + biases,
        "dram_metadata_reads": metadata(tally.fetched_weights),
        "dram_writes": outputs,
    }


def _energy(machine: Machine, scheme: Scheme, cycles: int, counts: dict[str, int]) -> tuple[Energy | None, list[str]]:
    config, table = machine.config, machine.energy
    if table is not None and scheme.dense and config.dense_energy:
        from .loader import load_energy_table

        table = load_energy_table(config.dense_energy, machine.module, machine.name)
    return energy_of(table, cycles, {"array": 1}, counts, word_bits=config.word_bits)


def _pattern_warnings(layer: Layer, scheme: Scheme, config: Config) -> list[str]:
    kind, name = layer.pattern.kind, f"{scheme.n}:{scheme.m}"
    if not scheme.dense and config.metadata == "run-length":
        far = _long_runs(layer, scheme)
        return [f"{far} weights of {name} follow more than {(1 << scheme.bits) - 1} zeros, which their run-length of "
                f"{scheme.bits} bits cannot tell; they are counted as the others"] if far else []  # fmt: skip
    if not scheme.dense or kind == "dense":
        return []
    if kind == "n:m":
        pattern = layer.pattern
        if pattern.n == pattern.m:
            return []
        return [f"pattern: {pattern.n}:{pattern.m} lies along axis {pattern.axis}, not along the inputs: run dense"]
    return [f"pattern: weights are {kind} and promise no N:M: run dense"] if layer.sparsity else []


def _long_runs(layer: Layer, scheme: Scheme) -> int:
    """Count the kept weights of ``layer`` before which a group has more zeros than a run-length can tell."""
    lanes = np.moveaxis(layer.kept != 0, reduction_axis(layer), -1)
    short = -lanes.shape[-1] % scheme.m
    groups = np.pad(lanes, [(0, 0)] * (lanes.ndim - 1) + [(0, short)]).reshape(-1, scheme.m)
    places = np.arange(scheme.m)
    last = np.maximum.accumulate(np.where(groups, places, -1), axis=1)
    before = np.concatenate([np.full((len(groups), 1), -1), last[:, :-1]], axis=1)
    # A group with fewer than n nonzeros stores zeros as well, at its first free places: they shorten the runs.
    full = groups.sum(axis=1) == scheme.n
    return int((groups & (places - before - 1 >= 1 << scheme.bits))[full].sum())
