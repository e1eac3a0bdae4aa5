"""The units of Sparseloop's sparse tensor core, step by step: the readable form of `gossamer.models.sparseloop_stc`.

Time runs in ticks, a fraction of a cycle in which every transfer and every share of a step is a whole number: shared
memory's 42 words and a step's 60 need no rounding until all is done. Nothing here knows the closed form.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.formats import nm
from ....workloads.lowering import Product, join, lower, reduction_axis
from .mapping import Config, Gemm, Mapping, Scheme, Tally, group_kept

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from ....workloads.trace import Layer

Process = Generator[simpy.Event, Any, None]


def run_layer(config: Config, layer: Layer, timeline: Timeline | None) -> tuple[Tally, np.ndarray]:
    """Return the tally of ``layer`` and its outputs, (vectors, out) float32."""
    scheme = Scheme.of(layer, config.metadata)
    core = Core(simpy.Environment(), config, scheme, timeline)
    outputs: list[np.ndarray] = []

    def run() -> Process:
        for product in lower(layer):
            yield from core.multiply(Operands.of(layer, product, scheme), outputs)

    core.env.run(until=core.env.process(run()))
    core.tally.cycles = core.cycle(up=True)
    if timeline is not None:
        timeline.advance(core.tally.cycles)
    return core.tally, join(layer, outputs)


@dataclass(frozen=True, eq=False)
class Operands:
    """A product as the core sees it: ``values`` (rows, kept) with the ``inputs`` that each of them selects.

    ``inputs`` is (rows, kept) int64, places in a vector; ``vectors`` is (columns, reduction).
    """

    gemm: Gemm
    values: np.ndarray
    inputs: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray | None

    @classmethod
    def of(cls, layer: Layer, product: Product, scheme: Scheme) -> Operands:
        """Return the operands of ``product``, weights encoded along the channels, place of the kernel by place."""
        gemm = Gemm.of(layer, scheme, len(product.vectors))
        channels = layer.shape[reduction_axis(layer)]
        weight = product.weight.reshape(len(product.weight), channels, -1).transpose(0, 2, 1)  # (rows, places, in)
        rows, places = weight.shape[:2]
        padded = np.pad(weight, ((0, 0), (0, 0), (0, -channels % scheme.m)))
        encoded = nm.encode(padded, scheme.n, scheme.m, where=f"layer {layer.name}")
        shape = (rows, places, -1, scheme.n)
        # What a short group stores beyond its end is nothing.
        real = np.arange(scheme.n) < np.array(group_kept(scheme, channels))[:, None]
        channel = encoded.columns.reshape(shape)[:, :, real]
        place = np.arange(places)[:, None]
        inputs = (channel * places + place).reshape(rows, -1)  # vectors are in the order (channel, place)
        values = encoded.values.reshape(shape)[:, :, real].reshape(rows, -1)
        return cls(gemm, values, inputs, product.vectors, product.bias_values)


class Core:
    """Sub-partitions in lock-step, fed by one shared memory."""

    def __init__(self, env: simpy.Environment, config: Config, scheme: Scheme, timeline: Timeline | None) -> None:
        self.env, self.config, self.scheme, self.timeline = env, config, scheme, timeline
        self.tally = Tally()
        words = scheme.words_per_step(config)
        # A cycle in ticks: divisible by the rows of a step, and by the words a cycle, times what a word is cut into.
        self.ticks_per_cycle = config.rows * config.smem_words_per_clk * words.denominator
        self.memory = SharedMemory(self, words.numerator)
        self.partitions = [SubPartition(self, number) for number in range(config.subpartitions)]

    def cycle(self, *, up: bool = False) -> int:
        """Return the present cycle, or with ``up`` the one by whose start all of the present is over."""
        now = int(self.env.now)
        return -(-now // self.ticks_per_cycle) if up else now // self.ticks_per_cycle

    def multiply(self, operands: Operands, outputs: list[np.ndarray]) -> Process:
        """Run one product, tile by tile of the mapping; its sums, (columns, rows), are added to ``outputs``."""
        gemm, lanes = operands.gemm, self.config.reduction_lanes
        mapping = Mapping.of(self.config, self.scheme, gemm)
        sums = np.zeros((gemm.columns, gemm.rows), np.float32)
        if operands.bias is not None:
            sums[:] = operands.bias
        outputs.append(sums)
        for rows, columns in self._tiles(gemm, mapping):
            for first in range(rows.start, rows.stop, self.config.rows):
                block = range(first, min(first + self.config.rows, rows.stop))
                for step in range(gemm.steps(self.config, self.scheme)):
                    kept = range(min(step * lanes, gemm.kept), min((step + 1) * lanes, gemm.kept))
                    yield from self._stationary(operands, sums, block, kept, columns)

    def _tiles(self, gemm: Gemm, mapping: Mapping) -> Generator[tuple[range, range]]:
        """Yield rows and columns that lie in shared memory, fetching from DRAM what was not there before."""
        rows = [range(at, min(at + mapping.rows, gemm.rows)) for at in range(0, gemm.rows, mapping.rows)]
        columns = [range(at, min(at + mapping.columns, gemm.columns)) for at in range(0, gemm.columns, mapping.columns)]
        order = (
            [(r, c) for c in columns for r in rows] if mapping.rows_first else [(r, c) for r in rows for c in columns]
        )
        held: tuple[range | None, range | None] = (None, None)
        for tile in order:
            if tile[0] != held[0]:
                self.tally.fetched_weights += len(tile[0]) * gemm.kept
            if tile[1] != held[1]:
                self.tally.fetched_inputs += len(tile[1]) * gemm.reduction
            held = tile
            yield tile

    def _stationary(self, operands: Operands, sums: np.ndarray, block: range, kept: range, columns: range) -> Process:
        """Hold the weights ``kept`` of the rows in ``block`` while ``columns`` pass, one a step."""
        start = self.cycle()
        rows = slice(block.start, block.stop)
        values = operands.values[rows, kept.start : kept.stop]
        chosen = operands.inputs[rows, kept.start : kept.stop]
        self.tally.loaded += values.size
        for column in columns:
            # What is fetched is used as it arrives: a step is over when both have had their time.
            fetched = self.memory.deliver(len(block))
            added = [partition.multiply(len(block)) for partition in self.partitions]
            yield self.env.all_of([fetched, *added])
            sums[column, rows] += (values * operands.vectors[column, chosen]).sum(axis=1)
            self.tally.macs += values.size
            self.tally.row_steps += len(block)
        if self.timeline is not None:
            what = f"rows {block.start} to {block.stop - 1}, kept {kept.start} to {kept.stop - 1}"
            self.timeline.interval("tensor core", what, start, self.cycle())


class SharedMemory:
    """One port of 42 words a clock that carries inputs, weights and metadata; ``words`` a step, in parts of a word."""

    def __init__(self, core: Core, words: int) -> None:
        self.core, self.words = core, words

    def deliver(self, rows: int) -> simpy.Event:
        """Return the event of having delivered a step's words, of which fewer ``rows`` take their share."""
        return self.core.env.timeout(self.words * rows)


class SubPartition:
    """16 rows of 16 multipliers, each with a mux on the inputs."""

    def __init__(self, core: Core, number: int) -> None:
        self.core, self.number = core, number

    def multiply(self, rows: int) -> simpy.Event:
        """Return the event of having added up a step of which ``rows`` take part, spread over all sub-partitions."""
        return self.core.env.timeout(rows * self.core.ticks_per_cycle // self.core.config.rows)
