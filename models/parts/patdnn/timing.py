"""The recurrences of vector code: what a tile of a block of filters costs, and how cores go through all of them.

A step is what one kernel asks for (of several filters where they share it). With ``front`` cycles of the front end,
``load`` of the load ports and ``fma`` of the multiply-add ports, and W steps of run-ahead,

    loaded[i]   = max(loaded[i-1], done[i-W]) + front[i] + load[i]
    started[i]  = max(done[i-1], loaded[i] + load_latency)
    done[i]     = started[i] + fma[i]

and a tile takes item_cycles, then its steps, then the storing of its outputs; or the time that its data take from L2
to L1, if that is longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ..counting import check_count
from ..dispatch import first_free
from .config import Config
from .plan import Geometry, Kernels, Plan, Tile, blocks_of, input_words
from .run import (
    COMPUTE,
    COUNTS,
    DISPATCHES,
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
from .traffic import Traffic


@dataclass(frozen=True, eq=False)
class Code:
    """The code of a layer for blocks of so many filters: their steps, and the bytes that blocks ask for.

    ``steps`` (steps, 4): of each its pattern, the kernels in it, the transactions of each input vector, and how many
    registers' worth of multiply-adds (of lanes in lockstep: one for all). ``start`` (blocks + 1,): where each block's
    begin. ``sizes`` (blocks,): registers' worth of outputs. ``bytes`` (blocks,): of their weights; ``channels``
    (blocks,): input channels that they meet, ``everything`` of all.
    """

    blocks: list[np.ndarray]
    of_core: list[list[int]]
    steps: np.ndarray
    start: np.ndarray
    sizes: np.ndarray
    bytes: np.ndarray
    channels: np.ndarray
    everything: int

    @classmethod
    def of(cls, kernels: Kernels, geometry: Geometry, block: int, config: Config) -> Code:
        """Return the code for blocks of ``block`` filters."""
        blocks, of_core = blocks_of(kernels, block, config)
        steps, start = _lay_out(kernels, blocks, config)
        per_kernel = 2 if config.sparse and not geometry.is_linear else 0  # its index
        of_filter = kernels.weights_of * config.word_bytes + kernels.lengths * per_kernel
        used = [channels_of(kernels, block) for block in blocks]
        return cls(
            blocks,
            of_core,
            steps,
            start,
            np.array([1 if config.lane_filters > 1 else len(block) for block in blocks], np.int64),
            np.array([of_filter[block].sum() for block in blocks], np.int64),
            np.array([mine.sum() for mine in used], np.int64),
            int(np.any(used, axis=0).sum()),
        )


class Layout:
    """A layer on a machine, to be gone through with one plan after another; what plans share is worked out once."""

    def __init__(self, kernels: Kernels, geometry: Geometry, config: Config) -> None:
        self.kernels, self.geometry, self.config = kernels, geometry, config
        self._codes: dict[int, Code] = {}
        self._costs: dict[Plan, tuple[list[Tile], np.ndarray, np.ndarray, np.ndarray]] = {}

    def limited(self, plan: Plan) -> Plan:
        """Return the plan with no tile larger than the layer."""
        return plan.limited(self.geometry, self.kernels, self.config)

    def run(self, plan: Plan) -> Run:
        """Return what the layer costs with the code of ``plan``."""
        plan, config, geometry = self.limited(plan), self.config, self.geometry
        if plan.block not in self._codes:
            self._codes[plan.block] = Code.of(self.kernels, geometry, plan.block, config)
        code = self._codes[plan.block]
        shape = replace(plan, order="")
        if shape not in self._costs:
            self._costs[shape] = self._tiles(plan, code)
        kinds, kind_of, causes, counts = self._costs[shape]
        words = np.array([input_words(geometry, kind, config) for kind in kinds], np.int64) * config.word_bytes
        of_both, of_tile = code.channels[:, None] * words, code.everything * words
        whole = code.everything * geometry.in_height * geometry.in_width * geometry.samples * config.word_bytes
        run = Run.of(config.cores)
        items = len(code.blocks) * geometry.samples * len(kind_of)
        filled = -(-(int(code.bytes.max()) + int(max(of_both.max(), of_tile.max()))) // config.l2_bytes_per_clk)
        computed = int(causes.sum(axis=2).max())
        check_count(config, {"item_cycles": items * computed, "l2_bytes_per_clk": items * filled}, times=config.cores)
        _go_through(
            np.array([block for mine in code.of_core for block in mine], np.int64),
            np.cumsum([0, *(len(mine) for mine in code.of_core)]),
            kind_of, geometry.samples, plan.order == "tiles", config.schedule == "dynamic", causes, counts, code.bytes,
            of_tile, of_both, int(code.bytes.sum()) + int(of_both.max()) <= config.l1_bytes,
            whole + int(code.bytes.max()) <= config.l1_bytes, config.l1_bytes, config.l2_bytes_per_clk,
            run.causes, run.done, run.counts, run.fills,
        )  # fmt: skip
        return run

    def cycles(self, plan: Plan) -> int:
        """Return when the layer is done, DRAM counted."""
        run = self.run(plan)
        traffic = Traffic.of(self.kernels, self.geometry, self.limited(plan), run, self.config)
        return max(run.cycles, traffic.dram_cycles(self.config))

    def _tiles(self, plan: Plan, code: Code) -> tuple[list[Tile], np.ndarray, np.ndarray, np.ndarray]:
        """Return the kinds of tiles, the kind of each, and the causes and counts of each block and kind."""
        kernels, config = self.kernels, self.config
        kinds, kind_of = _kinds(self.geometry, plan, config)
        causes = np.zeros((len(code.blocks), len(kinds), 5), np.int64)
        counts = np.zeros((len(code.blocks), len(kinds), len(COUNTS)), np.int64)
        per_kernel = -(-kernels.kept // config.vector_width)
        for number, kind in enumerate(kinds):
            _tile_costs(
                code.steps, code.start, code.sizes, kernels.kept,
                vectors_under(kernels, self.geometry, kind.rows, config), per_kernel, kind.rows, kind.vectors,
                *front_cycles(kernels, config), config.kernel_cycles, int(per_kernel.max(initial=0)), config.registers,
                config.load_ports, config.load_cycles, config.fma_ports, config.store_ports, config.fma_latency,
                config.load_latency, config.window, config.item_cycles, causes[:, number], counts[:, number],
            )  # fmt: skip
        return kinds, kind_of, causes, counts


def channels_of(kernels: Kernels, block: np.ndarray) -> np.ndarray:
    """Return which input channels the filters of ``block`` meet, (channels,) bool."""
    used = np.zeros(kernels.channels, bool)
    for filter_ in block:
        first = kernels.first_channel[filter_]
        used[first : first + kernels.pattern_of.shape[1]] |= kernels.pattern_of[filter_] >= 0
    return used


def vectors_under(kernels: Kernels, geometry: Geometry, rows: int, config: Config) -> np.ndarray:
    """Return how many input vectors each pattern loads for ``rows`` output rows of one vector, (patterns,) int64.

    Without elimination one a multiply-add; with it each once, told apart by input row and by column of the kernel.
    A column stride asks for as many loads.
    """
    cost = min(geometry.stride[1], config.lanes)
    if not config.kernel_lre:
        return kernels.kept * rows * cost
    row, column = np.divmod(np.arange(kernels.patterns.shape[1]), geometry.kernel[1])
    under = row[:, None] * geometry.dilation[0] + np.arange(rows) * geometry.stride[0]  # (places, rows)
    key = under * geometry.kernel[1] + column[:, None]
    return np.array([len(np.unique(key[pattern])) * cost for pattern in kernels.patterns], np.int64)


def front_cycles(kernels: Kernels, config: Config) -> tuple[int, int]:
    """Return the cycles of finding a kernel's pattern, and those lost where it is not the one of the kernel before."""
    if not config.sparse or len(kernels.patterns) < 2:
        return 0, 0
    return 0 if config.reorder else config.dispatch_cycles, config.switch_cycles


