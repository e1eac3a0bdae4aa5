"""ESE's hardware units as SimPy processes: the readable specification of `gossamer.models.ese`.

Time is in cycles. All channels get the same entries in the same cycles: there is one process for the PEs k of all
channels, which multiplies an entry with the element of every channel. Queues are those of EIE.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.formats import csc
from ..eie.units import ActQueue
from .timing import PIPELINE, Account, Spmv, Times
from .values import accumulate, shift_of

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from .config import Config
    from .program import Matrix, Program
    from .values import Arithmetic, State

Process = Generator[simpy.Event, Any, None]
Log = list[tuple[str, int, int]]  # (what, first cycle, one past the last)


@dataclass
class Use:
    """One use of a matrix, by one group of samples in one step: what it meets and makes, and when."""

    matrix: Matrix
    group: int
    inputs: np.ndarray
    state: State
    wait: int
    columns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: np.ndarray | None = None


class WeightMemory:
    """DRAM and the weight buffer, two halves: streams the weights of a matrix while another one is multiplied."""

    def __init__(self, env: simpy.Environment, uses: list[Use], config: Config) -> None:
        self.env, self.uses, self.config = env, uses, config
        self.fetched = [env.event() for _ in uses]
        self.freed = [env.event() for _ in uses]  # the half that a matrix lies in
        self.log: Log = []

    def run(self) -> Process:
        """Fetch all matrices, each as soon as a half is free."""
        for k, use in enumerate(self.uses):
            if k > 1:
                yield self.freed[k - 2]
            start = int(self.env.now)
            yield self.env.timeout(self.config.fetch_cycles(use.matrix.bytes(self.config)))
            self.log.append((f"fetch {use.matrix.name}", start, int(self.env.now)))
            self.fetched[k].succeed()


class ElementWiseUnit:
    """Adders, multipliers and tables of a channel: takes the results of one matrix after another from the PEs."""

    def __init__(self, env: simpy.Environment, uses: list[Use], arithmetic: Arithmetic, config: Config) -> None:
        self.env, self.uses, self.arithmetic, self.config = env, uses, arithmetic, config
        self.multiplied = [env.event() for _ in uses]
        self.passed = [env.event() for _ in uses]
        self.log: Log = []

    def run(self) -> Process:
        """Work off all results."""
        for k, use in enumerate(self.uses):
            yield self.multiplied[k]
            start = int(self.env.now)
            assert use.sums is not None
            self.arithmetic.finish(use.matrix.name, use.sums.T, use.state)
            yield self.env.timeout(self.config.pass_cycles(use.matrix.rows))
            self.log.append((f"pass {use.matrix.name}", start, int(self.env.now)))
            self.passed[k].succeed()


class ProcessingElement:
    """PtrRead, SpmatRead and ALU of one PE, in all channels: walks a column's entries, one a cycle."""

    def __init__(self, env: simpy.Environment, index: int, queue: ActQueue) -> None:
        self.env, self.index, self.queue = env, index, queue
        self.log: Log = []
        self.totals = dict.fromkeys(("busy", "padding", "empty", "starved"), 0)
        self.done = self.saturated = 0

    def run(self, use: Use, encoded: csc.Csc, operands: np.ndarray, arithmetic: Arithmetic) -> Process:
        """Work off one matrix; ``operands`` are the words of all channels, (samples, cols)."""
        values, runs, pointers = encoded.slice(self.index)
        form, shift = arithmetic.sums[use.matrix.name], shift_of(use.matrix, arithmetic)
        assert use.sums is not None
        for _ in use.columns:
            idle_since = int(self.env.now)
            column, _word = yield from self.queue.pop()
            start = int(self.env.now)
            self.note("starved", idle_since, start)
            first, end = int(pointers[column]), int(pointers[column + 1])
            if first == end:
                self.note("empty", start, start + 1)
                yield self.env.timeout(1)
                continue
            local = np.cumsum(runs[first:end].astype(np.int64) + 1) - 1
            kept = values[first:end] != 0
            rows, words = self.index + local[kept] * encoded.pe_count, values[first:end][kept]
            self.saturated += accumulate(use.sums, rows, words, operands[:, column], shift, form)
            self.totals["busy"] += len(words)
            self.totals["padding"] += end - first - len(words)
            self.log.append((f"entries {use.matrix.name}", start, start + end - first))
            yield self.env.timeout(end - first)
        self.done = int(self.env.now)

    def note(self, what: str, start: int, end: int) -> None:
        """Book the cycles of one cause."""
        self.totals[what] += end - start
        if end > start:
            self.log.append((what, start, end))


