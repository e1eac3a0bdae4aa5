"""The units of a GPU that runs CSR SpMM, block by block and step by step: the readable form of `parts.csr_spmm.timing`.

A dispatcher hands thread blocks to SMs. The warps of a block go through their rows step by step, and ask what the steps
need of their sub-core, of L1 and of L2, side by side with the chain of their own latencies. Nothing here knows when a
warp will be done.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ....workloads.formats.csr import Csr
from ....workloads.gemm import Gemm
from ..dispatch import Dispatcher
from ..ticks import TICKS
from ..waiting import pass_time
from .config import LINE_BYTES, SECTOR_BYTES, Config
from .rows import Rows, split_rows, units
from .sharing import GRAINS, Shared, split_time
from .timing import (
    WARP_CAUSES,
    Account,
    Prices,
    Times,
    close,
    core_ticks,
    instructions,
    latencies,
    shared_reads,
)
from .values import multiply

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, eq=False)
class Product:
    """One product: its matrix in CSR, the rows in the order of the machine, and, where wanted, values to sum up."""

    matrix: Csr
    rows: Rows
    dense: np.ndarray | None = None
    sums: np.ndarray | None = None


@dataclass(frozen=True)
class Block:
    """A thread block: of which product, its first row in the machine's order, and its columns; ``kind``: of prices."""

    product: int
    first: int
    columns: range
    kind: int


def run(
    config: Config, gemm: Gemm, times: Times, matrices: list[Csr], dense: list[np.ndarray] | None,
    timeline: Timeline | None,
) -> tuple[Account, list[np.ndarray]]:  # fmt: skip
    """Return where the ticks of ``gemm`` go, by stepping its units, and the sums (rows, columns) of each product."""
    env = simpy.Environment()
    account = Account.of(times.slots)
    products = []
    for index, matrix in enumerate(matrices):
        rows = split_rows(config, matrix.lengths)
        if dense is None:
            products.append(Product(matrix, rows))
        else:
            products.append(Product(matrix, rows, dense[index], np.zeros((gemm.rows, gemm.columns), np.float32)))
    chip = Chip(env, config, gemm, times, products, account, timeline)
    env.process(chip.run())
    env.run()
    if timeline is not None:
        timeline.advance(account.cycles)
    return account, [product.sums for product in products if product.sums is not None]


class Chip:
    """SMs that take thread blocks from one dispatcher, and an HBM that moves all operands and outputs meanwhile."""

    def __init__(
        self, env: simpy.Environment, config: Config, gemm: Gemm, times: Times, products: list[Product],
        account: Account, timeline: Timeline | None,
    ) -> None:  # fmt: skip
        self.env, self.config, self.gemm, self.times = env, config, gemm, times
        self.products, self.account, self.timeline = products, account, timeline
        self.finished = np.zeros(times.slots, np.int64)
        self.cores = [Shared(env, config.sub_cores) for _ in range(config.sm_count)]
        self.l1 = [Shared(env, 1) for _ in range(config.sm_count)]
        self.l2 = Shared(env, 1)

    def run(self) -> Process:
        """Launch, and run all thread blocks beside HBM's traffic."""
        times, account = self.times, self.account
        yield from self.step("chip", "launch", times.launch)
        self.dispatcher = Dispatcher(self.env, self.blocks(), times.slots)
        slots = [self.env.process(Slot(self, index).run()) for index in range(times.slots)]
        moved = self.env.process(self.step("hbm", "move", times.hbm))
        yield self.env.all_of(slots)
        last = int(self.env.now)
        account.causes["idle"] += self.config.warps_per_block * (last - self.finished)
        yield moved
        close(self.config, times, account, last - times.launch)
        yield from self.step("chip", "kernel", account.total - int(self.env.now))

    def blocks(self) -> Iterator[Block]:
        """Return the thread blocks in order: rows first, then columns, then products."""
        gemm, wide = self.gemm, self.config.tile_columns
        for product in range(len(self.products)):
            for tile in range(self.times.tiles):
                columns = range(tile * wide, min((tile + 1) * wide, gemm.columns))
                for row in range(0, gemm.rows, self.config.block_rows):
                    yield Block(product, row, columns, int(tile == self.times.tiles - 1))

    def step(self, track: str, name: str, ticks: int) -> Process:
        """Pass ``ticks`` and note them in the timeline."""
        return pass_time(self.env, self.timeline, track, name, ticks, TICKS)


