"""The units of the weight-stationary array, clock edge by clock edge: the readable form of `gossamer.models.systolic`.

Nothing here knows the cycle formula: a tile ends when its last column has put out its last sum.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.lowering import Product
from .work import Account, Config, Gemm, dram_cycles

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]


def run_pass(
    account: Account,
    config: Config,
    work: list[Gemm],
    products: list[Product],
    timeline: Timeline | None,
) -> list[np.ndarray]:
    """Return the outputs of each product, (vectors, out) float32, and add what they cost to ``account``."""
    env = simpy.Environment()
    array = Array(env, account, config, timeline)
    dram = Dram(env, account, config, timeline)
    outputs: list[np.ndarray] = []
    computed = env.process(_compute(array, products, outputs))
    moved = env.process(dram.run(work))
    env.run(until=computed & moved if config.dram_bounds_latency else computed)
    array.close("memory")
    if timeline is not None:
        timeline.advance(int(env.now))
    return outputs


def _compute(array: Array, products: list[Product], outputs: list[np.ndarray]) -> Process:
    """Run the products one after another; column tiles outside, tiles along the reduction inside."""
    R, C = array.config.rows, array.config.columns
    for product in products:
        vectors, weight = product.vectors, product.weight.T  # (M, K), (K, N)
        bias = product.bias_values
        sums = np.zeros((len(vectors), weight.shape[1]), np.float32)  # the ofmap SRAM
        outputs.append(sums)
        for column in range(0, weight.shape[1], C):
            columns = slice(column, column + C)
            for row in range(0, weight.shape[0], R):
                if row == 0 and bias is not None:
                    sums[:, columns] = bias[columns]
                    array.account.count(filter_sram_reads=len(bias[columns]))
                tile = weight[row : row + R, columns]
                yield from array.load_weights(tile)
                yield from array.stream(vectors[:, row : row + R], sums[:, columns], tile.shape, resume=row > 0)


class Array:
    """Rows x columns of multiply-add cells: a weight held, inputs moving right, partial sums moving down."""

    def __init__(self, env: simpy.Environment, account: Account, config: Config, timeline: Timeline | None) -> None:
        self.env, self.account, self.config, self.timeline = env, account, config, timeline
        shape = (config.rows, config.columns)
        self.weight = np.zeros(shape, np.float32)
        self.input = np.zeros(shape, np.float32)
        self.valid = np.zeros(shape, bool)  # the register holds a vector's element, not a bubble
        self.sum = np.zeros(shape, np.float32)
        self.phase_start = 0
        self.started = False
        self.active = 0

    def edge(self) -> Process:
        """Wait for the next clock edge; the first one is at time 0."""
        if self.started:
            yield self.env.timeout(1)
        self.started = True

    def close(self, phase: str) -> None:
        """Book the cycles since the last phase ended under ``phase``."""
        now = int(self.env.now)
        self.account.causes[phase] += now - self.phase_start
        if self.timeline is not None:
            self.timeline.interval("array", phase, self.phase_start, now)
        self.phase_start = now

    def load_weights(self, tile: np.ndarray) -> Process:
        """Shift the tile in from the top, its last row first; rows and columns that it leaves free hold zeros."""
        rows = np.zeros_like(self.weight)
        rows[: tile.shape[0], : tile.shape[1]] = tile
        for row in reversed(range(self.config.rows)):
            yield from self.edge()
            self.weight[1:] = self.weight[:-1].copy()
            self.weight[0] = rows[row]
            if row < tile.shape[0]:
                self.account.count(filter_sram_reads=tile.shape[1])
        self.close("load")

    def stream(self, vectors: np.ndarray, sums: np.ndarray, used: tuple[int, ...], resume: bool) -> Process:
        """Send ``vectors`` (M, rows used) through; ``sums`` (M, columns used) go in at the top and come out below."""
        R, C, count = self.config.rows, self.config.columns, len(vectors)
        rows, columns = np.arange(R), np.arange(C)
        left = np.zeros(C, np.int64)  # sums that have left each column
        step = 0
        while left[-1] < count:
            yield from self.edge()
            # Row r gets vector step - r, column c the sum of vector step - c: the skew of the feeders.
            entering = (step - rows >= 0) & (step - rows < count)
            self.input[:, 1:] = self.input[:, :-1].copy()
            self.valid[:, 1:] = self.valid[:, :-1].copy()
            self.input[:, 0] = 0
            self.valid[:, 0] = entering
            read = rows[entering & (rows < used[0])]
            self.input[read, 0] = vectors[step - read, read]
            above = np.zeros(C, np.float32)
            topped = columns[(step - columns >= 0) & (step - columns < count) & (columns < used[1])]
            above[topped] = sums[step - topped, topped]
            arriving = np.vstack([above[None], self.sum[:-1]])
            self.sum = arriving + self.weight * self.input
            leaving = columns[self.valid[-1]]
            written = leaving[leaving < used[1]]
            sums[left[written], written] = self.sum[-1, written]
            left[leaving] += 1
            active = int(np.count_nonzero(self.valid[: used[0], : used[1]]))
            self.account.count(
                macs=active,
                register_reads=3 * active,
                ifmap_sram_reads=len(read),
                ofmap_sram_reads=len(topped) if resume else 0,
                ofmap_sram_writes=len(written),
            )
            self._show(active)
            step += 1
            if step == count:
                self.close("compute")
        self.close("fill_drain")
        self._show(0)

    def _show(self, active: int) -> None:
        if self.timeline is not None and active != self.active:
            self.timeline.change("active_cells", int(self.env.now), active)
        self.active = active


class Dram:
    """One channel that moves everything in the order in which the tiles need it, as early as its bandwidth lets it."""

    def __init__(self, env: simpy.Environment, account: Account, config: Config, timeline: Timeline | None) -> None:
        self.env, self.account, self.config, self.timeline = env, account, config, timeline
        self.words = 0

    def run(self, work: list[Gemm]) -> Process:
        """Move the operands of ``work``, tile by tile."""
        for gemm in work:
            for column in range(0, gemm.outputs, self.config.columns):
                columns = min(self.config.columns, gemm.outputs - column)
                if column == 0 or not gemm.inputs_fit(self.config):
                    yield from self.fetch("ifmap", gemm.input_words)
                if gemm.has_bias:
                    yield from self.fetch("filter", columns)
                for row in range(0, gemm.depth, self.config.rows):
                    yield from self.fetch("filter", columns * min(self.config.rows, gemm.depth - row))
                    if row and not gemm.sums_fit(self.config):
                        yield from self.fetch("ofmap", columns * gemm.vectors)
                    if row + self.config.rows >= gemm.depth or not gemm.sums_fit(self.config):
                        yield from self.store(columns * gemm.vectors)

    def fetch(self, sram: str, words: int) -> Process:
        """Move ``words`` into ``sram``."""
        self.account.count(**{"dram_reads": words, f"{sram}_sram_writes": words})
        yield from self._move(f"read {sram}", words)

    def store(self, words: int) -> Process:
        """Move ``words`` of sums out of their SRAM."""
        self.account.count(dram_writes=words, ofmap_sram_reads=words)
        yield from self._move("write ofmap", words)

    def _move(self, what: str, words: int) -> Process:
        start = int(self.env.now)
        self.words += words
        if self.config.dram_bounds_latency:
            # Rounded on the sum, not on each move: fractions of a cycle are not lost between moves.
            yield self.env.timeout(dram_cycles(self.words, self.config) - start)
            if self.timeline is not None:
                self.timeline.interval("dram", what, start, int(self.env.now))