def _kinds(geometry: Geometry, plan: Plan, config: Config) -> tuple[list[Tile], np.ndarray]:
    """Return one tile of each size, and the number of the size that each tile of `tiles_of` has.

    They are a grid, of which only the last row and the last column may be smaller.
    """
    across = plan.vectors * config.lanes
    high, wide = geometry.height, geometry.width
    if config.flat_lanes:
        high, wide = plan.rows, -(-geometry.height // plan.rows) * geometry.width
    rows, columns = np.full(-(-high // plan.rows), plan.rows), np.full(-(-wide // across), across)
    rows[-1] += high - rows.sum()
    columns[-1] += wide - columns.sum()
    sizes, kind_of = np.unique((rows[:, None] * (across + 1) + columns).ravel(), return_inverse=True)
    kinds = [(int(size) // (across + 1), int(size) % (across + 1)) for size in sizes]
    return [Tile(0, 0, tall, -(-count // config.lanes), count) for tall, count in kinds], kind_of


def _lay_out(kernels: Kernels, blocks: list[np.ndarray], config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of every block, (steps, 4), and where each block's start, (blocks + 1,); see `Code`."""
    steps = np.empty((int(kernels.lengths.sum()), 4), np.int64)
    start = np.zeros(len(blocks) + 1, np.int64)
    filters = np.concatenate(blocks)
    ends = np.cumsum([len(block) for block in blocks])
    lay_out = _lockstep if config.lane_filters > 1 else _merged
    by_pattern = config.sparse and config.reorder
    lay_out(
        kernels.pattern_of, kernels.first_channel, filters, ends, len(kernels.patterns), kernels.channels, by_pattern,
        config.filter_lre, steps, start,
    )  # fmt: skip
    return steps[: start[-1]], start


@njit(cache=True)
def _keys(pattern_of, first_channel, filter_, patterns, channels, by_pattern, keys, found):  # type: ignore[no-untyped-def]
    """Append a key for each kernel of the filter: its pattern and its channel, the one that comes first in front."""
    for channel in range(pattern_of.shape[1]):
        pattern = np.int64(pattern_of[filter_, channel])
        if pattern >= 0:
            place = first_channel[filter_] + channel
            keys[found] = pattern * channels + place if by_pattern else place * patterns + pattern
            found += 1
    return found


@njit(cache=True)
def _merged(pattern_of, first_channel, filters, ends, patterns, channels, by_pattern, merge, steps, start):  # type: ignore[no-untyped-def]
    """Lay out blocks whose filters go one kernel after another; those of one pattern and channel are one step."""
    first = np.int64(0)
    step = np.int64(0)
    for block in range(len(ends)):
        keys = np.empty((ends[block] - first) * pattern_of.shape[1], np.int64)
        found = np.int64(0)
        for place in range(first, ends[block]):
            found = _keys(pattern_of, first_channel, filters[place], patterns, channels, by_pattern, keys, found)
        keys = np.sort(keys[:found])
        for place in range(found):
            if merge and place and keys[place] == keys[place - 1]:
                steps[step - 1, 1] += 1
                steps[step - 1, 3] += 1
                continue
            steps[step, 0] = keys[place] // channels if by_pattern else keys[place] % patterns
            steps[step, 1:] = 1
            step += 1
        first = ends[block]
        start[block + 1] = step


@njit(cache=True)
def _lockstep(pattern_of, first_channel, filters, ends, patterns, channels, by_pattern, merge, steps, start):  # type: ignore[no-untyped-def]
    """Lay out blocks whose filters share a vector's lanes: kernel by kernel, patterns that differ one after another."""
    first = np.int64(0)
    step = np.int64(0)
    for block in range(len(ends)):
        size = ends[block] - first
        keys = np.empty((size, pattern_of.shape[1]), np.int64)
        lengths = np.zeros(size, np.int64)
        for lane in range(size):
            row = keys[lane]
            lengths[lane] = _keys(
                pattern_of, first_channel, filters[first + lane], patterns, channels, by_pattern, row, np.int64(0)
            )
            row[: lengths[lane]] = np.sort(row[: lengths[lane]])
        for slot in range(lengths.max()):
            begun = step
            for lane in range(size):
                if slot >= lengths[lane]:
                    continue
                key = keys[lane, slot]
                pattern = key // channels if by_pattern else key % patterns
                mine = begun
                while mine < step and steps[mine, 0] != pattern:
                    mine += 1
                if mine == step:
                    steps[step, 0] = pattern
                    steps[step, 1:3] = 0
                    steps[step, 3] = 1
                    step += 1
                steps[mine, 1] += 1
                same = False  # lanes that meet one channel under one pattern have one key
                for other in range(lane):
                    same |= slot < lengths[other] and keys[other, slot] == key
                steps[mine, 2] += not (merge and same)
        first = ends[block]
        start[block + 1] = step


@njit(cache=True)
def _tile_costs(  # type: ignore[no-untyped-def]
    steps, start, block_size, kept, under, per_kernel, rows, vectors, dispatch, switch, kernel_cycles, widest,
    registers, load_ports, load_cycles, fma_ports, store_ports, fma_latency, load_latency, window, item_cycles, causes,
    counts
):  # fmt: skip
    """Fill the causes (blocks, 5) and counts (blocks, 8) of a tile of this size, by the recurrences."""
    held = np.zeros(window, np.int64)
    for block in range(len(start) - 1):
        size = block_size[block]
        spills = 2 * max(0, rows * vectors * size + 2 + size * widest - registers)
        loaded = np.int64(0)
        done = np.int64(0)
        before = np.int64(-1)
        cause, count = causes[block], counts[block]
        for step in range(start[block], start[block + 1]):
            pattern = steps[step, 0]
            number = step - start[block]
            lost = dispatch
            if pattern != before:
                lost += switch
                count[SWITCHES] += switch > 0
            before = pattern
            loads = under[pattern] * vectors * steps[step, 2]
            weights = per_kernel[pattern] * steps[step, 1]
            fmas = kept[pattern] * rows * vectors * steps[step, 3]
            begin = max(loaded, held[number % window]) if number >= window else loaded
            loaded = (
                begin + kernel_cycles + lost + ((loads + weights + spills) * load_cycles + load_ports - 1) // load_ports
            )
            started = max(done, loaded + load_latency)
            gap = started - done
            cause[SWITCH] += min(gap, lost)
            cause[LOAD] += gap - min(gap, lost)
            busy = max((fmas + fma_ports - 1) // fma_ports, kept[pattern] * fma_latency)
            cause[COMPUTE] += busy
            done = started + busy
            held[number % window] = done
            count[FMAS] += fmas
            count[INPUT_LOADS] += loads
            count[WEIGHT_LOADS] += weights
            count[SPILLS] += spills
            count[STEPS] += 1
            count[DISPATCHES] += dispatch > 0
        count[STORES] += rows * vectors * size
        cause[OVERHEAD] += item_cycles + (rows * vectors * size + store_ports - 1) // store_ports


@njit(cache=True)
def _go_through(  # type: ignore[no-untyped-def]
    flat, first, kind_of, samples, tiles_outside, dynamic, causes, counts, of_block, of_tile, of_both, keep_weights,
    keep_inputs, l1_bytes, l2_bytes_per_clk, core_causes, done, all_counts, fills
):  # fmt: skip
    """Take the cores through their tiles, with what is left in L1 from one to the next; see `parts.patdnn.units.L1`."""
    tiles, blocks, cores = len(kind_of), len(causes), len(done)
    last_block = np.full(cores, -1, np.int64)
    last_tile = np.full(cores, -1, np.int64)
    seen_weights = np.zeros((cores, blocks if keep_weights else 1), np.bool_)
    seen_inputs = np.zeros((cores, samples * tiles if keep_inputs else 1), np.bool_)
    whole = causes.sum(axis=2)
    for turn in range(1 if dynamic else cores):
        mine = blocks if dynamic else first[turn + 1] - first[turn]
        for item in range(mine * samples * tiles):
            place = item % mine if tiles_outside else item // (samples * tiles)
            tile = item // mine if tiles_outside else item % (samples * tiles)
            block = place if dynamic else flat[first[turn] + place]
            core = first_free(done) if dynamic else turn
            kind = kind_of[tile % tiles]
            # weights
            held = last_block[core] == block and of_block[block] + of_both[block, kind] <= l1_bytes
            held = held or (keep_weights and seen_weights[core, block])
            weight_bytes = 0 if held else of_block[block]
            # activations
            fits = of_tile[kind] + of_block[block] <= l1_bytes
            held = last_tile[core] == tile and fits
            held = held or (keep_inputs and seen_inputs[core, tile])
            input_bytes = of_both[block, kind]
            if keep_inputs or (tiles_outside and fits):
                input_bytes = of_tile[kind]
            if held:
                input_bytes = 0
            last_block[core], last_tile[core] = block, tile
            if keep_weights:
                seen_weights[core, block] = True
            if keep_inputs:
                seen_inputs[core, tile] = True
            fills[core, 0] += input_bytes
            fills[core, 1] += weight_bytes
            fill = (input_bytes + weight_bytes + l2_bytes_per_clk - 1) // l2_bytes_per_clk
            for cause in range(4):
                core_causes[core, cause] += causes[block, kind, cause]
            core_causes[core, 4] += max(0, fill - whole[block, kind])
            done[core] += max(fill, whole[block, kind])
            for count in range(all_counts.shape[0]):
                all_counts[count] += counts[block, kind, count]
