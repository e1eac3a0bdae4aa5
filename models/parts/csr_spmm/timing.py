"""CSR SpMM by recurrences: what a warp asks of its SM and of the chip, and when the last thread block is done.

A warp goes through its rows in steps. A step loads nonzeros into shared memory, then for each of them a row of the
dense matrix, and multiplies. It asks four things, which are served side by side:

    chain   latencies one after another, with its own instructions and lines at full speed; shared with nobody
    core    of a sub-core: instructions, one a clock; a multiply-add takes 32 / (FMA a clock and sub-core)
    l1      of its SM: lines of 128 bytes, read from L1 or shared memory
    l2      of the chip: sectors of 32 bytes of nonzeros, of dense rows that are not in L1, and of outputs

Warps that ask the same at one time get equal shares of it (`parts.csr_spmm.sharing`). A warp is done when all four are;
a thread block when its warps are. Each SM holds as many thread blocks as its registers allow; a place that is free
takes the next one, rows first, then columns. HBM moves operands and outputs meanwhile. That the four overlap but for
the chain, and that resident warps are dealt to sub-cores as evenly as can be, is assumed.

Dense rows in L1: rows of a warp walk together and read a dense row once. Of what other warps of the SM have read
before, L1 holds the share that its size is of the slice of the dense matrix in use (tile columns wide); how many reads
are an SM's first follows from the columns of the matrix, with blocks dealt out at random.

All times are whole ticks, TICKS a clock cycle, and services whole grains, GRAINS a tick, each rounded up, so that both
engines get the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ....workloads.blocks import row_blocks
from ....workloads.formats.csr import storage_bits
from ....workloads.gemm import Gemm
from ..counting import check_count
from ..ticks import TICKS, to_ticks
from .config import LINE_BYTES, SECTOR_BYTES, WARP, Config
from .rows import Warps, Work
from .sharing import GRAINS, run_blocks

# Where a warp's ticks go, in the order of `split_time` and `run_blocks`; and then those of a slot.
WARP_CAUSES = ("start", "fma", "padding", "subwarp_idle", "core", "l1", "l2", "latency", "warp_idle")
CAUSES = ("launch", *WARP_CAUSES, "idle", "hbm", "kernel")
SUMS = ("blocks", "instructions", "multiplications", "padding", "idle", "masked", "l1_lines", "smem_read",
        "smem_write", "l2_read", "l2_write", "dense_rows", "dense_misses")  # fmt: skip
SHARED_READ = 4  # nonzeros whose values, or columns, one read of shared memory brings (a load of 16 bytes)
FETCH_INSTRUCTIONS = 4  # load and store into shared memory, of values and of columns
AT_ONCE = 1 << 16  # warps whose costs are worked out together
START_LOADS = 2  # one after another: which row it is, and where it begins


@dataclass(frozen=True)
class Prices:
    """What one of each costs, in ticks at full speed; see the module. ``dense_latency``: of a round of dense loads.

    ``fma``: of a multiply-add of a warp; ``line``: of a line from L1; ``sector``: of a sector from L2, in grains.
    ``cores``: warps that share a sub-core when all places are taken. ``columns``: real ones of
    the tile. ``loads``, ``lines``, ``sectors``: of a dense row, loads and lines for one sub-warp.
    """

    start: int
    sparse_latency: int
    dense_latency: int
    fma: int
    line: int
    cores: int
    sector: int
    columns: int
    loads: int
    lines: int
    sectors: int


@dataclass(frozen=True, eq=False)
class Times:
    """What warps ask for and do; ``asked`` (kinds, warps, 4), ``shape`` (kinds, warps, 5), ``sums`` of the layer.

    Kinds: those of a whole tile, and of the one at the edge where it is narrower; ``tiles`` of the columns. ``asked``
    is in grains, of the chain in ticks. ``shape``: what `split_time` needs. ``slots``: places of thread blocks.
    """

    prices: tuple[Prices, Prices]
    miss_share: Fraction
    products: int
    tiles: int
    slots: int
    asked: np.ndarray
    shape: np.ndarray
    sums: dict[str, int]
    launch: int
    hbm: int
    hbm_read_bytes: int
    hbm_write_bytes: int
    storage_bits: dict[str, int]
    slab_bytes: int


@dataclass
class Account:
    """Where a layer's ticks went: ``causes`` of each slot in ticks of its warps, (slots,) each.

    ``total``: ticks from launch to end. ``sums``: what was done.
    """

    causes: dict[str, np.ndarray]
    total: int = 0
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))

    @classmethod
    def of(cls, slots: int) -> Account:
        """Return an account of nothing."""
        return cls({cause: np.zeros(slots, np.int64) for cause in CAUSES})

    @property
    def cycles(self) -> int:
        """Return the clock cycles from launch to end."""
        return -(-self.total // TICKS)


def measure(config: Config, gemm: Gemm, work: Work) -> Times:
    """Return what the thread blocks of ``gemm``, whose rows are ``work``, take and do."""
    per_block, warps = config.warps_per_block, work.warps
    blocks = warps.count // per_block
    tiles = -(-gemm.columns // config.tile_columns)
    slots = config.sm_count * config.blocks_per_sm
    resident = -(-min(slots, blocks * tiles) // config.sm_count)
    slab = gemm.reduction * min(config.tile_columns, gemm.columns) * config.value_bytes
    share = _miss_share(config, work, slab)
    last = gemm.columns - (tiles - 1) * config.tile_columns
    whole, edge = (_prices(config, width, share, resident) for width in (min(config.tile_columns, gemm.columns), last))
    clock = Fraction(config.clock_hz)
    launch = to_ticks(Fraction(config.launch_s) * clock)
    hbm = Fraction(config.hbm_bytes_per_s) * Fraction(config.hbm_efficiency) / clock
    _check_range(config, whole, warps, tiles * warps.count, launch)
    kinds = (whole,) if whole == edge else (whole, edge)
    asked = np.empty((len(kinds), warps.count, 4), np.int64)
    shape = np.empty((len(kinds), warps.count, 5), np.int64)
    totals = [
        _warp_costs(config, price, warps, share, of_kind, own)
        for price, of_kind, own in zip(kinds, asked, shape, strict=True)
    ]
    sums = {name: (tiles - 1) * totals[0][name] + totals[-1][name] for name in totals[0]}
    sums["blocks"] = tiles * blocks
    bits = storage_bits(gemm.rows, 0, 8 * config.value_bytes, config.index_bits)
    entries = int(warps.nonzeros.sum())
    storage = {part: size * gemm.count for part, size in bits.items()} | {
        "values": entries * 8 * config.value_bytes, "columns": entries * config.index_bits,
    }  # fmt: skip
    if config.order == "sorted":
        storage["row_order"] = gemm.count * gemm.rows * 32
    weight = -(-sum(storage.values()) // 8)
    gathered = tiles * totals[0]["dense_misses"] * min(config.tile_columns, gemm.columns) * config.value_bytes
    dense = gemm.input_words * config.value_bytes
    # What does not fit in L2 comes from HBM again: the sparse matrix for every tile of columns, the dense one's slice.
    read = weight * (1 if weight + slab <= config.l2_bytes else tiles) + dense
    if slab > config.l2_bytes:
        read += max(0, gathered - dense) * (slab - config.l2_bytes) // slab
    write = gemm.outputs * config.value_bytes
    moving = to_ticks((read + write) / hbm)
    lost = 1 / Fraction(config.kernel_efficiency)
    check_count(config, {"hbm_bytes_per_s hbm_efficiency clock_hz": moving}, times=slots * per_block * lost,
                per_cycle=TICKS)  # fmt: skip
    return Times(
        prices=(whole, edge),
        miss_share=share,
        products=work.products,
        tiles=tiles,
        slots=slots,
        asked=asked,
        shape=shape,
        sums=sums,
        launch=launch,
        hbm=moving,
        hbm_read_bytes=read,
        hbm_write_bytes=write,
        storage_bits=storage,
        slab_bytes=slab,
    )


def solve(config: Config, times: Times) -> Account:
    """Return where the ticks of a layer go, by the recurrences."""
    account = Account.of(times.slots)
    finished = np.zeros(times.slots, np.int64)
    spent = np.zeros((times.slots, len(WARP_CAUSES)), np.int64)
    run_blocks(
        times.asked, times.shape, times.prices[0].start, times.products, times.tiles, config.warps_per_block,
        config.sm_count, config.sub_cores, finished, spent,
    )  # fmt: skip
    for index, cause in enumerate(WARP_CAUSES):
        account.causes[cause] += spent[:, index]
    last = int(finished.max())
    account.causes["idle"] += config.warps_per_block * (last - finished)
    account.sums.update(times.sums)
    close(config, times, account, last)
    return account


def close(config: Config, times: Times, account: Account, last: int) -> None:
    """Enter launch, HBM and what a real kernel loses; the thread blocks were done ``last`` ticks after the launch."""
    per_block = config.warps_per_block
    bound = times.launch + max(last, times.hbm)
    account.total = math.ceil(bound / Fraction(config.kernel_efficiency))
    account.causes["launch"] += per_block * times.launch
    account.causes["hbm"] += per_block * max(0, times.hbm - last)
    account.causes["kernel"] += per_block * (account.total - bound)


def _check_range(config: Config, price: Prices, warps: Warps, count: int, launch: int) -> None:
    """Raise InputError where ``count`` warps, each with the most that any of ``warps`` asks, could leave 64 bits."""
    full, rest, deep = int(warps.steps.max()), int(warps.unrolled.max()), config.tile_depth
    own, places = config.blocks_per_sm * config.warps_per_block, config.sm_count * config.blocks_per_sm
    places *= config.warps_per_block
    core = int(core_ticks(config, price, 1, 0)[1]) * full + int(core_ticks(config, price, 0, rest)[1])
    lines = int(warps.computed.max()) * price.lines + int(warps.sparse_lines.max())
    lines += full * shared_reads(deep) + shared_reads(rest)
    sectors = int(warps.sparse_sectors.max()) + (int(warps.distinct.max()) + config.rows_per_warp) * price.sectors
    latency_full, latency_rest = latencies(config, price, rest)
    l1, l2 = lines * price.line, -(-sectors * price.sector // GRAINS)
    latency = price.start + full * latency_full + int(latency_rest)
    l2_rate = "l2_bytes_per_clk l2_efficiency"
    asked = {"l1_bytes_per_clk": l1, l2_rate: l2, "fma_per_clk": core, "l2_latency_cycles": latency}
    starts, lost = {"launch_s clock_hz": launch}, 1 / Fraction(config.kernel_efficiency)
    # No warp takes longer than what all places ask one after another, nor the layer than its warps one after another.
    alone = asked | {"l1_bytes_per_clk": l1 * (1 + own), l2_rate: l2 * (1 + places), "fma_per_clk": core * (1 + own)}
    in_turn = {fields: count * ticks for fields, ticks in asked.items()}
    most = max(int(warps.slots.max()), int(warps.computed.max()) * config.tile_columns)
    check_count(config, alone | starts, times=most * lost, per_cycle=TICKS)
    check_count(config, in_turn | starts, times=own * lost, per_cycle=TICKS)
    for fields in ("fma_per_clk", "l1_bytes_per_clk", l2_rate):
        check_count(config, {fields: in_turn[fields]}, times=GRAINS * lost, per_cycle=TICKS)


def _miss_share(config: Config, work: Work, slab: int) -> Fraction:
    """Return the share of dense rows read that come from L2: an SM's first reads, and of the rest what L1 lost."""
    if not work.reads:
        return Fraction(0)
    held = min(1.0, config.l1_bytes / slab)
    misses = work.first_reads + (work.reads - work.first_reads) * (1 - held)
    return Fraction(min(1 << 20, math.ceil(misses / work.reads * (1 << 20))), 1 << 20)


