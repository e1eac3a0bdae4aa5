"""What the CTA tiles of a product take, in whole ticks, and move, in bits: the numbers that both engines start from.

A step of the reduction is bounded by the cores, by the shared memory and by L2, each worked out in exact fractions and
rounded up once. See `parts.tensorcore.gemm` for what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ....workloads.gemm import Gemm
from ..counting import check_count
from ..ticks import TICKS, to_ticks
from .config import DTYPE_BITS, Config
from .plan import INSTRUCTION_COLUMNS, INSTRUCTION_ROWS, Plan

PARTIAL_BITS = 32  # of a partial sum, fp32 or int32


@dataclass(frozen=True, eq=False)
class Times:
    """What CTAs take, in ticks, and move, in bits; arrays are (row tiles, steps), one row where all are alike.

    ``plain``: what the cores would take without repeated passes. ``slices``: the steps of each CTA that shares a tile's
    reduction. ``real_groups``: of each slice, groups of a row without and with the padding of the last step, (slices,
    2). ``smem_read``, ``smem_write``, ``l2_read``, ``metadata``: bits of a step. ``multiplications``: of an
    instruction. ``slots``: CTAs that can run at once; ``running``: those that do. ``partial_bits``: sums that several
    slices write, and the kernel that adds them reads in ``reduce`` ticks.
    """

    row_tiles: int
    column_tiles: int
    count: int
    slices: tuple[tuple[int, int], ...]
    real_groups: np.ndarray
    slots: int
    running: int
    tensor_core: np.ndarray
    plain: np.ndarray
    shared_memory: np.ndarray
    l2: np.ndarray
    instructions: np.ndarray
    smem_read: np.ndarray
    smem_write: np.ndarray
    l2_read: np.ndarray
    metadata: np.ndarray
    multiplications: int
    fill: int
    epilogue: int
    launch: int
    hbm: int
    reduce: int
    partial_bits: int
    hbm_read_bits: int
    hbm_write_bits: int
    storage_bits: dict[str, int]


def measure(config: Config, gemm: Gemm, plan: Plan) -> Times:
    """Return what the tiles of ``gemm``, issued by ``plan``, take and move."""
    kind, bits = plan.kind, DTYPE_BITS[config.dtype]
    bm, bn = config.cta_rows, config.cta_columns
    row_tiles, column_tiles = -(-gemm.rows // bm), -(-gemm.columns // bn)
    slots = config.sm_count * config.ctas_per_sm
    slices = cut(plan.steps, config.split_k)
    running = min(slots, gemm.count * row_tiles * column_tiles * len(slices))
    clock = Fraction(config.clock_hz)
    hbm_bits = 8 * Fraction(config.hbm_bytes_per_s) * Fraction(config.hbm_efficiency) / clock  # a cycle
    # Steps differ in nothing but their groups: exact fractions once a number of groups, then looked up.
    different, places = np.unique(plan.groups, return_inverse=True)
    each = [_step(config, plan, running, int(groups)) for groups in different]
    _check_steps(config, plan, gemm.count * row_tiles * column_tiles, gemm.rows * gemm.columns, each)
    table = np.array(each, np.int64)
    tensor_core, plain, shared_memory, l2, instructions, smem_read, smem_write, l2_read, metadata = (
        np.ascontiguousarray(column[places].reshape(plan.groups.shape)) for column in table.T
    )
    storage = _storage(gemm, plan, bm, bits)
    read = sum(storage.values()) + gemm.input_words * bits
    write = gemm.outputs * bits
    l2_bits = 8 * Fraction(config.l2_bytes_per_clk)
    launch = to_ticks(Fraction(config.launch_s) * clock)
    epilogue, hbm, reduce, partial_bits = bm * bn * bits / hbm_bits, (read + write) / hbm_bits, 0, 0
    if len(slices) > 1:
        partial_bits = gemm.outputs * PARTIAL_BITS * len(slices)
        epilogue, hbm = bm * bn * PARTIAL_BITS / l2_bits, read / hbm_bits
        reduce = launch + to_ticks(max(partial_bits / l2_bits, write / hbm_bits))
    groups = [min(plan.slab_groups * end, gemm.groups(kind.m)) - plan.slab_groups * start for start, end in slices]
    times = Times(
        row_tiles=row_tiles,
        column_tiles=column_tiles,
        count=gemm.count,
        slices=slices,
        real_groups=np.array([(g, plan.slab_groups * (s[1] - s[0])) for g, s in zip(groups, slices, strict=True)]),
        slots=slots,
        running=running,
        tensor_core=tensor_core,
        plain=plain,
        shared_memory=shared_memory,
        l2=l2,
        instructions=instructions,
        smem_read=smem_read,
        smem_write=smem_write,
        l2_read=l2_read,
        metadata=metadata,
        multiplications=_multiplications(config, plan),
        fill=config.fill_cycles * TICKS,
        epilogue=to_ticks(epilogue * running),
        launch=launch,
        hbm=to_ticks(hbm),
        reduce=reduce,
        partial_bits=partial_bits,
        hbm_read_bits=read,
        hbm_write_bits=write,
        storage_bits=storage,
    )
    check_ends(config, times)
    return times


def _step(config: Config, plan: Plan, running: int, groups: int) -> tuple[int, ...]:
    """Return what a step that issues ``groups`` takes and moves: `Times`' arrays, from ``tensor_core`` on."""
    kind, bits = plan.kind, DTYPE_BITS[config.dtype]
    bm, bn, wm, wn = config.cta_rows, config.cta_columns, config.warp_rows, config.warp_columns
    fma = config.tensor_cores_per_sm * Fraction(config.fma_per_clk(config.dtype, config.accumulate))
    depth = kind.depth(config.dtype, config.cta_depth)
    instruction_cycles = _multiplications(config, plan) / fma * config.ctas_per_sm
    instruction_tiles = -(-bm // INSTRUCTION_ROWS) * -(-bn // INSTRUCTION_COLUMNS)
    issued, plain = (-(-number // depth) * instruction_tiles for number in (groups, plan.slab_groups))
    stored = kind.stored_bits(bm, groups, bits)
    a_bits = sum(stored.values())
    from_a = config.warps_per_cta * sum(kind.stored_bits(wm, groups, bits).values())
    from_b = config.warps_per_cta * groups * kind.fetched(wm) * wn * bits
    written = a_bits + plan.slab_groups * kind.fetched(bm) * bn * bits
    smem = (from_a + Fraction(from_b, config.fetch_width) + written) * config.ctas_per_sm
    return (
        to_ticks(issued * instruction_cycles),
        to_ticks(plain * instruction_cycles),
        to_ticks(smem / (8 * Fraction(config.smem_bytes_per_clk))),
        to_ticks(written * running / (8 * Fraction(config.l2_bytes_per_clk))),
        issued,
        from_a + from_b,
        written,
        written,
        a_bits - stored["values"],
    )


def _multiplications(config: Config, plan: Plan) -> int:
    """Return the multiplications of an instruction."""
    depth = plan.kind.depth(config.dtype, config.cta_depth)
    return INSTRUCTION_ROWS * INSTRUCTION_COLUMNS * depth * plan.kind.n


def _check_steps(config: Config, plan: Plan, tiles: int, outputs: int, each: list[tuple[int, ...]]) -> None:
    """Raise InputError where what the steps of ``tiles`` take or move could leave 64 bits.

    ``each``: what steps of one kind and another take and move, as `measure` has it. ``outputs``: of a product.
    """
    tensor_core, _, shared_memory, l2, *bits = (max(column) for column in zip(*each, strict=True))
    rate = f"{config.dtype}_fma_per_clk"
    if config.accumulate == "fp32" and config.dtype in ("fp16", "bf16"):
        rate += " fp32_accumulate_rate"
    steps = tiles * plan.steps
    taken = {rate: steps * tensor_core, "smem_bytes_per_clk": steps * shared_memory, "l2_bytes_per_clk": steps * l2}
    check_count(config, taken, times=_shares(config), per_cycle=TICKS)
    check_count(config, {"cta_rows cta_columns": config.cta_rows * config.cta_columns}, times=outputs, what="outputs")
    moved = plan.groups.size * max(bits)
    check_count(config, {"cta_rows cta_columns cta_depth warp_rows warp_columns": moved}, what="bits")


def check_ends(config: Config, times: Times) -> None:
    """Raise InputError where all but the steps, of CTAs that run one after another, could leave 64 bits."""
    ctas = times.count * times.row_tiles * times.column_tiles * len(times.slices)
    written = ctas * times.epilogue
    is_split = len(times.slices) > 1
    taken = {
        "fill_cycles": ctas * times.fill,
        "l2_bytes_per_clk": written * is_split,
        "hbm_bytes_per_s hbm_efficiency clock_hz": times.hbm + written * (not is_split),
        "launch_s clock_hz": times.launch + times.reduce,
    }
    check_count(config, taken, times=_shares(config), per_cycle=TICKS)


def _shares(config: Config) -> Fraction:
    """Return how often the ticks of a layer are added up: for each CTA of an SM, and for what a real kernel loses."""
    return config.ctas_per_sm / Fraction(config.kernel_efficiency)


def cut(steps: int, shares: int) -> tuple[tuple[int, int], ...]:
    """Return first and last step, not included, of each of ``shares`` CTAs; fewer where the steps do not suffice."""
    each = -(-steps // shares)
    return tuple((first, min(first + each, steps)) for first in range(0, steps, each))


def _storage(gemm: Gemm, plan: Plan, tile_rows: int, bits: int) -> dict[str, int]:
    """Return the bits of the stored weight by part; repeated groups are stored again, padding is not stored."""
    kind = plan.kind
    stored = kind.stored_bits(gemm.rows, gemm.groups(kind.m), bits)
    parts = {part: gemm.count * size for part, size in stored.items()}
    if plan.is_uniform:
        repeats = gemm.count * gemm.rows * plan.repeats
    else:
        again = (plan.groups - plan.slab_groups).sum(axis=1)
        height = np.minimum(tile_rows, gemm.rows - tile_rows * np.arange(-(-gemm.rows // tile_rows)))
        repeats = int((again.reshape(gemm.count, -1) * height).sum())
    for part, size in kind.stored_bits(1, repeats, bits).items():
        parts[part] = parts.get(part, 0) + size
    return parts
