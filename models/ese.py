"""ESE: sparse LSTMs on channels of processing elements, one voice vector a channel.

Source: Han et al., "ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA", FPGA 2017 (arXiv 1612.00694).
Every channel holds one sample of the batch, and all of them run the same matrix on the same stream of weights, in
lock-step. In a channel PEs share each element of the input and decouple through activation queues; a PE walks its
entries of the element's column as one of EIE does. The element-wise unit of a channel adds up, looks up sigmoid and
tanh, and updates the cells, while the next matrix is multiplied; memory brings the weights of the one after.

Two engines tell the same story: `events` steps the units of `parts.ese.units`, `fast` solves the recurrences of
`parts.ese.timing`. What is published, derived and assumed: docs/background/ese.md.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..simulator.result import LayerResult
from .parts.counting import check_count
from .parts.energy import energy_of
from .parts.ese.bound import error_bound as _error_bound
from .parts.ese.config import Config
from .parts.ese.program import Matrix, Program
from .parts.ese.timing import Account, Spmv, Times
from .parts.ese.values import Arithmetic, compute, judge

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.memo import Memo
    from ..simulator.result import Energy
    from ..simulator.timeline import Timeline
    from ..workloads.trace import Layer

__all__ = ["ERT_BASE", "OPS", "Config", "area_mm2", "error_bound", "events", "fast"]

OPS = ("linear", "lstm")
ERT_BASE = "ese-45nm-event"  # which energies an Accelergy reference table replaces


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences; the cost grows with columns x PEs."""
    config: Config = machine.config
    program = memo(_stored_as(layer, config), lambda: Program.of(layer, config))
    _check_range(program, config)
    tables = (config.table_points, config.sigmoid_range, config.tanh_range)
    computed_as = (program, config.word_bits, config.accumulator_bits, *tables)
    arithmetic = memo((*computed_as, "arithmetic"), lambda: Arithmetic.of(program, config))
    words, saturated = memo(computed_as, lambda: compute(program, arithmetic))
    account = Account.of(config.pe_count)
    groups = list(program.groups(config.channels))
    cycles = np.zeros((len(groups), program.steps, len(program.matrices)), np.int64)
    for place, matrix in enumerate(program.matrices):
        if config.skip_zeros:
            for g, group in enumerate(groups):
                for t in range(program.steps):
                    columns = np.flatnonzero(words[matrix.name[0]][group, t].any(axis=0))
                    spmv = Spmv.of(
                        matrix.entries, matrix.nonzeros, columns, config.queue_depth, idle=matrix.idle(config)
                    )
                    account.multiply(spmv, group.stop - group.start)
                    cycles[g, t, place] = spmv.cycles
        else:
            spmv = memo((matrix, config.queue_depth), partial(spmv_of, matrix, config))
            account.multiply(spmv, len(program.inputs) * program.steps, len(groups) * program.steps)
            cycles[:, :, place] = spmv.cycles
        samples = len(program.inputs) * program.steps
        account.pass_on(matrix.name, matrix.rows, samples, program.bias is not None, program.peephole is not None)
    times = Times.of(cycles.ravel(), *follows(program, config, len(groups)), config.schedule == "serial")
    output, numbers = judge(program, arithmetic, words["y"], saturated)
    return _result(machine, layer, program, account, times, output, numbers)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping the units of `parts.ese.units`.

    ``timeline``, where given, is told what memory, element-wise unit, broadcaster and PEs of a channel do.
    """
    from .parts.ese.units import run

    config: Config = machine.config
    program = Program.of(layer, config)
    _check_range(program, config)
    arithmetic = Arithmetic.of(program, config)
    account, times, words, saturated = run(program, arithmetic, config, timeline)
    output, numbers = judge(program, arithmetic, words, saturated)
    return _result(machine, layer, program, account, times, output, numbers)


def area_mm2(machine: Machine) -> float | None:
    """Return None: ESE is an FPGA design, and takes a board."""
    return None


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, outputs) in float64, if nothing saturates."""
    program = Program.of(layer, machine.config)
    return _error_bound(program, Arithmetic.of(program, machine.config))


def units(config: Config) -> dict[str, int]:
    """Return how many of each unit an energy table may name; the board is one of that many channels and PEs."""
    return {
        "pe": config.channels * config.pe_count,
        "channel": config.channels,
        f"board_{config.channels}x{config.pe_count}": 1,
    }


def spmv_of(matrix: Matrix, config: Config) -> Spmv:
    """Return the multiplication of ``matrix`` with a vector of which nothing is left out."""
    columns = np.arange(len(matrix.entries))
    return Spmv.of(matrix.entries, matrix.nonzeros, columns, config.queue_depth, idle=matrix.idle(config))