def _prices(config: Config, columns: int, share: Fraction, resident: int) -> Prices:
    warps = resident * config.warps_per_block
    lanes = Fraction(config.fma_per_clk, config.sub_cores)
    line = Fraction(LINE_BYTES) / Fraction(config.l1_bytes_per_clk)
    l2 = Fraction(config.l2_bytes_per_clk) * Fraction(config.l2_efficiency)
    sector = Fraction(SECTOR_BYTES) / l2
    dense = config.l1_latency_cycles + share * max(0, config.l2_latency_cycles - config.l1_latency_cycles)
    width = config.subwarp_threads * config.dense_vector
    loads = -(-columns // width)
    return Prices(
        start=to_ticks(Fraction(START_LOADS * config.l2_latency_cycles)),
        sparse_latency=to_ticks(Fraction(config.l2_latency_cycles + config.smem_latency_cycles)),
        dense_latency=to_ticks(Fraction(dense)),
        fma=to_ticks(WARP / lanes),
        line=to_ticks(line),
        cores=-(-warps // config.sub_cores),
        sector=math.ceil(sector * TICKS * GRAINS),
        columns=columns,
        loads=loads,
        lines=loads * -(-width * config.value_bytes // LINE_BYTES),
        sectors=-(-columns * config.value_bytes // SECTOR_BYTES),
    )


def shared_reads(count: Any) -> Any:
    """Return the reads of shared memory, a line each, for the values and columns of ``count`` nonzeros of a warp."""
    return 2 * -(-count // SHARED_READ)


def instructions(config: Config, price: Prices, steps: Any, residue: Any) -> Any:
    """Return the instructions of a warp that goes through ``steps`` full steps, and ``residue`` nonzeros, filled up.

    Nonzeros of a full step come by vector loads, those of a residue one a thread.
    """
    own, threads = config.tile_columns // config.subwarp_threads, config.subwarp_threads
    slots = steps * config.tile_depth + residue
    fetched = steps * (config.tile_depth // (threads * config.sparse_vector)) + -(-residue // threads)
    others = (steps + (residue > 0)) * config.step_instructions + fetched * FETCH_INSTRUCTIONS
    return slots * (own + price.loads + config.nonzero_instructions) + others


def core_ticks(config: Config, price: Prices, steps: Any, residue: Any) -> tuple[Any, Any]:
    """Return the ticks of a sub-core for the same: of its multiply-adds, and until all instructions are through.

    For full steps, or for a residue: their sum is not that of both together.
    """
    own = config.tile_columns // config.subwarp_threads
    fma = (steps * config.tile_depth + residue) * own * price.fma
    return fma, np.maximum(fma, instructions(config, price, steps, residue) * TICKS)


def latencies(config: Config, price: Prices, unrolled: Any) -> tuple[int, Any]:
    """Return the latencies of a full step, and of a residue of ``unrolled`` nonzeros, in ticks."""
    full = price.sparse_latency + -(-config.tile_depth // config.loads_in_flight) * price.dense_latency
    rounds = -(-unrolled // min(config.loads_in_flight, config.residue_unroll))
    return full, (unrolled > 0) * price.sparse_latency + rounds * price.dense_latency


def _warp_costs(
    config: Config, price: Prices, warps: Warps, share: Fraction, asked: np.ndarray, shape: np.ndarray
) -> dict[str, int]:
    """Return the sums of what warps do, by name; fill what they ask, (warps, 4), and their `split_time` shape.

    ``share``: of the dense rows that a warp reads, those that come from L2. Some warps at a time: a row a warp of a
    tall matrix has more of these figures than weights.
    """
    sums = dict.fromkeys(SUMS, 0)
    for some in row_blocks(warps.steps, AT_ONCE):
        for name, done in _some_costs(config, price, warps.part(some), share, asked[some], shape[some]).items():
            sums[name] += int(done.sum())
    return sums


def _some_costs(
    config: Config, price: Prices, warps: Warps, share: Fraction, asked: np.ndarray, shape: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what warps do, (warps,) each, and fill as `_warp_costs` does."""
    depth = config.tile_depth
    misses = -(-warps.distinct * share.numerator // share.denominator)
    # Step by step, as the units go: a maximum of each step, not of their sums.
    full_fma, full_core = core_ticks(config, price, 1, 0)
    rest_fma, rest_core = core_ticks(config, price, 0, warps.unrolled)
    fma, core = warps.steps * full_fma + rest_fma, warps.steps * full_core + rest_core
    lines = warps.computed * price.lines + warps.sparse_lines
    shared = warps.steps * shared_reads(depth) + shared_reads(warps.unrolled)
    reads, writes = warps.sparse_sectors + misses * price.sectors, warps.rows * price.sectors
    full_latency, rest_latency = latencies(config, price, warps.unrolled)
    moved = (lines + shared) * price.line
    asks = (core * GRAINS, moved * GRAINS, (reads + writes) * price.sector,
            warps.steps * full_latency + rest_latency + core + moved)  # fmt: skip
    useful, multiplied = warps.nonzeros * price.columns, warps.computed * config.tile_columns
    for filled, columns in (
        (asked, asks),
        (shape, (fma * price.cores, warps.slots, warps.computed, useful, multiplied)),
    ):
        for place, column in enumerate(columns):
            filled[:, place] = column
    return {
        "instructions": instructions(config, price, warps.steps, warps.unrolled),
        "multiplications": multiplied,
        "padding": multiplied - useful,
        "idle": (warps.slots - warps.computed) * config.tile_columns,
        "masked": warps.masked,
        "l1_lines": lines,
        "smem_read": shared,
        "smem_write": warps.loaded * (config.value_bytes + config.index_bytes),
        "l2_read": reads,
        "l2_write": writes,
        "dense_rows": warps.distinct,
        "dense_misses": misses,
    }
