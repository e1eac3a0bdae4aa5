"""EIE's hardware units as SimPy processes, named as in the paper: the readable specification of `gossamer.models.eie`.

Time is in cycles. A cycle's pushes and pops are seen in the next one: an activation pushed in cycle t can be popped
from t + 1 on, and the slot it leaves is free from the cycle after its pop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from .timing import FIRST_BROADCAST, PIPELINE, Account

if TYPE_CHECKING:
    from ....simulator.occupancy import Sampler
    from ....simulator.timeline import Timeline
    from ....workloads.formats.csc import Csc
    from ..fixed_point import Datapath
    from .config import Config
    from .tile import Tile

Process = Generator[simpy.Event, Any, None]
Log = list[tuple[str, int, int]]  # (what, first cycle, one past the last)
Level = tuple[int, int, int]  # (activations in a queue, first cycle, one past the last)


class ActQueue:
    """A PE's activation queue: a ring of ``depth`` slots of which one stays empty."""

    def __init__(self, env: simpy.Environment, depth: int) -> None:
        self.env = env
        self.usable = depth - 1
        self.items: deque[tuple[int, int, int]] = deque()  # (cycle of the push, column, activation word)
        self.popped_at = -1
        self.pushed = env.event()
        self.popped = env.event()
        self.changes: list[tuple[int, int]] = []  # (cycle, +1 or -1), as the occupancy shows it

    def levels(self, cycles: int) -> Iterator[Level]:
        """Yield each level with the time for which it lasts, from cycle 0 up to ``cycles``."""
        level = at = 0
        for cycle, changes in groupby(sorted(self.changes), key=itemgetter(0)):
            until = min(cycle, cycles)
            if until > at:
                yield level, at, until
                at = until
            level += sum(change for _, change in changes)
        yield level, at, cycles

    def show(self, timeline: Timeline, name: str, cycles: int) -> None:
        """Tell ``timeline`` each change of the level up to ``cycles``, as the signal ``name``."""
        level = 0
        for cycle, changes in groupby(sorted(self.changes), key=itemgetter(0)):
            level += sum(change for _, change in changes)
            if cycle <= cycles:
                timeline.change(name, cycle, level)

    def push(self, column: int, activation: int) -> None:
        """Store an activation; the PE sees it in the next cycle."""
        self.items.append((int(self.env.now), column, activation))
        self.changes.append((int(self.env.now) + 1, 1))
        event, self.pushed = self.pushed, self.env.event()
        event.succeed()

    def wait_for_room(self) -> Process:
        """Return in the first cycle whose full flag is low; the flag falls in the cycle after a pop."""
        while len(self.items) + (self.popped_at == self.env.now) >= self.usable:
            if self.popped_at < self.env.now:
                yield self.popped
            yield self.env.timeout(1)

    def pop(self) -> Generator[simpy.Event, Any, tuple[int, int]]:
        """Return (column, activation) of the head, in the first cycle in which there is one."""
        if not self.items:
            yield self.pushed
        if self.items[0][0] == self.env.now:
            yield self.env.timeout(1)
        _, column, activation = self.items.popleft()
        self.popped_at = int(self.env.now)
        self.changes.append((self.popped_at, -1))
        event, self.popped = self.popped, self.env.event()
        event.succeed()
        return column, activation


class Broadcaster:
    """The central control unit with leading-nonzero detection (LNZD): finds nonzeros, sends each to all queues.

    It holds one row of activations, one a PE, and sends one nonzero a cycle in lane order. The next row is loaded in
    the cycle of the last nonzero if that sits in the last lane, else in a cycle of its own; so is the row after an
    all-zero one.
    """

    def __init__(self, env: simpy.Environment, queues: list[ActQueue], rows: list[list[tuple[int, int]]]) -> None:
        self.env = env
        self.queues = queues
        self.rows = rows  # of activations, the nonzeros of each: (column, activation word); the lane is column % PEs
        self.log: Log = []
        self.sent = 0

    def run(self) -> Process:
        """Send all activations."""
        yield self.env.timeout(FIRST_BROADCAST)
        idle_since = FIRST_BROADCAST
        for row in self.rows:
            last_lane = -1
            for column, activation in row:
                ready = int(self.env.now)
                for queue in self.queues:
                    yield from queue.wait_for_room()
                now = int(self.env.now)
                self.log += [("bubble", idle_since, ready), ("stalled", ready, now), ("broadcast", now, now + 1)]
                for queue in self.queues:
                    queue.push(column, activation)
                self.sent += 1
                last_lane = column % len(self.queues)
                yield self.env.timeout(1)
                idle_since = int(self.env.now)
            if last_lane != len(self.queues) - 1:
                yield self.env.timeout(1)


