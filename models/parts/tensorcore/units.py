"""The units of a chip with tensor cores, tile by tile and step by step: the readable form of `parts.tensorcore.gemm`.

A dispatcher hands tiles to SMs. In an SM a loader brings the steps of the reduction into the buffers of the shared
memory; cores and shared memory work on a step that has arrived, and give its buffer back. Nothing here knows when a
tile will be done.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.gemm import Gemm
from ..dispatch import Dispatcher
from ..ticks import TICKS
from ..waiting import pass_time
from .config import Config
from .gemm import Account, slowed, useful_ticks
from .plan import Plan
from .tiles import Times
from .values import Rounded, multiply

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Tile:
    """A CTA's outputs: of which product, and which of its rows and columns; ``kind``: its row of `Times`' arrays.

    ``slice``: its number among those that share the reduction; ``steps``: those that it has.
    """

    product: int
    rows: range
    columns: range
    kind: int
    slice: int
    steps: range


@dataclass(frozen=True, eq=False)
class Values:
    """What is multiplied, where values are wanted: operands and accumulators of each product, one array a slice."""

    operands: list[Rounded]
    sums: list[list[np.ndarray]] = field(default_factory=list)


def run(
    config: Config, gemm: Gemm, plan: Plan, times: Times, values: Values | None, timeline: Timeline | None
) -> Account:
    """Return where the ticks of ``gemm`` go, by stepping its units; fill the sums of ``values``."""
    env = simpy.Environment()
    account = Account.of(times.slots)
    chip = Chip(env, config, gemm, plan, times, account, values, timeline)
    env.process(chip.run())
    env.run()
    account.total = int(env.now)
    if timeline is not None:
        timeline.advance(account.cycles)
    return account


class Chip:
    """SMs that take tiles from one dispatcher, and an HBM that moves all operands and outputs meanwhile."""

    def __init__(
        self,
        env: simpy.Environment,
        config: Config,
        gemm: Gemm,
        plan: Plan,
        times: Times,
        account: Account,
        values: Values | None,
        timeline: Timeline | None,
    ) -> None:
        self.env, self.config, self.gemm, self.plan, self.times = env, config, gemm, plan, times
        self.account, self.values, self.timeline = account, values, timeline
        self.finished = np.zeros(times.slots, np.int64)
        self.bounds = gemm.bounds(plan.kind.m, plan.slab_groups)  # where in the reduction each step begins

    def run(self) -> Process:
        """Launch, run all tiles beside HBM's traffic, and lose what a real kernel loses."""
        yield from self.step("chip", "launch", self.times.launch)
        self.account.causes["launch"] += self.times.launch
        self.dispatcher = Dispatcher(self.env, self.tiles(), self.times.slots)
        slots = [self.env.process(Slot(self, index).run()) for index in range(self.times.slots)]
        moved = self.env.process(self.step("hbm", "move", self.times.hbm))
        yield self.env.all_of(slots)
        last = int(self.env.now)
        self.account.causes["idle"] += last - self.finished
        yield moved
        self.account.causes["hbm"] += int(self.env.now) - last
        yield from self.step("chip", "add partial sums", self.times.reduce)
        self.account.causes["split_k"] += self.times.reduce
        lost = slowed(self.config, int(self.env.now)) - int(self.env.now)
        yield from self.step("chip", "kernel", lost)
        self.account.causes["kernel"] += lost

    def tiles(self) -> Iterator[Tile]:
        """Return the tiles in order: rows first, then columns, then shares of the reduction, then products."""
        gemm, bm, bn = self.gemm, self.config.cta_rows, self.config.cta_columns
        for product in range(gemm.count):
            for number, steps in enumerate(self.times.slices):
                for column in range(0, gemm.columns, bn):
                    for row in range(0, gemm.rows, bm):
                        kind = 0 if self.plan.is_uniform else product * self.times.row_tiles + row // bm
                        rows = range(row, min(row + bm, gemm.rows))
                        columns = range(column, min(column + bn, gemm.columns))
                        yield Tile(product, rows, columns, kind, number, range(*steps))

    def step(self, track: str, name: str, ticks: int) -> Process:
        """Pass ``ticks`` and note them in the timeline."""
        return pass_time(self.env, self.timeline, track, name, ticks, TICKS)


