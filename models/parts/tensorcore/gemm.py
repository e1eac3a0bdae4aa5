"""Products on tensor cores, by recurrences: CTA tiles over the SMs of a chip, and who makes them wait.

Each product is cut into CTA tiles of bm x bn outputs; a tile at the edge costs as much as a whole one. All tiles of a
layer are one launch. A slot (an SM, or a share of it where several CTAs are resident) takes the next tile when it is
done with the last one. It has an equal share of what L2 and HBM give to the CTAs that run at once. In a CTA, with a
step of the reduction j taking tc[j] of the cores, sm[j] of the shared memory, l2[j] of L2, and S buffers,

    load[0] = max(fill, l2[0]);  load[j] = max(load[j-1], done[j-S]) + l2[j]      step j has arrived
    done[j] = max(load[j], done[j-1]) + max(tc[j], sm[j])                         step j is multiplied

and the epilogue writes the outputs at the slot's share of HBM. Where a reduction is split among several CTAs, each has
its share of the steps, and writes partial sums of 32 bits at its share of L2; a second kernel, with a launch of its
own, then reads them from L2, adds them up in order and writes the outputs to HBM. Tiles are followed by what HBM still
has to move, every operand and output once; launch comes before, and a kernel that reaches less than these bounds takes
longer after.

Where all J steps are alike and a step loads within the fill, a CTA takes

    fill + (J - 1) max(tc, sm, l2) + max(tc, sm) + epilogue

(while the last step is multiplied, nothing is left to load).

All times are whole ticks, TICKS a clock cycle, each rounded up, so that both engines get the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numba import njit

from ....workloads.gemm import Gemm
from ..counting import share_of
from ..dispatch import first_free
from ..ticks import TICKS
from .config import DTYPE_BITS, Config
from .plan import Plan
from .tiles import Times

CAUSES = (
    "launch", "fill", "tensor_core", "padding", "passes", "shared_memory", "l2", "epilogue", "idle", "hbm", "split_k",
    "kernel",
)  # fmt: skip
BUSY = ("tensor_core", "shared_memory")  # units that every SM has
SUMS = ("ctas", "instructions", "repeated_groups", "smem_read", "smem_write", "l2_read", "metadata")


@dataclass
class Account:
    """Where a layer's ticks went: ``causes`` of each slot, (slots,) each; ``busy`` of each slot's share of a unit.

    ``l2``: ticks that L2 works for the slots, summed, at a slot's share. ``total``: ticks from launch to end. ``sums``:
    what was issued and, in bits, moved. ``counts``: the same as a result has it, once `count` was called.
    """

    causes: dict[str, np.ndarray]
    busy: dict[str, np.ndarray]
    l2: int = 0
    total: int = 0
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, slots: int) -> Account:
        """Return an account of nothing."""
        return cls(
            {cause: np.zeros(slots, np.int64) for cause in CAUSES}, {unit: np.zeros(slots, np.int64) for unit in BUSY}
        )

    @property
    def cycles(self) -> int:
        """Return the clock cycles from launch to end."""
        return -(-self.total // TICKS)


def solve(config: Config, gemm: Gemm, plan: Plan, times: Times) -> Account:
    """Return where the ticks of ``gemm`` go, by the recurrences of this module."""
    account = Account.of(times.slots)
    # Ticks of the cores, waits for shared memory and L2, and what these two work.
    kinds, slices = len(times.tensor_core), len(times.slices)
    spent, plain = np.empty((kinds, slices, 5), np.int64), np.empty((kinds, slices), np.int64)
    for kind in range(kinds):
        for index, (start, end) in enumerate(times.slices):
            _run_cta(
                times.tensor_core[kind, start:end], times.shared_memory[kind, start:end], times.l2[kind, start:end],
                times.fill, config.pipeline_stages, spent[kind, index],
            )  # fmt: skip
            plain[kind, index] = times.plain[kind, start:end].sum()
    free, ran = np.zeros(times.slots, np.int64), np.zeros(times.slots, np.int64)
    causes, busy = account.causes, account.busy
    account.l2 = int(
        _dispatch(
            spent, plain, times.row_tiles, times.column_tiles, times.count,
            (gemm.rows, gemm.columns), (config.cta_rows, config.cta_columns), times.real_groups,
            times.fill + times.epilogue, free, ran, causes["tensor_core"], causes["padding"], causes["passes"],
            causes["shared_memory"], causes["l2"], busy["tensor_core"], busy["shared_memory"],
        )
    )  # fmt: skip
    causes["fill"] += ran * times.fill
    causes["epilogue"] += ran * times.epilogue
    last = int(free.max())
    causes["idle"] += last - free
    alike = times.column_tiles * (times.count * times.row_tiles if plan.is_uniform else 1)
    for name in ("instructions", "smem_read", "smem_write", "l2_read", "metadata"):
        account.sums[name] = alike * int(getattr(times, name).sum())
    account.sums["repeated_groups"] = alike * plan.repeats
    account.sums["ctas"] = int(ran.sum())
    bound = times.launch + max(last, times.hbm) + times.reduce
    account.total = slowed(config, bound)
    causes["launch"] += times.launch
    causes["hbm"] += max(0, times.hbm - last)
    causes["split_k"] += times.reduce
    causes["kernel"] += account.total - bound
    return account


def slowed(config: Config, bound: int) -> int:
    """Return the ticks that a real kernel takes for what is bound by ``bound``."""
    return math.ceil(bound / Fraction(config.kernel_efficiency))


@njit(cache=True)
def _run_cta(tensor_core, shared_memory, l2, fill, stages, spent):  # type: ignore[no-untyped-def]
    """Fill ``spent``: ticks of the cores, waits for shared memory and L2, and what these two work."""
    steps = len(tensor_core)
    done = np.zeros(stages, np.int64)  # of the last steps, in a ring
    loaded = now = 0
    spent[:] = 0
    for j in range(steps):
        loaded = max(fill, l2[0]) if j == 0 else max(loaded, done[j % stages]) + l2[j]
        start = max(now, loaded)
        spent[2] += start - max(now, fill)
        now = start + max(tensor_core[j], shared_memory[j])
        done[j % stages] = now
        spent[0] += tensor_core[j]
        spent[1] += max(0, shared_memory[j] - tensor_core[j])
        spent[3] += shared_memory[j]
        spent[4] += l2[j]
    return now


_share_of = njit(cache=True)(share_of)


@njit(cache=True)
def useful_ticks(plain, outputs, tile_outputs, real_groups, padded_groups):  # type: ignore[no-untyped-def]
    """Return the ticks of ``plain`` that a CTA spends on outputs and groups that are not padding, rounded down."""
    return _share_of(_share_of(plain, outputs, tile_outputs), real_groups, padded_groups)


@njit(cache=True)
def _dispatch(  # type: ignore[no-untyped-def]
    spent, plain, row_tiles, column_tiles, count, sides, tile, groups, overhead, free, ran, core, padding, passes,
    smem_wait, l2_wait, core_busy, smem_busy,
):  # fmt: skip
    """Hand the tiles, rows first, to the slot that is free first, the lowest of several; return what L2 works."""
    l2_work = 0
    kinds, slices, _ = spent.shape
    for product in range(count):
        for s in range(slices):
            for c in range(column_tiles):
                for r in range(row_tiles):
                    slot = first_free(free)
                    kind = product * row_tiles + r if kinds > 1 else 0
                    ticks, pure = spent[kind, s], plain[kind, s]
                    free[slot] += overhead + ticks[0] + ticks[1] + ticks[2]
                    ran[slot] += 1
                    outputs = min(tile[0], sides[0] - r * tile[0]) * min(tile[1], sides[1] - c * tile[1])
                    useful = useful_ticks(pure, outputs, tile[0] * tile[1], groups[s, 0], groups[s, 1])
                    core[slot] += useful
                    padding[slot] += pure - useful
                    passes[slot] += ticks[0] - pure
                    smem_wait[slot] += ticks[1]
                    l2_wait[slot] += ticks[2]
                    core_busy[slot] += ticks[0]
                    smem_busy[slot] += ticks[3]
                    l2_work += ticks[4]
    return l2_work


def count(config: Config, gemm: Gemm, times: Times, account: Account, macs: int) -> None:
    """Fill in the counts of ``account`` from its sums."""
    bits, sums = DTYPE_BITS[config.dtype], account.sums
    account.counts.update(
        macs=macs,
        instructions=sums["instructions"],
        multiplications=sums["instructions"] * times.multiplications,
        ctas=sums["ctas"],
        waves=-(-sums["ctas"] // times.slots),
        repeated_groups=sums["repeated_groups"],
        metadata_bytes=to_bytes(sums["metadata"]),
        smem_read_bytes=to_bytes(sums["smem_read"]),
        smem_write_bytes=to_bytes(sums["smem_write"]),
        l2_read_bytes=to_bytes(sums["l2_read"] + times.partial_bits),
        l2_write_bytes=to_bytes(gemm.outputs * bits + times.partial_bits),
        hbm_read_bytes=to_bytes(times.hbm_read_bits),
        hbm_write_bytes=to_bytes(times.hbm_write_bits),
    )


def to_bytes(bits: int) -> int:
    """Return ``bits`` in bytes, rounded up."""
    return -(-bits // 8)