class ProcessingElement:
    """PtrRead, SpmatRead and ArithmUnit of one PE: walks a column's entries, one a cycle, into its accumulators."""

    def __init__(
        self,
        env: simpy.Environment,
        index: int,
        queue: ActQueue,
        encoded: Csc,
        codebook: np.ndarray | None,
        datapath: Datapath,
        accumulators: np.ndarray,
        entries_per_row: int,
    ) -> None:
        self.env = env
        self.index = index
        self.queue = queue
        self.pe_count = encoded.pe_count
        values, runs, pointers = encoded.slice(index)
        self.values, self.runs, self.pointers = values.tolist(), runs.tolist(), pointers.tolist()
        # What the codebook holds for each entry; exact weights stand in the entries themselves.
        self.weights = datapath.weights.to_words(values if codebook is None else codebook[values]).tolist()
        self.datapath = datapath
        self.accumulators = accumulators
        self.entries_per_row = entries_per_row
        self.row_held = -1
        self.log: Log = []
        self.last_entry = -1
        self.ptr_reads = self.spmat_reads = self.macs = self.padding = self.saturated = 0

    def run(self, activations: int) -> Process:
        """Work off ``activations`` activations."""
        for _ in range(activations):
            idle_since = int(self.env.now)
            column, activation = yield from self.queue.pop()
            start = int(self.env.now)
            self.log.append(("starved", idle_since, start))
            first, end = self.read_pointers(column)
            if first == end:
                self.log.append(("empty", start, start + 1))
                yield self.env.timeout(1)
                continue
            local = -1
            padding = 0
            for entry in range(first, end):
                value, run, weight = self.read_entry(entry)
                local += run + 1
                if value == 0:
                    padding += 1
                else:
                    self.multiply_accumulate(self.index + local * self.pe_count, weight, activation)
            self.padding += padding
            self.log.append(("entries", start, start + end - first))
            self.last_entry = start + end - first - 1
            yield self.env.timeout(end - first)

    def read_pointers(self, column: int) -> tuple[int, int]:
        """Return where the column's entries begin and end: two banks, read in one cycle."""
        self.ptr_reads += 1
        return self.pointers[column], self.pointers[column + 1]

    def read_entry(self, address: int) -> tuple[float, int, int]:
        """Return value, run and weight of the entry at ``address``; the SRAM is read only where its row changes."""
        row = address // self.entries_per_row
        if row != self.row_held:
            self.spmat_reads += 1
            self.row_held = row
        return self.values[address], self.runs[address], self.weights[address]

    def multiply_accumulate(self, row: int, weight: int, activation: int) -> None:
        """Add the product to the accumulator of output ``row``; a bypass lets the same row follow at once."""
        self.macs += 1
        total = self.accumulators.item(row)
        self.accumulators[row], saturated = self.datapath.accumulate(total, weight * activation)
        self.saturated += saturated