class Slot:
    """An SM, or the share of one that a resident CTA has."""

    def __init__(self, chip: Chip, index: int) -> None:
        self.chip, self.env, self.index = chip, chip.env, index
        per_sm = chip.config.ctas_per_sm
        self.name = f"sm{index // per_sm}" + (f".{index % per_sm}" if per_sm > 1 else "")

    def book(self, cause: str, ticks: int) -> None:
        """Add ``ticks`` to ``cause``."""
        self.chip.account.causes[cause][self.index] += ticks

    def move(self, **amounts: int) -> None:
        """Add to the sums of the layer."""
        for name, amount in amounts.items():
            self.chip.account.sums[name] += int(amount)

    def run(self) -> Process:
        """Take tiles until there are none."""
        while True:
            tile = yield self.chip.dispatcher.ask(self.index)
            if tile is None:
                break
            yield from self.work(tile)
        self.chip.finished[self.index] = int(self.env.now)

    def work(self, tile: Tile) -> Process:
        """Load and multiply step by step, then write the outputs."""
        buffers = simpy.Container(self.env, init=self.chip.config.pipeline_stages)
        arrived = simpy.Store(self.env)
        self.move(ctas=1)
        self.env.process(self.load(tile, buffers, arrived))
        yield from self.multiply(tile, buffers, arrived)
        times = self.chip.times
        yield from self.chip.step(self.name, "epilogue", times.epilogue)
        self.book("epilogue", times.epilogue)

    def load(self, tile: Tile, buffers: simpy.Container, arrived: simpy.Store) -> Process:
        """Bring each step into a free buffer; the first comes with the pipeline's fill, if it can be so fast."""
        times = self.chip.times
        for j in tile.steps:
            yield buffers.get(1)
            ticks = int(times.l2[tile.kind, j])
            first = max(times.fill, ticks) if j == tile.steps[0] else ticks
            yield from self.chip.step(f"{self.name} l2", f"load {j}", first)
            self.chip.account.l2 += ticks
            self.move(
                l2_read=times.l2_read[tile.kind, j],
                smem_write=times.smem_write[tile.kind, j],
                repeated_groups=self.chip.plan.groups[tile.kind, j] - self.chip.plan.slab_groups,
                metadata=times.metadata[tile.kind, j],
            )
            yield arrived.put(j)

    def multiply(self, tile: Tile, buffers: simpy.Container, arrived: simpy.Store) -> Process:
        """Multiply the steps as they arrive, cores and shared memory side by side."""
        times, busy = self.chip.times, self.chip.account.busy
        plain = 0
        for j in tile.steps:
            asked = int(self.env.now)
            yield arrived.get()
            waited = int(self.env.now) - asked
            fill = times.fill if j == tile.steps[0] else 0
            self.book("fill", fill)
            self.book("l2", waited - fill)
            start = int(self.env.now)
            cores, memory = int(times.tensor_core[tile.kind, j]), int(times.shared_memory[tile.kind, j])
            yield self.env.all_of(
                [
                    self.env.process(self.chip.step(f"{self.name} tensor_core", f"multiply {j}", cores)),
                    self.env.process(self.chip.step(f"{self.name} shared_memory", f"feed {j}", memory)),
                ]
            )
            self.book("shared_memory", int(self.env.now) - start - cores)
            self.book("passes", cores - int(times.plain[tile.kind, j]))
            plain += int(times.plain[tile.kind, j])
            busy["tensor_core"][self.index] += cores
            busy["shared_memory"][self.index] += memory
            self.move(instructions=times.instructions[tile.kind, j], smem_read=times.smem_read[tile.kind, j])
            if self.chip.values is not None:
                self.accumulate(tile, j, self.chip.values)
            yield buffers.put(1)
        config = self.chip.config
        outputs, whole = len(tile.rows) * len(tile.columns), config.cta_rows * config.cta_columns
        useful = int(useful_ticks(plain, outputs, whole, *times.real_groups[tile.slice]))
        self.book("tensor_core", useful)
        self.book("padding", plain - useful)

    def accumulate(self, tile: Tile, j: int, values: Values) -> None:
        """Add the products of step ``j`` to the tile's accumulators."""
        given, sums = values.operands[tile.product], values.sums[tile.product][tile.slice]
        rows, columns = (slice(side.start, side.stop) for side in (tile.rows, tile.columns))
        step = slice(self.chip.bounds[j], self.chip.bounds[j + 1])
        held = np.ascontiguousarray(sums[columns, rows])
        multiply(self.chip.config, given.weight[rows, step], given.vectors[columns, step], held)
        sums[columns, rows] = held