class Slot:
    """The place of a thread block in an SM; blocks are dealt to SMs in turn."""

    def __init__(self, chip: Chip, index: int) -> None:
        self.chip, self.env, self.index = chip, chip.env, index
        sms = chip.config.sm_count
        self.sm = index % sms
        self.name = f"sm{self.sm}" + (f".{index // sms}" if chip.config.blocks_per_sm > 1 else "")

    def run(self) -> Process:
        """Take thread blocks until there are none."""
        config, account = self.chip.config, self.chip.account
        while True:
            block = yield self.chip.dispatcher.ask(self.index)
            if block is None:
                break
            per_warp = config.rows_per_warp
            warps = [
                Warp(self, block, number, range(first, min(first + per_warp, self.chip.gemm.rows)))
                for number, first in enumerate(range(block.first, block.first + config.block_rows, per_warp))
            ]
            begin = int(self.env.now)
            yield self.env.all_of([self.env.process(warp.run()) for warp in warps])
            account.sums["blocks"] += 1
            for warp in warps:
                account.causes["warp_idle"][self.index] += int(self.env.now) - begin - warp.took
        self.chip.finished[self.index] = int(self.env.now)


class Warp:
    """A warp of a thread block: some rows, one a sub-warp, walked through in steps."""

    def __init__(self, slot: Slot, block: Block, number: int, places: range) -> None:
        self.slot, self.chip, self.block = slot, slot.chip, block
        self.price: Prices = slot.chip.times.prices[block.kind]
        self.product: Product = slot.chip.products[block.product]
        self.places = places  # in the machine's order of rows
        self.name = f"{slot.name} warp{number}" if slot.chip.config.warps_per_block > 1 else slot.name
        self.took = 0
        self.seen: set[int] = set()  # rows of the dense matrix that it has read
        self.fma = self.slots = self.computed = self.useful = 0

    def run(self) -> Process:
        """Find the rows, go through them, and account for the time."""
        config, chip, price = self.chip.config, self.chip, self.price
        begin = int(chip.env.now)
        yield from chip.step(self.name, "find rows", price.start)
        steps = np.array(list(self.steps()), np.int64)  # (steps, asked)
        served = [
            chip.env.process(self.ask("core", chip.cores[self.slot.sm], int(steps[:, 0].sum()))),
            chip.env.process(self.ask("l1", chip.l1[self.slot.sm], int(steps[:, 1].sum()))),
            chip.env.process(self.ask("l2", chip.l2, int(steps[:, 2].sum()))),
            chip.env.process(self.wait(steps[:, 3].tolist())),
        ]
        done = yield chip.env.all_of(served)
        self.took = int(chip.env.now) - begin
        last = int(np.argmax([done[process] for process in served]))
        shape = (self.fma * price.cores, self.slots, self.computed, self.useful, self.computed * config.tile_columns)
        spent = np.zeros(len(WARP_CAUSES), np.int64)
        spent[0] = price.start
        split_time(self.took - price.start, np.array(shape, np.int64), last, spent)
        assert spent.sum() == self.took
        for cause, ticks in zip(WARP_CAUSES, spent, strict=True):
            chip.account.causes[cause][self.slot.index] += ticks
        multiplied = self.computed * config.tile_columns
        self.move(
            multiplications=multiplied,
            padding=multiplied - self.useful,
            idle=(self.slots - self.computed) * config.tile_columns,
        )

    def ask(self, what: str, unit: Shared, grains: int) -> Generator[simpy.Event, Any, int]:
        """Be served ``grains`` by ``unit``, and return when that is done."""
        env, start = self.chip.env, int(self.chip.env.now)
        yield unit.serve(grains)
        if self.chip.timeline is not None:
            self.chip.timeline.interval(f"{self.name} {what}", "serve", start // TICKS, int(env.now) // TICKS)
        return int(env.now)

    def wait(self, chain: list[int]) -> Generator[simpy.Event, Any, int]:
        """Pass the latencies of one step after another, and return when that is done."""
        for number, ticks in enumerate(chain):
            yield from self.chip.step(f"{self.name} chain", f"step {number}", ticks)
        return int(self.chip.env.now)

    def move(self, **amounts: int) -> None:
        """Add to the sums of the layer."""
        for name, amount in amounts.items():
            self.chip.account.sums[name] += int(amount)

    def steps(self) -> Iterator[tuple[int, int, int, int]]:
        """Return what each step asks, in grains: of the core, L1 and L2; in ticks, its chain; then the outputs."""
        config, rows, places = self.chip.config, self.product.rows, self.places
        depth = config.tile_depth
        self.move(masked=sum(int(rows.masked[place]) for place in places))
        for number in range(max((int(rows.steps[place]) for place in places), default=0)):
            active = [place for place in places if rows.steps[place] > number]
            parts = []
            for place in active:
                ahead = number * depth - int(rows.masked[place])
                parts.append((place, max(ahead, 0), ahead + depth))
            yield self.step(depth, len(active) * depth, [depth] * len(active), parts, 0)
        longest = max((int(rows.unrolled[place]) for place in places), default=0)
        if longest:
            active = [place for place in places if rows.residue[place]]
            counts = [int(rows.residue[place]) for place in active]
            parts = [
                (place, int(rows.nonzeros[place]) - count, int(rows.nonzeros[place]))
                for place, count in zip(active, counts, strict=True)
            ]
            yield self.step(longest, sum(int(rows.unrolled[place]) for place in active), counts, parts, longest)
        written = len(places) * self.price.sectors
        self.move(l2_write=written)
        yield 0, 0, written * self.price.sector, 0

    def step(
        self, slots: int, computed: int, loads: list[int], parts: list[tuple[int, int, int]], residue: int
    ) -> tuple[int, int, int, int]:
        """Return what one step asks, having done its work.

        ``slots``: nonzeros that the warp goes through; ``computed``: that sub-warps multiply; ``loads``: that each
        reads; ``parts``: row and first and last place of the real ones; ``residue``: 0 for a full step.
        """
        config, price, product = self.chip.config, self.price, self.product
        steps = 0 if residue else 1
        fma, core = core_ticks(config, price, steps, residue)
        self.fma += int(fma)
        self.slots += slots * config.rows_per_warp
        self.computed += computed
        self.useful += sum(last - first for _, first, last in parts) * price.columns
        misses, found = self.read_dense(parts)
        lines = computed * price.lines + sum(units(config, count, LINE_BYTES) for count in loads)
        shared = shared_reads(slots)
        sectors = sum(units(config, count, SECTOR_BYTES) for count in loads) + misses * price.sectors
        full, rest = latencies(config, price, residue)
        self.move(
            instructions=instructions(config, price, steps, residue),
            l1_lines=lines,
            smem_read=shared,
            smem_write=sum(loads) * (config.value_bytes + config.index_bytes),
            l2_read=sectors,
            dense_rows=found,
            dense_misses=misses,
        )
        if product.dense is not None and product.sums is not None:
            for place, first, last in parts:
                row = int(product.rows.order[place])
                begin = int(product.matrix.offsets[row])
                entries = range(begin + first, begin + last)
                multiply(product.matrix, product.dense, row, entries, self.block.columns, product.sums)
        moved = (lines + shared) * price.line
        chain = (rest if residue else full) + core + moved
        return int(core) * GRAINS, moved * GRAINS, sectors * price.sector, int(chain)

    def read_dense(self, parts: list[tuple[int, int, int]]) -> tuple[int, int]:
        """Return the rows of the dense matrix that come from L2, and that the warp reads for the first time."""
        before = len(self.seen)
        for place, first, last in parts:
            begin = int(self.product.matrix.offsets[self.product.rows.order[place]])
            self.seen.update(self.product.matrix.columns[begin + first : begin + last].tolist())
        share = self.chip.times.miss_share
        missed = [-(-count * share.numerator // share.denominator) for count in (before, len(self.seen))]
        return missed[1] - missed[0], len(self.seen) - before