def run(
    account: Account,
    config: Config,
    tile: Tile,
    encoded: Csc,
    vector: np.ndarray,
    datapath: Datapath,
    accumulators: np.ndarray,
    timeline: Timeline | None,
    sampler: Sampler | None,
) -> int:
    """Run the array once, add what it did to ``account``, and return how many additions saturated.

    ``vector`` is (in,), float32. ``accumulators`` (out,), int64 words, are added to in place. ``timeline`` is told
    what every unit does, ``sampler`` how full the queues are.
    """
    env = simpy.Environment()
    rows = list(_activation_rows(config, tile, vector, datapath))
    queues = [ActQueue(env, config.queue_depth) for _ in range(config.pe_count)]
    broadcaster = Broadcaster(env, queues, rows)
    pes = [
        ProcessingElement(env, i, queue, encoded, tile.codebook, datapath, accumulators, config.entries_per_row)
        for i, queue in enumerate(queues)
    ]
    _move(account, timeline, sampler, tile.loads, 0)
    total = sum(len(row) for row in rows)
    env.process(broadcaster.run())
    for pe in pes:
        env.process(pe.run(total))
    env.run()

    last_entry = max(pe.last_entry for pe in pes)
    cycles = PIPELINE + max(last_entry, 0)
    levels = list(chain.from_iterable(pe.queue.levels(cycles) for pe in pes))
    if sampler is not None:
        for level, start, end in levels:
            sampler.add(level, account.cycles + start, account.cycles + end)
    _book(account, broadcaster, pes, levels, cycles)
    account.count(
        broadcaster.sent,
        sum(pe.macs for pe in pes),
        sum(pe.macs + pe.padding for pe in pes),
        sum(pe.spmat_reads for pe in pes),
        len(vector),
    )
    if timeline is not None:
        _draw(timeline, broadcaster, pes, cycles)
    _move(account, timeline, sampler, 0, tile.stores)
    return sum(pe.saturated for pe in pes)


def _activation_rows(
    config: Config, tile: Tile, vector: np.ndarray, datapath: Datapath
) -> Iterator[list[tuple[int, int]]]:
    """Yield the nonzeros of each row of activations; a bias is a row of its own with one activation, 1.0."""
    words = datapath.activations.to_words(vector).tolist()
    for first in range(0, len(vector), config.pe_count):
        lanes = range(first, min(first + config.pe_count, len(vector)))
        yield [(column, words[column]) for column in lanes if vector[column] != 0]
    if tile.has_bias:
        yield [(len(vector), int(datapath.activations.to_words(np.array(1.0))))]


def _book(
    account: Account, broadcaster: Broadcaster, pes: list[ProcessingElement], levels: list[Level], cycles: int
) -> None:
    """Add up the logs by cause, up to the end: what is done after the last result is written delays nobody."""

    def until_end(log: Log, what: str) -> int:
        return sum(min(end, cycles) - min(start, cycles) for name, start, end in log if name == what)

    for i, pe in enumerate(pes):
        spent = {"busy": pe.macs, "padding": pe.padding}
        spent |= {what: until_end(pe.log, what) for what in ("empty", "starved")}
        spent["drained"] = cycles - sum(spent.values())
        for cause, value in spent.items():
            account.pe[cause][i] += value
    spent = {"start": min(FIRST_BROADCAST, cycles)}
    spent |= {what: until_end(broadcaster.log, what) for what in ("broadcast", "bubble", "stalled")}
    spent["done"] = cycles - sum(spent.values())
    for cause, value in spent.items():
        account.broadcaster[cause] += value
    account.cycles += cycles
    held = np.zeros(1 + max(level for level, _, _ in levels), np.int64)
    for level, start, end in levels:
        held[level] += end - start
    account.wait(held)


def _draw(timeline: Timeline, broadcaster: Broadcaster, pes: list[ProcessingElement], cycles: int) -> None:
    """Show the run on ``timeline`` and move it on by ``cycles``."""
    tracks = [("broadcaster", broadcaster.log)] + [(f"PE {pe.index}", pe.log) for pe in pes]
    for track, log in tracks:
        for what, start, end in log:
            timeline.interval(track, what, min(start, cycles), min(end, cycles))
    for pe in pes:
        pe.queue.show(timeline, f"queue {pe.index}", cycles)
    timeline.advance(cycles)


def _move(account: Account, timeline: Timeline | None, sampler: Sampler | None, loads: int, stores: int) -> None:
    """Add the words that move between activation SRAM and registers, and show the time that takes."""
    before = account.cycles
    account.move(1, loads, stores)
    if sampler is not None:
        sampler.add(0, before, account.cycles, len(account.pe["busy"]))
    if timeline is not None:
        timeline.interval("activation SRAM", "load" if loads else "store", 0, account.cycles - before)
        timeline.advance(account.cycles - before)