def follows(program: Program, config: Config, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fetch cycles, pass cycles and waits of all matrices of a run, group after group, step after step."""
    runs = groups * program.steps
    fetch = [config.fetch_cycles(matrix.bytes(config)) for matrix in program.matrices]
    passes = [config.pass_cycles(matrix.rows) for matrix in program.matrices]
    waits = [wait for _ in range(groups) for t in range(program.steps) for wait in program.waits(t)]
    return np.tile(fetch, runs), np.tile(passes, runs), np.array(waits)


def _check_range(program: Program, config: Config) -> None:
    """Raise InputError where the cycles of all multipliers together, with what they wait for, could leave 64 bits."""
    uses = len(list(program.groups(config.channels))) * program.steps
    fetched = sum(config.fetch_cycles(matrix.bytes(config)) for matrix in program.matrices)
    passed = sum(config.pass_cycles(matrix.rows) for matrix in program.matrices)
    taken = {"dram_bytes_per_s clock_hz": uses * fetched, "elementwise_latency outputs_per_cycle": uses * passed}
    check_count(config, taken, times=config.channels * config.pe_count)


def _stored_as(layer: Layer, config: Config) -> tuple[object, ...]:
    order = config.order if layer.op == "lstm" else ""
    return (layer, "ese", config.pe_count, config.weight_bits, config.index_bits, order)


def _result(
    machine: Machine,
    layer: Layer,
    program: Program,
    account: Account,
    times: Times,
    output: np.ndarray,
    arithmetic: dict[str, float],
) -> LayerResult:
    """Return the layer's figures from its account and its times."""
    config: Config = machine.config
    cycles, counts, pes = times.total, account.counts, config.pe_count
    account.wait(times.memory_wait, times.element_wise_wait)
    samples, steps = len(program.inputs), program.steps
    groups = list(program.groups(config.channels))
    ends = times.passed.reshape(len(groups), -1)[:, -1]
    voice = int(sum((g.stop - g.start) * int(n) for g, n in zip(groups, np.diff(ends, prepend=0), strict=True)))
    fetching = int((times.fetched - times.fetch_start).sum())
    passing = len(groups) * steps * sum(config.pass_cycles(matrix.rows) for matrix in program.matrices)
    counts["dram_read_bytes"] = len(groups) * steps * sum(matrix.bytes(config) for matrix in program.matrices)
    idle = int(account.pe["starved"].sum() + account.pe["drained"].sum())
    multipliers = config.channels * pes * cycles
    parts = [matrix.bits(config) for matrix in program.matrices]
    entry_bits = config.weight_bits + config.index_bits
    energy, misfits = _energy(machine, cycles, counts)
    return LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=samples * steps,
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=counts["entries"] / pes,
        macs=counts["macs"],
        utilization=counts["macs"] / multipliers if multipliers else 0.0,
        load_balance=1 - idle / (pes * account.spmv_cycles) if account.spmv_cycles else 1.0,
        cycles_by_cause={
            "pe": {cause: int(of_pe.sum()) for cause, of_pe in account.pe.items()},
            "channel": {"voice": voice, "vacant": config.channels * cycles - voice},
            "memory": {"fetching": fetching, "waiting": cycles - fetching},
            "element_wise": {"passing": passing, "waiting": cycles - passing},
        },
        cycles_per_unit={"pe": {cause: of_pe.tolist() for cause, of_pe in account.pe.items()}},
        counts=dict(counts),
        energy_j=energy,
        traffic_bytes={
            "dram": counts["dram_read_bytes"],
            "weight_buffer": -(-counts["spmat_reads"] * entry_bits // 8),
            "ptr_buffer": counts["ptr_reads"] * 2 * config.pointer_bits // 8,
            "activations": (counts["act_reads"] + counts["act_writes"]) * config.word_bits // 8,
        },
        storage_bits={part: sum(bits[part] for bits in parts) for part in parts[0]},
        arithmetic=dict(arithmetic),
        warnings=[*_warnings(program, config), *misfits],
    ).with_output(output)


def _energy(machine: Machine, cycles: int, counts: dict[str, int]) -> tuple[Energy | None, list[str]]:
    config, table = machine.config, machine.energy
    known = units(config)
    other = [] if table is None else [cell.unit for cell in table.per_cycle if cell.unit not in known]
    if table is not None and other:
        own = f"{config.channels} channels x {config.pe_count} PEs"
        return None, [f"energy table {table.name} is for {other[0]}, not {own}: no energy given"]
    return energy_of(table, cycles, known, counts, word_bits=config.word_bits)


def _warnings(program: Program, config: Config) -> list[str]:
    """Return a sentence for each memory that a matrix does not fit."""
    warnings = []
    largest = max(program.matrices, key=lambda matrix: matrix.bytes(config))
    need = 2 * largest.bytes(config)
    if need > config.buffer_bytes:
        warnings.append(
            f"weight buffer: two matrices as large as {largest.name} take {need} bytes, and it has "
            f"{config.buffer_bytes}; the next matrix could not be fetched while one is multiplied"
        )
    fullest = max(int(matrix.entries.sum(axis=0).max()) for matrix in program.matrices)
    if fullest >= 1 << config.pointer_bits:
        warnings.append(
            f"pointers: {config.pointer_bits} bits address {1 << config.pointer_bits} entries, and a PE stores "
            f"{fullest}"
        )
    return warnings
