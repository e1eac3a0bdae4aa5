"""The units of a GPU that runs a sparse convolution, tile by tile: the readable form of `gossamer.models.torchsparse`.

The stream launches kernels one after another. In a kernel a dispatcher hands tiles to SMs, which multiply step by step,
while DRAM and L2 move what the kernel reads and writes, item by item. Nothing here knows when a kernel will be done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ..dense import bias_of
from ..dispatch import Dispatcher
from ..waiting import pass_time
from .config import Config
from .groups import Group
from .plan import DIGIT, INDEX, KEY, POINT, SECTOR, Convolution

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from ....workloads.trace import Layer
    from .account import Account

Process = Generator[simpy.Event, Any, None]


@dataclass
class Tile:
    """Outputs of a CTA: ``offsets`` it runs through, ``rows`` it multiplies in all, and what it leaves when done."""

    offsets: int
    rows: int = 0
    finish: Callable[[], None] = lambda: None


@dataclass
class Job:
    """A kernel that is launched. ``tiles`` are dispatched in order; ``moves`` are bytes of DRAM and of L2."""

    name: str
    cause: str
    moves: list[tuple[int, int]]
    is_threads: bool = False
    tiles: list[Tile] = field(default_factory=list)


def run_convolution(
    account: Account,
    config: Config,
    layer: Layer,
    conv: Convolution,
    chosen: list[Group] | None,
    has_values: bool,
    timeline: Timeline | None,
) -> np.ndarray | None:
    """Return the outputs of ``layer``, float32 (outputs, width), if asked for; add what it costs to ``account``."""
    values = Values(layer, conv) if has_values else None
    work = Work(config, conv, values)
    gpu = Gpu(account, config, conv, timeline)
    gpu.run_all(work.jobs(chosen))
    return None if values is None else values.output()


def run_quantise(account: Account, config: Config, layer: Layer, timeline: Timeline | None) -> np.ndarray:
    """Return the voxels of a point_op ``layer``, int32 (voxels, 3), and add what they cost to ``account``."""
    side = np.float64(layer.attributes["voxel_size"])
    cells = {tuple(cell) for cell in np.floor(layer.inputs.astype(np.float64) / side).tolist()}
    count = len(layer.inputs)
    jobs = [Job("floor", "mapping", both(count * POINT, count * KEY))]
    jobs += [_pass(count, KEY, f"sort {digit}") for digit in range(0, 8 * KEY, DIGIT)]
    jobs.append(Job("unique", "mapping", both(count * (KEY + INDEX), count * INDEX, len(cells) * KEY)))
    Gpu(account, config, None, timeline).run_all(iter(jobs))
    return np.array(sorted(cells), np.int32)


class Gpu:
    """SMs behind one dispatcher, beside DRAM and L2."""

    def __init__(self, account: Account, config: Config, conv: Convolution | None, timeline: Timeline | None) -> None:
        self.env = simpy.Environment()
        self.account, self.config, self.conv, self.timeline = account, config, conv, timeline

    def run_all(self, jobs: Iterator[Job]) -> None:
        """Launch all ``jobs``, one after another."""
        self.env.process(self._stream(jobs))
        self.env.run()
        if self.timeline is not None:
            self.timeline.advance(int(self.env.now))

    def _stream(self, jobs: Iterator[Job]) -> Process:
        for job in jobs:
            yield from self.step("stream", f"launch {job.name}", self.config.launch_cycles)
            start = int(self.env.now)
            dispatcher = Dispatcher(self.env, iter(job.tiles), self.config.sm_count)
            sms = [self.env.process(self._sm(index, dispatcher)) for index in range(self.config.sm_count)]
            moved = [self.env.process(self._dram(job)), self.env.process(self._l2(job))]
            yield self.env.all_of(sms)
            computed = int(self.env.now) - start
            yield self.env.all_of(moved)
            spent = int(self.env.now) - start
            self.account.book(self.config, job.cause, computed, spent)
            self.account.kernels += 1
            if self.timeline is not None:
                self.timeline.interval("stream", job.name, start, start + spent)

    def _sm(self, index: int, dispatcher: Dispatcher[Tile]) -> Process:
        """Take tiles; of each, step through the channels of its offsets."""
        while True:
            tile = yield dispatcher.ask(index)
            if tile is None:
                return
            assert self.conv is not None
            start = int(self.env.now)
            yield self.env.timeout(self.config.fill_cycles)
            for _ in range(tile.offsets):
                for _ in range(0, self.conv.channels, self.config.tile_depth):
                    yield self.env.timeout(self.config.step_cycles(self.conv.width))
                    self.account.steps += 1
            tile.finish()
            self.account.tiles += 1
            self.account.rows += tile.rows
            if self.timeline is not None:
                self.timeline.interval(f"sm{index}", "tile", start, int(self.env.now))

    def _dram(self, job: Job) -> Process:
        rate = Fraction(self.config.dram_bytes_per_s) * Fraction(self.config.dram_efficiency)
        bytes_per_cycle = rate / Fraction(self.config.clock_hz)
        for moved in (dram for dram, _ in job.moves):
            self.account.dram[job.cause] += moved
        yield from self._move("dram", job, [dram for dram, _ in job.moves], bytes_per_cycle)

    def _l2(self, job: Job) -> Process:
        for moved in (l2 for _, l2 in job.moves):
            self.account.l2 += moved
        yield from self._move("l2", job, [l2 for _, l2 in job.moves], Fraction(self.config.l2_bytes_per_clk))

    def _move(self, track: str, job: Job, items: list[int], bytes_per_cycle: Fraction) -> Process:
        share = self.config.movement_share if job.is_threads else Fraction(1)
        begun, total = int(self.env.now), 0
        for item in items:
            total += item
            # Rounded on the sum, not on each item: fractions of a cycle are not lost between items.
            done = begun + math.ceil(total / (bytes_per_cycle * share))
            yield from self.step(track, job.name, done - int(self.env.now))

    def step(self, track: str, name: str, cycles: int) -> Process:
        """Pass ``cycles`` and note them in the timeline."""
        return pass_time(self.env, self.timeline, track, name, cycles)


class Values:
    """Features, weights and the sums that tiles leave."""

    def __init__(self, layer: Layer, conv: Convolution) -> None:
        self.inputs = layer.inputs.reshape(-1, conv.channels)
        self.weights = layer.weight.reshape(conv.width, conv.channels, -1)
        self.bias = bias_of(layer)
        self.sums = np.zeros((conv.outputs, conv.width), np.float32)

    def add(self, offset: int, into: np.ndarray, out: np.ndarray, columns: slice) -> None:
        """Add the products of some pairs of ``offset``, for some columns of the outputs."""
        self.sums[out, columns] += self.inputs[into] @ self.weights[columns, :, offset].T

    def output(self) -> np.ndarray:
        """Return the outputs, (outputs, width) float32."""
        return self.sums if self.bias is None else self.sums + self.bias


class Work:
    """The kernels of a convolution, from its pairs."""

    def __init__(self, config: Config, conv: Convolution, values: Values | None) -> None:
        self.config, self.conv, self.values = config, conv, values
        self.into, self.out = config.row_bytes(conv.channels), config.row_bytes(conv.width)
        self.weights = conv.channels * conv.width * config.value_bytes
        step = config.columns_of_tile(conv.width)
        self.columns = [slice(first, min(first + step, conv.width)) for first in range(0, conv.width, step)]

    def jobs(self, chosen: list[Group] | None) -> Iterator[Job]:
        """Return the kernels in order."""
        if self.conv.builds_map:
            yield from self.mapping()
        if self.conv.is_plain:
            if self.conv.is_gathered:
                rows = self.conv.outputs
                yield Job("gather", "gather", both(rows * INDEX, rows * self.into, rows * self.into), True)
            yield self.product([0], self.conv.outputs, "plain")
        elif self.config.dataflow == "implicit-gemm":
            yield from self.implicit()
        elif self.config.dataflow == "fetch-on-demand":
            yield from self.on_demand()
        else:
            assert chosen is not None
            yield from self.gather_scatter(chosen)

    def mapping(self) -> Iterator[Job]:
        """Return the kernels that find the maps."""
        conv, config = self.conv, self.config
        if conv.downsamples:
            yield from (_pass(conv.inputs, KEY, "downsample") for _ in range(0, 8 * KEY, DIGIT))
        slots = 2 * conv.inputs * (KEY + INDEX)
        keys = conv.inputs * KEY, conv.inputs * KEY
        yield Job("build table", "mapping", [keys, self.cached([2 * SECTOR] * conv.inputs, slots, slots)])
        looked_up = [SECTOR * config.probe_sectors * conv.outputs for _ in conv.maps]
        moves = [(conv.outputs * KEY, 0), self.cached(looked_up, slots, slots)]
        for into, _ in conv.maps:
            moves += both(2 * INDEX * conv.outputs, 2 * INDEX * len(into))
        yield Job("look up", "mapping", moves)
        if config.dataflow == "implicit-gemm" and config.mask_splits:
            for part in self.parts():
                for _ in range(0, len(part), DIGIT):
                    yield _pass(conv.outputs, -(-len(part) // 8), "sort masks")
            yield Job("reorder", "mapping", both(*(2 * INDEX * conv.outputs for _ in conv.maps)))

    def product(self, offsets: list[int], rows: int, name: str, *, adds: bool = False) -> Job:
        """Return the kernel that multiplies ``rows`` rows with the weights of each of ``offsets``."""
        moves, tiles = [], []
        for offset in offsets:
            into, out = self.conv.maps[offset]
            moves.append((rows * self.into, rows * self.into * len(self.columns)))
            moves += both(rows * self.out * (2 if adds else 1))
            moves.append((self.weights, 0))
            for columns in self.columns:
                for first in range(0, rows, self.config.tile_rows):
                    some = slice(first, min(first + self.config.tile_rows, rows))
                    counted = some.stop - some.start if columns.start == 0 else 0
                    tiles.append(Tile(1, counted, self.adding([(offset, into[some], out[some])], columns)))
            moves.append((0, self.weights * -(-rows // self.config.tile_rows)))
        return Job(name, "matmul", moves, False, tiles)

    def adding(self, pairs: list[tuple[int, np.ndarray, np.ndarray]], columns: slice) -> Callable[[], None]:
        """Return what adds the products of these pairs to the outputs."""
        values = self.values

        def add() -> None:
            if values is not None:
                for offset, into, out in pairs:
                    values.add(offset, into, out, columns)

        return add

    def gather_scatter(self, chosen: list[Group]) -> Iterator[Job]:
        """Return gather, products and scatter, all at once or map by map."""
        conv, is_fused = self.conv, self.config.fused_movement
        gathered = [offset for group in chosen for offset in group.offsets]
        maps = {offset: len(conv.maps[offset][0]) for offset in gathered if len(conv.maps[offset][0])}
        if is_fused and maps:
            rows, indices = [size * self.into for size in maps.values()], INDEX * conv.inputs * len(conv.maps)
            yield Job("gather", "gather", both(conv.inputs * self.into, indices, *rows), True)
        for offset, size in () if is_fused else maps.items():
            moves = both(2 * INDEX * size, size * self.into, size * self.into)
            yield Job(f"gather {offset}", "gather", moves, True)
        for group in chosen:
            if group.batched and any(group.sizes):
                yield self.product(list(group.offsets), max(group.sizes), "batch")
            elif not group.batched:
                yield from (self.product([o], maps[o], f"offset {o}") for o in group.offsets if o in maps)
        if is_fused and maps:
            rows, indices = [size * self.out for size in maps.values()], INDEX * conv.outputs * len(conv.maps)
            yield Job("scatter", "scatter", both(*rows, indices, conv.outputs * self.out), True)
        for offset, size in () if is_fused else maps.items():
            moves = both(2 * INDEX * size, size * self.out, 2 * size * self.out)
            yield Job(f"scatter {offset}", "scatter", moves, True)
        if conv.has_centre and conv.centre not in gathered:
            yield self.product([conv.centre], conv.outputs, "centre", adds=True)

    def on_demand(self) -> Iterator[Job]:
        """Return the product of the centre, and the kernel of all other offsets."""
        conv, across = self.conv, len(self.columns)
        if conv.has_centre:
            yield self.product([conv.centre], conv.outputs, "centre")
        tiles: list[Tile] = []
        moves: list[tuple[int, int]] = []
        reads, adds, sources, goals = [], [], set(), set()
        for offset, (into, out) in enumerate(conv.maps):
            if not len(into) or (conv.has_centre and offset == conv.centre):
                continue
            reads.append(len(into) * self.into * across)
            adds.append(2 * len(out) * self.out)
            sources |= set(into.tolist())
            goals |= set(out.tolist())
            job = self.product([offset], len(into), "")
            tiles += job.tiles
            moves += [(self.weights, self.weights * -(-len(into) // self.config.tile_rows))]
            moves += [(2 * INDEX * len(into), 2 * INDEX * len(into) * across)]
        if tiles:
            moves.append(self.cached(reads, conv.inputs * self.into, len(sources) * self.into))
            moves.append(self.cached(adds, conv.outputs * self.out, 2 * len(goals) * self.out))
            yield Job("all offsets", "matmul", moves, False, tiles)

    def implicit(self) -> Iterator[Job]:
        """Return a kernel for each part of the offsets, and the one that adds their sums."""
        conv, across = self.conv, len(self.columns)
        source = np.full((conv.outputs, len(conv.maps)), -1)
        for offset, (into, out) in enumerate(conv.maps):
            source[out, offset] = into
        parts = self.parts()
        for number, part in enumerate(parts):
            has = (source[:, part] >= 0).tolist()
            order = sorted(range(conv.outputs), key=has.__getitem__) if self.config.mask_splits else range(conv.outputs)
            met = {int(row) for row in source[:, part].ravel() if row >= 0}
            reads = [len(conv.maps[offset][0]) * self.into * across for offset in part]
            moves = [self.cached(reads, conv.inputs * self.into, len(met) * self.into)]
            moves += both(conv.outputs * self.out)
            moves += [(self.weights, 0) for _ in part]
            indices = INDEX * conv.outputs * len(part)
            moves.append((indices, indices * across))
            tiles = []
            for columns in self.columns:
                for first in range(0, conv.outputs, self.config.tile_rows):
                    rows = np.array(order[first : first + self.config.tile_rows])
                    pairs = []
                    for offset in part:
                        out = rows[source[rows, offset] >= 0]
                        if len(out):
                            pairs.append((offset, source[out, offset], out))
                    if columns.start == 0:
                        moves.append((0, len(pairs) * self.weights))
                    counted = len(pairs) * len(rows) if columns.start == 0 else 0
                    tiles.append(Tile(len(pairs), counted, self.adding(pairs, columns)))
            yield Job(f"part {number}", "matmul", moves, False, tiles)
        if len(parts) > 1:
            rows_of_sums = conv.outputs * self.out
            yield Job("add parts", "scatter", both(*(rows_of_sums for _ in parts), rows_of_sums), True)

    def parts(self) -> list[list[int]]:
        """Return the offsets in as many parts as masks are sorted by, the first ones longer by one if need be."""
        count = min(max(self.config.mask_splits, 1), len(self.conv.maps))
        offsets = list(range(len(self.conv.maps)))
        parts = []
        for left in range(count, 0, -1):
            size = -(-len(offsets) // left)
            parts.append(offsets[:size])
            offsets = offsets[size:]
        return parts

    def cached(self, items: list[int], footprint: int, touched: int) -> tuple[int, int]:
        """Return what DRAM and L2 move of ``items``, which touch bytes of a table that L2 may hold."""
        moved = sum(items)
        return (min(moved, touched) if footprint <= self.config.l2_bytes else moved), moved


def both(*items: int) -> list[tuple[int, int]]:
    """Return moves that pass DRAM and L2 alike."""
    return [(item, item) for item in items]


def _pass(count: int, key_bytes: int, name: str) -> Job:
    """Return a pass of a sort: keys and indices in and out."""
    return Job(name, "mapping", both(count * (key_bytes + INDEX), count * (key_bytes + INDEX)))
