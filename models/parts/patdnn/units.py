"""The units of a core that runs pattern code: front end, load ports, multiply-add ports, and an L1 that is filled.

The readable form of `parts.patdnn.timing`. Nothing here knows a tile's cost: a tile ends when its outputs are stored
and its data have come. Multiply-adds are done when their time is, on the values of the layer.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ..dense import bias_of
from ..dispatch import Dispatcher
from .config import Config
from .plan import Geometry, Kernels, Plan, Tile, blocks_of, input_words, tiles_of
from .run import (
    COMPUTE,
    DISPATCHES,
    FILL,
    FMAS,
    INPUT_LOADS,
    LOAD,
    OVERHEAD,
    SPILLS,
    STEPS,
    STORES,
    SWITCH,
    SWITCHES,
    WEIGHT_LOADS,
    Run,
)
from .timing import front_cycles

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline
    from ....workloads.trace import Layer

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Step:
    """What the kernels (filter, channel) of one ``pattern`` ask for together.

    ``inputs``: how many different vectors lie under each place; ``registers``: sets of outputs that are added to.
    """

    pattern: int
    kernels: tuple[tuple[int, int], ...]
    inputs: int
    registers: int


@dataclass(frozen=True)
class Item:
    """A tile of a sample's outputs, for the filters of one block."""

    block: int
    sample: int
    tile: int


