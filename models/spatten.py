"""SpAtten's attention pipeline: Q K, softmax, top-k engine, probabilities times V, one query after another.

An attention is given by its second product: inputs are the probabilities, (heads, queries, keys), the weight holds V,
(heads, size, keys). Q K^T has the same queries, keys and size, and is costed with it; the first product of a trace
need not be run. For each query of each head, in order:

    query_key     ceil(keys / (multipliers // size)) cycles
    softmax       ceil(keys / softmax_lanes)
    quick_select  ceil(keys / comparators) to fill, then ceil(candidates / comparators) + pass_latency a pass
    filter        ceil(keys / comparators)
    prob_value    ceil(kept / (multipliers // size))

The two in the middle are the top-k engine; where ``value_keep`` leaves every value they take no time. A unit that is
done keeps its query until one of ``queue_depth`` places before the next unit is free. The last query leaves
``pipeline_latency`` after the last unit is done, and DRAM, from which K, V and Q come once a head, may take longer.
With ``token_keep``, the top-k engine ranks the tokens of each sample behind its last query, by the probabilities that
they got in this layer; which tokens the next layer has is the trace's affair (`gossamer.workloads.dynamic`).
Source: Wang, Zhang, Han, "SpAtten", HPCA 2021, and the authors' hardware description and behaviour model
(public repository mit-han-lab/spatten). Not modelled: progressive quantisation, bank conflicts of the memory, the
ranking of heads.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.result import LayerResult
from ..workloads.dynamic.top_k import k_of, top_k
from ..workloads.errors import InputError
from .parts.spatten.top_k import select_rows, travel
from .parts.spatten.work import UNITS, Config, Run, Work, jobs_of

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

OPS = ("matmul",)
CAUSES = ("busy", "blocked", "waiting", "drain", "memory")
SUM_ERROR = 1e-3  # how far above 1 a row of probabilities may add up, in float32


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``: quick-select by its values, the units' queues by recurrence."""
    config: Config = machine.config
    work = work_of(machine, layer)
    key = (layer, "spatten top-k", work.kept, work.ranked, config.comparators, config.pass_latency, config.seed)
    jobs = jobs_of(layer, work)
    chosen, cycles, figures = memo(
        key, lambda: select_rows(jobs.rows, jobs.counts, config.comparators, config.pass_latency, config.seed)
    )
    times = np.zeros((len(UNITS), len(jobs.rows)), np.int64)
    times[0, jobs.query] = config.array_cycles(work.keys, work.size)
    times[1, jobs.query] = -(-work.keys // config.softmax_lanes)
    times[2] = cycles
    times[3, jobs.counts < work.keys] = -(-work.keys // config.comparators)
    times[4, jobs.query] = config.array_cycles(work.kept, work.size)
    end, blocked = travel(times, config.queue_depth)
    busy = [int(cycles) for cycles in times.sum(axis=1)]
    return result_of(machine, layer, work, Run(chosen[jobs.query], end, busy, blocked, figures))


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping its units; see `parts.spatten.units`."""
    from .parts.spatten import units as spatten_units

    work = work_of(machine, layer)
    result = result_of(machine, layer, work, spatten_units.run(machine.config, layer, work, timeline))
    if timeline is not None:
        stalled = result.cycles_by_cause[UNITS[-1]]["memory"]
        if stalled:
            timeline.interval("dram", "memory", result.cycles - stalled, result.cycles)
        timeline.advance(result.cycles)
    return result


def area_mm2(machine: Machine) -> float | None:
    """Return None: the published area is of one configuration, with parts that are not modelled."""
    return None


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from P V: what the values that are left out are worth, and float32 rounding.

    Which these are is told by a stable sort, not by the engine.
    """
    work = work_of(machine, layer)
    magnitudes = np.abs(layer.weight).transpose(0, 2, 1).astype(np.float64)
    read = np.zeros(layer.inputs.shape)
    chosen = top_k(layer.inputs, work.kept)
    np.put_along_axis(read, chosen, np.take_along_axis(layer.inputs, chosen, axis=-1), axis=-1)
    left_out = (layer.inputs - read) @ magnitudes
    float32 = np.finfo(np.float32)
    rounding = (work.keys + 1) * (float(float32.eps) * (layer.inputs @ magnitudes) + float(float32.smallest_subnormal))
    bound: np.ndarray = (left_out + rounding).reshape(-1, work.size)
    return bound


def work_of(machine: Machine, layer: Layer) -> Work:
    """Return the heads of ``layer``. Raises InputError where its inputs are no probabilities."""
    sums = layer.inputs.sum(axis=-1, dtype=np.float64)
    if layer.inputs.min() < 0 or sums.max() > 1 + SUM_ERROR:
        met = f"{layer.inputs.min():g}" if layer.inputs.min() < 0 else f"a row that adds up to {sums.max():g}"
        raise InputError(
            f"layer {layer.name}: {machine.name} takes an attention by its second product, probabilities times values, "
            f"and the inputs hold {met}; choose such layers with --layer, as in *matmul2"
        )
    heads, size, keys = layer.shape
    config: Config = machine.config
    kept, ranked = (k_of(share, keys) for share in (config.value_keep, config.token_keep))
    return Work(heads, layer.inputs.shape[1], keys, size, layer.samples, kept, ranked)


def result_of(machine: Machine, layer: Layer, work: Work, run: Run) -> LayerResult:
    """Return the result of a run, whichever engine it is from."""
    config: Config = machine.config
    counts = _counts(work, run)
    words = counts["dram_reads"] + counts["dram_writes"]
    moved = math.ceil(Fraction(words * config.word_bits, 8) * Fraction(config.clock_hz)
                      / Fraction(config.dram_bandwidth_bytes_per_s))  # fmt: skip
    memory = max(0, moved - run.end - config.pipeline_latency) if config.dram_bounds_latency else 0
    cycles = run.end + config.pipeline_latency + memory
    causes = {
        unit: dict(zip(CAUSES, (busy, blocked, run.end - busy - blocked, config.pipeline_latency, memory), strict=True))
        for unit, busy, blocked in zip(UNITS, run.busy, run.blocked, strict=True)
    }
    output = _multiply(layer, run.chosen)
    sram = sum(counts[name] for name in ("key_sram_reads", "value_sram_reads"))
    return LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=len(output),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=counts["macs"] / (2 * config.multipliers),
        macs=counts["macs"],
        utilization=counts["macs"] / (2 * config.multipliers * cycles),
        load_balance=None,
        cycles_by_cause=causes,
        cycles_per_unit={unit: {cause: [count] for cause, count in by.items()} for unit, by in causes.items()},
        counts=counts,
        energy_j=None,
        traffic_bytes={"sram": sram * config.word_bits // 8, "dram": words * config.word_bits // 8},
        storage_bits={},
        warnings=_warnings(config, work),
    ).with_output(output)


def _counts(work: Work, run: Run) -> dict[str, int]:
    jobs = work.heads * work.queries
    used = run.chosen.reshape(work.heads, work.queries, work.keys).any(axis=1)  # values that any query of a head reads
    values = int(np.count_nonzero(used))
    keys = jobs * work.keys * work.size
    kept = jobs * work.kept * work.size
    return {
        "macs": keys + kept,
        "exponentials": jobs * work.keys,
        **run.figures,
        "key_sram_reads": keys,
        "value_sram_reads": kept,
        "dram_reads": (work.heads * (work.keys + work.queries) + values) * work.size,
        "dram_writes": jobs * work.size,
    }


def _multiply(layer: Layer, chosen: np.ndarray) -> np.ndarray:
    """Return the outputs, (heads x queries, size), of the values that were ``chosen``."""
    read = np.where(chosen.reshape(layer.inputs.shape), layer.inputs, np.float32(0))
    output: np.ndarray = (read @ layer.weight.transpose(0, 2, 1)).reshape(-1, layer.shape[1])
    return output


def _warnings(config: Config, work: Work) -> list[str]:
    warnings = []
    needed = -(-2 * work.keys * work.size * config.word_bits // 8)
    for name in ("key", "value"):
        capacity = getattr(config, f"{name}_sram_bytes")
        if needed > capacity:
            warnings.append(
                f"{name}s of two heads take {needed} bytes of {capacity} in the {name} SRAM: they cannot be "
                "double-buffered"
            )
    return warnings