class Channel:
    """A channel's controller: multiplies one matrix after another, its PEs fed by a broadcaster through queues."""

    def __init__(
        self,
        env: simpy.Environment,
        uses: list[Use],
        memory: WeightMemory,
        element_wise: ElementWiseUnit,
        arithmetic: Arithmetic,
        config: Config,
        account: Account,
    ) -> None:
        self.env, self.uses, self.memory, self.element_wise = env, uses, memory, element_wise
        self.arithmetic, self.config, self.account = arithmetic, config, account
        # A queue of EIE's has a slot that stays empty.
        self.pes = [ProcessingElement(env, i, ActQueue(env, config.queue_depth + 1)) for i in range(config.pe_count)]
        self.encoded = {
            use.matrix.name: csc.encode(use.matrix.words, config.pe_count, config.index_bits)
            for use in uses[: len({use.matrix.name for use in uses})]
        }
        self.log: Log = []
        self.memory_wait = self.element_wise_wait = 0

    def run(self) -> Process:
        """Multiply all matrices, each once its weights, its operands and room for its results are there."""
        for k, use in enumerate(self.uses):
            before = int(self.env.now)
            passed = self.element_wise.passed
            if k > 1:
                yield passed[k - 2]
            if k and self.config.schedule == "serial":
                yield passed[k - 1]
            if use.wait:
                yield passed[k - use.wait]
            ready = int(self.env.now)
            yield self.memory.fetched[k]
            self.element_wise_wait += ready - before
            self.memory_wait += int(self.env.now) - ready
            self.log += [("results", before, ready), ("weights", ready, int(self.env.now))]
            yield from self.multiply(use)
            self.memory.freed[k].succeed()
            self.element_wise.multiplied[k].succeed()

    def multiply(self, use: Use) -> Process:
        """Multiply one matrix: broadcast the elements, and wait for all PEs and for the last entry's way through."""
        begin = int(self.env.now)
        operands = self.arithmetic.operands(use.matrix.name, use.inputs, use.state)
        met = operands.any(axis=0) if self.config.skip_zeros else np.ones(operands.shape[1], bool)
        use.columns = np.flatnonzero(met)
        use.sums = np.zeros((use.matrix.rows, len(operands)), np.int64)
        totals = [dict(pe.totals) for pe in self.pes]
        saturated = [pe.saturated for pe in self.pes]
        encoded = self.encoded[use.matrix.name]
        if len(use.columns):
            self.env.process(self.broadcast(use))
            working = [self.env.process(pe.run(use, encoded, operands, self.arithmetic)) for pe in self.pes]
            yield self.env.all_of(working)
            yield self.env.timeout(PIPELINE - 1)
        cycles = int(self.env.now) - begin
        ends = np.array([pe.done - begin if len(use.columns) else 0 for pe in self.pes])
        if len(use.columns):
            self.log.append((f"multiply {use.matrix.name}", begin, begin + cycles))
        use.state.saturated += sum(pe.saturated - old for pe, old in zip(self.pes, saturated, strict=True))
        spent = {
            cause: np.array([pe.totals[cause] - old[cause] for pe, old in zip(self.pes, totals, strict=True)], np.int64)
            for cause in ("busy", "padding", "empty", "starved")
        }
        self.account.multiply(Spmv(cycles, len(use.columns), drained=cycles - ends, **spent), len(operands))

    def broadcast(self, use: Use) -> Process:
        """Send each element to all queues, one a cycle, where none is full."""
        for column in use.columns.tolist():
            for pe in self.pes:
                yield from pe.queue.wait_for_room()
            for pe in self.pes:
                pe.queue.push(column, 0)
            yield self.env.timeout(1)


def run(
    program: Program, arithmetic: Arithmetic, config: Config, timeline: Timeline | None
) -> tuple[Account, Times, np.ndarray, int]:
    """Return account, times, the outputs' words (samples, steps, outputs) and what saturated, of a whole layer."""
    env = simpy.Environment()
    account = Account.of(config.pe_count)
    groups = list(program.groups(config.channels))
    states = [arithmetic.begin(group.stop - group.start, program) for group in groups]
    inputs = arithmetic.inputs.to_words(program.inputs)
    uses = [
        Use(matrix, g, inputs[group, t], states[g], wait)
        for g, group in enumerate(groups)
        for t in range(program.steps)
        for matrix, wait in zip(program.matrices, program.waits(t), strict=True)
    ]
    memory = WeightMemory(env, uses, config)
    element_wise = ElementWiseUnit(env, uses, arithmetic, config)
    channel = Channel(env, uses, memory, element_wise, arithmetic, config, account)
    words = np.zeros(program.reference.shape, np.int64)
    for process in (memory, element_wise, channel):
        env.process(process.run())
    env.process(_keep(element_wise, groups, program, words))
    env.run()

    for matrix in program.matrices:
        samples = len(program.inputs) * program.steps
        account.pass_on(matrix.name, matrix.rows, samples, program.bias is not None, program.peephole is not None)
    multiplied = [(start, end) for what, start, end in channel.log if what.startswith("multiply")]
    total = element_wise.log[-1][2]
    tail = total - max((end for _, _, end in channel.log), default=0)
    times = Times(
        fetch_start=np.array([start for _, start, _ in memory.log]),
        fetched=np.array([end for _, _, end in memory.log]),
        start=np.array([start for start, _ in multiplied]),
        end=np.array([end for _, end in multiplied]),
        passed=np.array([end for _, _, end in element_wise.log]),
        memory_wait=channel.memory_wait,
        element_wise_wait=channel.element_wise_wait + tail,
    )
    if timeline is not None:
        _draw(timeline, memory, element_wise, channel, total)
    return account, times, words, sum(state.saturated for state in states)


def _keep(element_wise: ElementWiseUnit, groups: list[slice], program: Program, words: np.ndarray) -> Process:
    """Keep the outputs of each step once its last pass is done."""
    size = len(program.matrices)
    for g, group in enumerate(groups):
        for t in range(program.steps):
            k = (g * program.steps + t + 1) * size - 1
            yield element_wise.passed[k]
            hidden = element_wise.uses[k].state.hidden
            assert hidden is not None
            words[group, t] = hidden


def _draw(
    timeline: Timeline, memory: WeightMemory, element_wise: ElementWiseUnit, channel: Channel, total: int
) -> None:
    """Show the run on ``timeline`` and move it on by ``total`` cycles."""
    tracks = [("memory", memory.log), ("channel", channel.log), ("element-wise unit", element_wise.log)]
    tracks += [(f"PE {pe.index}", pe.log) for pe in channel.pes]
    for track, log in tracks:
        for what, start, end in log:
            timeline.interval(track, what, start, end)
    for pe in channel.pes:
        pe.queue.show(timeline, f"queue {pe.index}", total)
    timeline.advance(total)