class L1:
    """What is left in a core's L1 when a tile is begun.

    A block's weights stay while the core goes on with the block, if they fit beside the tile's activations; a tile's
    activations stay while the core goes on with the tile, if those of all channels fit beside the block's weights.
    Where all that the layer has fits, what came once is there.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.block: int | None = None
        self.tile: tuple[int, int] | None = None
        self.blocks: set[int] = set()
        self.tiles: set[tuple[int, int]] = set()

    def ask(self, item: Item) -> tuple[int, int]:
        """Return the bytes of activations and of weights that must come for ``item``, and keep them."""
        work, tile = self.work, (item.sample, item.tile)
        capacity = work.config.l1_bytes
        weights = work.weight_bytes[item.block]
        own, whole = (
            count * work.words[item.tile] * work.config.word_bytes
            for count in (len(work.channels[item.block]), len(work.all_channels))
        )
        there = self.block == item.block and weights + own <= capacity
        there = there or (work.keeps_weights and item.block in self.blocks)
        fits = whole + weights <= capacity
        here = (self.tile == tile and fits) or (work.keeps_inputs and tile in self.tiles)
        wanted = whole if work.keeps_inputs or (work.plan.order == "tiles" and fits) else own
        self.block, self.tile = item.block, tile
        self.blocks.add(item.block)
        self.tiles.add(tile)
        return 0 if here else wanted, 0 if there else weights


class Work:
    """A layer cut into blocks and tiles, its padded activations, and the sums of its outputs."""

    def __init__(self, layer: Layer, kernels: Kernels, geometry: Geometry, plan: Plan, config: Config) -> None:
        self.kernels, self.geometry, self.config = kernels, geometry, config
        self.plan = plan.limited(geometry, kernels, config)
        self.blocks, self.of_core = blocks_of(kernels, self.plan.block, config)
        self.tiles = tiles_of(geometry, self.plan, config)
        self.words = [input_words(geometry, tile, config) for tile in self.tiles]
        self.places = [[int(p) for p in np.flatnonzero(pattern)] for pattern in kernels.patterns]
        self.steps = [self._steps(block) for block in self.blocks]
        self.channels = [{c for step in steps for _, c in step.kernels} for steps in self.steps]
        self.all_channels = set().union(*self.channels)
        per_kernel = 2 if config.sparse and not geometry.is_linear else 0
        self.weight_bytes = [
            sum((len(self.places[step.pattern]) * config.word_bytes + per_kernel) * len(step.kernels) for step in steps)
            for steps in self.steps
        ]
        most = max(len(channels) * words * config.word_bytes for channels in self.channels for words in set(self.words))
        whole = len(self.all_channels) * geometry.in_height * geometry.in_width * geometry.samples * config.word_bytes
        self.keeps_weights = sum(self.weight_bytes) + most <= config.l1_bytes
        self.keeps_inputs = whole + max(self.weight_bytes) <= config.l1_bytes
        if geometry.is_linear:
            self.inputs = np.ascontiguousarray(layer.weight.T)[None, :, None, :]  # (1, channels, 1, outputs)
        else:
            top, left = layer.attributes["padding"]
            self.inputs = np.pad(layer.inputs, ((0, 0), (0, 0), (top, top), (left, left)))
        shape = (geometry.samples, len(kernels.order), geometry.height, geometry.width)
        self.sums = np.zeros(shape, np.float32)

    def _steps(self, block: np.ndarray) -> list[Step]:
        """Return the steps of a block in the order of its code."""
        lists = [self._kernels(int(filter_)) for filter_ in block]
        if self.config.lane_filters > 1:
            return [step for slot in range(max(map(len, lists))) for step in self._slot(lists, slot)]
        queue = sorted(kernel for kernels in lists for kernel in kernels)
        steps: list[Step] = []
        before = None
        for key, pattern, kernel in queue:
            if key == before and self.config.filter_lre:
                last = steps[-1]
                steps[-1] = Step(pattern, (*last.kernels, kernel), 1, last.registers + 1)
            else:
                steps.append(Step(pattern, (kernel,), 1, 1))
            before = key
        return steps

    def _kernels(self, filter_: int) -> list[tuple[tuple[int, int], int, tuple[int, int]]]:
        """Return a filter's kernels in order: what they are sorted by, their pattern, and filter and channel."""
        found = []
        first = int(self.kernels.first_channel[filter_])
        for channel, pattern in enumerate(self.kernels.pattern_of[filter_].tolist()):
            if pattern >= 0:
                place = first + channel
                by_pattern = self.config.sparse and self.config.reorder
                found.append(((pattern, place) if by_pattern else (place, pattern), pattern, (filter_, place)))
        return sorted(found)

    def _slot(self, lists: list[list[Any]], slot: int) -> Iterator[Step]:
        """Yield the steps of filters in lockstep: their kernels in one place, pattern by pattern."""
        present = [kernels[slot] for kernels in lists if slot < len(kernels)]
        for pattern in dict.fromkeys(pattern for _, pattern, _ in present):
            mine = tuple(kernel for _, other, kernel in present if other == pattern)
            inputs = len({channel for _, channel in mine}) if self.config.filter_lre else len(mine)
            yield Step(pattern, mine, inputs, 1)

    def items(self, blocks: list[int]) -> Iterator[Item]:
        """Yield the items of ``blocks`` in the loop order of the plan."""
        tiles = [(sample, tile) for sample in range(self.geometry.samples) for tile in range(len(self.tiles))]
        if self.plan.order == "tiles":
            yield from (Item(block, sample, tile) for sample, tile in tiles for block in blocks)
        else:
            yield from (Item(block, sample, tile) for block in blocks for sample, tile in tiles)

    def vectors_under(self, pattern: int, tile: Tile) -> int:
        """Return the loads of input vectors that one kernel of ``pattern`` needs for one vector of ``tile``."""
        cost = min(self.geometry.stride[1], self.config.lanes)
        under = [
            (place // self.geometry.kernel[1] * self.geometry.dilation[0] + row * self.geometry.stride[0],
             place % self.geometry.kernel[1])
            for place in self.places[pattern] for row in range(tile.rows)
        ]  # fmt: skip
        return cost * len(set(under) if self.config.kernel_lre else under)

    def multiply(self, item: Item, step: Step) -> None:
        """Add what the step's kernels give to the tile's outputs."""
        tile, geometry = self.tiles[item.tile], self.geometry
        rows, columns = self._outputs(tile)
        for filter_, channel in step.kernels:
            weights = self.kernels.weight[filter_, channel - int(self.kernels.first_channel[filter_])]
            for place in self.places[step.pattern]:
                down, across = divmod(place, geometry.kernel[1])
                given = self.inputs[
                    item.sample, channel,
                    rows * geometry.stride[0] + down * geometry.dilation[0],
                    columns * geometry.stride[1] + across * geometry.dilation[1],
                ]  # fmt: skip
                self.sums[item.sample, filter_, rows, columns] += weights[place] * given

    def _outputs(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the tile's outputs."""
        width = self.geometry.width
        if self.config.flat_lanes:
            high, columns = np.divmod(tile.column + np.arange(tile.count), width)
            rows = (high[:, None] * tile.rows + np.arange(tile.rows)).ravel()
            columns = np.repeat(columns, tile.rows)
            inside = rows < self.geometry.height
            return rows[inside], columns[inside]
        found = np.mgrid[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.count]
        return found[0].ravel(), found[1].ravel()

    def outputs(self, layer: Layer) -> np.ndarray:
        """Return the outputs, (vectors, out), the bias added."""
        bias = bias_of(layer)
        if self.geometry.is_linear:
            found = self.sums[0, :, 0, :]
        else:
            found = self.sums.transpose(0, 2, 3, 1).reshape(-1, self.sums.shape[1])
        return found if bias is None else found + bias


class Core:
    """One core: its items one after another, each computed and filled at the same time."""

    def __init__(self, env: simpy.Environment, index: int, work: Work, run: Run, timeline: Timeline | None) -> None:
        self.env, self.index, self.work, self.run, self.timeline = env, index, work, run, timeline
        self.config = work.config
        self.l1 = L1(work)
        self.dispatch, self.switch = front_cycles(work.kernels, work.config)
        self.widest = max((self._weight_loads(p) for p in range(len(work.places))), default=0)

    def static(self) -> Process:
        """Work off the blocks that are this core's."""
        for item in self.work.items(self.work.of_core[self.index]):
            yield from self.item(item)

    def dynamic(self, dispatcher: Dispatcher[Item]) -> Process:
        """Ask for items until there are no more."""
        while True:
            item = yield dispatcher.ask(self.index)
            if item is None:
                return
            yield from self.item(item)

    def item(self, item: Item) -> Process:
        """Compute a tile while its data come."""
        inputs, weights = self.l1.ask(item)
        self.run.fills[self.index] += (inputs, weights)
        computed = self.env.process(self.compute(item))
        filled = self.env.process(self.fill(inputs + weights))
        yield computed
        end = self.env.now
        yield filled
        self.run.causes[self.index, FILL] += self.env.now - end
        self.run.done[self.index] = self.env.now

    def fill(self, count: int) -> Process:
        """Bring ``count`` bytes from L2."""
        cycles = -(-count // self.config.l2_bytes_per_clk)
        self.show("fill", f"{count} bytes", cycles)
        yield self.env.timeout(cycles)

    def compute(self, item: Item) -> Process:
        """Begin the tile, let front end and ports work through its steps, and store its outputs."""
        tile = self.work.tiles[item.tile]
        filters = 1 if self.config.lane_filters > 1 else len(self.work.blocks[item.block])
        outputs = tile.rows * tile.vectors * filters
        self.show("core", "begin", self.config.item_cycles)
        yield self.env.timeout(self.config.item_cycles)
        window = simpy.Container(self.env, self.config.window, self.config.window)
        loaded: simpy.Store = simpy.Store(self.env)
        steps = self.work.steps[item.block]
        self.env.process(self.load(steps, tile, outputs, filters, window, loaded))
        yield self.env.process(self.multiply(item, steps, window, loaded))
        stored = -(-outputs // self.config.store_ports)
        self.show("store", f"{outputs} vectors", stored)
        yield self.env.timeout(stored)
        self.run.counts[STORES] += outputs
        self.run.causes[self.index, OVERHEAD] += self.config.item_cycles + stored

    def load(
        self, steps: list[Step], tile: Tile, outputs: int, filters: int, window: simpy.Container, loaded: simpy.Store
    ) -> Process:
        """Find each step's code, and load what it multiplies, as far ahead as the window lets it."""
        spills = 2 * max(0, outputs + 2 + filters * self.widest - self.config.registers)
        counts, before = self.run.counts, None
        for step in steps:
            yield window.get(1)
            lost = self.dispatch
            counts[DISPATCHES] += self.dispatch > 0
            if step.pattern != before:
                lost += self.switch
                counts[SWITCHES] += self.switch > 0
            before = step.pattern
            self.show("front", f"pattern {step.pattern}", self.config.kernel_cycles + lost)
            yield self.env.timeout(self.config.kernel_cycles + lost)
            inputs = self.work.vectors_under(step.pattern, tile) * tile.vectors * step.inputs
            weights = self._weight_loads(step.pattern) * len(step.kernels)
            cycles = -(-(inputs + weights + spills) * self.config.load_cycles // self.config.load_ports)
            self.show("load", f"pattern {step.pattern}", cycles)
            yield self.env.timeout(cycles)
            counts[[INPUT_LOADS, WEIGHT_LOADS, SPILLS, STEPS]] += (inputs, weights, spills, 1)
            loaded.put((int(self.env.now) + self.config.load_latency, lost))

    def multiply(self, item: Item, steps: list[Step], window: simpy.Container, loaded: simpy.Store) -> Process:
        """Multiply and add, step by step, once the operands are there."""
        tile, causes = self.work.tiles[item.tile], self.run.causes[self.index]
        for step in steps:
            begin = int(self.env.now)
            ready, lost = yield loaded.get()
            yield self.env.timeout(max(0, ready - int(self.env.now)))
            gap = int(self.env.now) - begin
            causes[SWITCH] += min(gap, lost)
            causes[LOAD] += gap - min(gap, lost)
            kept = len(self.work.places[step.pattern])
            fmas = kept * tile.rows * tile.vectors * step.registers
            cycles = max(-(-fmas // self.config.fma_ports), kept * self.config.fma_latency)
            self.show("fma", f"pattern {step.pattern}", cycles)
            yield self.env.timeout(cycles)
            if self.config.functional:
                self.work.multiply(item, step)
            causes[COMPUTE] += cycles
            self.run.counts[FMAS] += fmas
            yield window.put(1)

    def _weight_loads(self, pattern: int) -> int:
        return -(-len(self.work.places[pattern]) // self.config.vector_width)

    def show(self, unit: str, what: str, cycles: int) -> None:
        """Tell the timeline that ``unit`` begins now, for ``cycles``."""
        if self.timeline is not None:
            now = int(self.env.now)
            self.timeline.interval(f"core{self.index}.{unit}", what, now, now + cycles)


def run_units(
    layer: Layer, kernels: Kernels, geometry: Geometry, plan: Plan, config: Config, timeline: Timeline | None
) -> tuple[Run, np.ndarray | None]:
    """Return what the layer costs, and its outputs, (vectors, out) float32, None where the cost alone is asked for."""
    work = Work(layer, kernels, geometry, plan, config)
    run = Run.of(config.cores)
    env = simpy.Environment()
    cores = [Core(env, index, work, run, timeline) for index in range(config.cores)]
    if config.schedule == "dynamic":
        dispatcher = Dispatcher(env, work.items(list(range(len(work.blocks)))), config.cores)
        for core in cores:
            env.process(core.dynamic(dispatcher))
    else:
        for core in cores:
            env.process(core.static())
    env.run()
    if timeline is not None:
        timeline.advance(run.cycles)
    return run, work.outputs(layer) if config.functional else None
