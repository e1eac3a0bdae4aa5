"""How a weight is issued on tensor cores: dense, in one pass by its pattern, or in several passes.

A *group* is what a row's metadata chooses from: 4 candidates of 2:4, M of N:M; of a dense weight, one value. A pass of
a group multiplies its slots with the candidates that they chose. Where a group holds more nonzeros than slots, it is
issued again. Rows in lock-step wait for the one that needs most passes, and a CTA for the rows that need most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ....workloads.formats.nm import storage_bits
from ....workloads.gemm import Gemm
from .config import DTYPE_BITS, Config

INSTRUCTION_ROWS, INSTRUCTION_COLUMNS = 16, 8  # m and n of every mma (PTX ISA)
OPERAND_BITS = 256  # of a row of A that one mma multiplies: k16 of fp16, k8 of tf32, k32 of int8 (PTX ISA)
NATIVE = {"tf32": (1, 2, 1), "int4": (4, 8, 2)}  # n, m, width of mma.sp (PTX ISA); 2:4 elsewhere
CANDIDATES = 4  # of M columns that the rows of a V:N:M block choose together (VENOM, Castro et al., SC 2023)


@dataclass(frozen=True)
class Kind:
    """What a group is: ``n`` slots of ``m`` along the reduction; ``width`` neighbours share a position.

    ``slot_group``: candidates that a slot's metadata tells apart, ``m`` but for V:N:M. ``vector_rows``: rows that
    choose those candidates together, 0 where each row has all of them.
    """

    n: int = 1
    m: int = 1
    width: int = 1
    slot_group: int = 1
    vector_rows: int = 0

    @property
    def is_dense(self) -> bool:
        """Tell whether nothing is left out."""
        return self.n == self.m

    @property
    def label(self) -> str:
        """Return the name that a table shows."""
        if self.is_dense:
            return "dense"
        return f"{self.vector_rows}:{self.n}:{self.m}" if self.vector_rows else f"{self.n}:{self.m}"

    def depth(self, dtype: str, cta_depth: int) -> int:
        """Return the groups that one instruction multiplies: as many as fill its slots, at most those of a step.

        An instruction that fills fewer slots is taken to be proportionally shorter, one of more longer (assumed).
        """
        return max(1, min(OPERAND_BITS // DTYPE_BITS[dtype] // self.n, -(-cta_depth // self.m)))

    def stored_bits(self, rows: int, groups: int, value_bits: int) -> dict[str, int]:
        """Return the bits of ``groups`` of each of ``rows``, by part."""
        if self.is_dense:
            return {"values": rows * groups * self.n * value_bits, "positions": 0}
        bits = storage_bits(rows * groups, self.n, self.slot_group, value_bits, self.width)
        if self.vector_rows:
            blocks = -(-rows // self.vector_rows) * groups
            bits["columns"] = blocks * CANDIDATES * (self.m - 1).bit_length()
        return bits

    def fetched(self, rows: int) -> int:
        """Return the rows of B that ``rows`` of A choose from, of the ``m`` of a group."""
        if not self.vector_rows:
            return self.m
        return min(self.m, CANDIDATES * -(-rows // self.vector_rows))


@dataclass(frozen=True, eq=False)
class Plan:
    """How one layer's products are issued.

    ``slab_groups``: groups that a row has in one step of the reduction, the last step filled up. ``groups``: issued in
    each step, repeats included, (row tiles, steps) int64, or (1, steps) where all row tiles are alike. ``overflowing``:
    groups of single rows with more nonzeros than slots. ``warnings``: why it is not what the machine could do.
    """

    kind: Kind
    slab_groups: int
    groups: np.ndarray
    overflowing: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Return the steps of the reduction."""
        return int(self.groups.shape[1])

    @property
    def is_uniform(self) -> bool:
        """Tell whether all row tiles are alike."""
        return len(self.groups) == 1

    @property
    def repeats(self) -> int:
        """Return the groups that are issued again, summed over row tiles."""
        return int((self.groups - self.slab_groups).sum())


def native(config: Config) -> Kind:
    """Return the group that the cores' own sparse instructions have."""
    n, m, width = NATIVE.get(config.dtype, (2, 4, 1))
    return Kind(n, m, width, m)


def plan(config: Config, gemm: Gemm, kept: np.ndarray | None) -> Plan:
    """Return how ``gemm`` is issued on a machine of ``config``.

    ``kept`` is (outputs of all products, channels, cells), nonzero where a weight is; None where only the pattern is
    known, which is then believed. A weight whose passes would outnumber the dense instructions is issued dense.
    """
    dense = _uniform(config, gemm, Kind())
    if config.sparsity == "dense" or gemm.pattern == (1, 1) or config.dtype == "b1":
        return dense
    warnings: list[str] = []
    if config.sparsity in ("n:m", "wide-fetch") and gemm.pattern is not None:
        n, m = gemm.pattern
        if m <= config.largest_m:
            return _uniform(config, gemm, Kind(n, m, 1, m)) if n < m else dense
        warnings.append(
            f"{n}:{m} needs muxes of {m}, and largest_m is {config.largest_m}: run as {native(config).label}"
        )
    if config.sparsity == "v:n:m":
        shared, warning = _shared(config, gemm, kept)
        if shared is not None:
            return _uniform(config, gemm, shared)
        warnings.append(warning)
    kind = native(config)
    if _promised(gemm.pattern, kind) or kept is None:
        return _uniform(config, gemm, kind, tuple(warnings))
    passes = _passes(config, gemm, kind, kept, tuple(warnings))
    return passes if _slots(config, passes) < _slots(config, dense) * len(passes.groups) else dense


def slab_groups(config: Config, kind: Kind) -> int:
    """Return the groups of one step: those of ``cta_depth``, filled up to whole instructions."""
    depth = kind.depth(config.dtype, config.cta_depth)
    return -(-config.cta_depth // (kind.m * depth)) * depth


def _uniform(config: Config, gemm: Gemm, kind: Kind, warnings: tuple[str, ...] = ()) -> Plan:
    size = slab_groups(config, kind)
    steps = -(-gemm.groups(kind.m) // size)
    return Plan(kind, size, np.full((1, steps), size, np.int64), warnings=warnings)


def _promised(pattern: tuple[int, int] | None, kind: Kind) -> bool:
    """Tell whether ``pattern`` by itself keeps every group of ``kind`` within its slots."""
    if pattern is None:
        return False
    n, m = pattern
    slots, choices = kind.n // kind.width, kind.m
    if m % choices == 0:
        return n <= slots
    return choices % m == 0 and n * (choices // m) <= slots


def _shared(config: Config, gemm: Gemm, kept: np.ndarray | None) -> tuple[Kind | None, str]:
    """Return the V:N:M group that ``gemm`` keeps, or None and why not."""
    kind = native(config)
    m = gemm.pattern[1] if gemm.pattern is not None else config.largest_m
    if m > config.largest_m:
        return None, f"groups of {m} exceed largest_m, {config.largest_m}: run as {kind.label}"
    if m < CANDIDATES or kind != Kind(2, CANDIDATES, 1, CANDIDATES):
        return None, f"V:N:M needs groups of at least {CANDIDATES} on 2:4 cores: run as {kind.label}"
    shared = Kind(2, m, 1, CANDIDATES, config.vector_rows)
    if kept is not None:
        rows = gemm.rows
        for first in range(0, len(kept), rows):
            bad = _find_unshared(kept[first : first + rows], config.vector_rows, m, CANDIDATES, shared.n)
            if bad >= 0:
                return None, (
                    f"blocks of {config.vector_rows} rows must share {CANDIDATES} of {m} inputs and keep {shared.n} "
                    f"each, and that of row {first + bad} does not: run as {kind.label}"
                )
    return shared, ""


def _passes(config: Config, gemm: Gemm, kind: Kind, kept: np.ndarray, warnings: tuple[str, ...]) -> Plan:
    size = slab_groups(config, kind)
    steps = -(-gemm.groups(kind.m) // size)
    tiles = -(-gemm.rows // config.cta_rows)
    groups = np.empty((gemm.count * tiles, steps), np.int64)
    overflowing = 0
    for product in range(gemm.count):
        rows = kept[product * gemm.rows : (product + 1) * gemm.rows]
        into = groups[product * tiles : (product + 1) * tiles]
        overflowing += _count_passes(
            rows, config.cta_rows, config.lockstep_rows, kind.m, kind.width, kind.n // kind.width, size, into
        )
    if (groups == size).all():
        groups = groups[:1].copy()
    return Plan(kind, size, groups, overflowing, warnings)


def _slots(config: Config, plan: Plan) -> int:
    """Return the slots that a row issues, idle ones too, summed over row tiles (the one tile of a uniform plan)."""
    depth = plan.kind.depth(config.dtype, config.cta_depth)
    return int((-(-plan.groups // depth)).sum()) * depth * plan.kind.n


@njit(cache=True)
def _count_passes(kept, tile_rows, lockstep, m, width, slots, size, groups):  # type: ignore[no-untyped-def]
    """Fill ``groups``, (row tiles, steps): per step the most that any slice of rows issues; return the overflowing."""
    rows, channels, cells = kept.shape
    tiles, steps = groups.shape
    per_cell = (channels + m - 1) // m
    overflowing = 0
    passes = np.empty(steps * size, np.int64)
    for t in range(tiles):
        groups[t] = 0
        end = min(rows, (t + 1) * tile_rows)
        for first in range(t * tile_rows, end, lockstep):
            passes[:] = 1
            for r in range(first, min(end, first + lockstep)):
                for cell in range(cells):
                    for g in range(per_cell):
                        found = 0
                        below = min(channels, (g + 1) * m)
                        for c in range(g * m, below, width):
                            hit = False
                            for e in range(c, min(below, c + width)):
                                hit |= kept[r, e, cell] != 0
                            found += hit
                        if found > slots:
                            overflowing += 1
                            place = cell * per_cell + g
                            passes[place] = max(passes[place], (found + slots - 1) // slots)
            for s in range(steps):
                issued = 0
                for g in range(s * size, (s + 1) * size):
                    issued += passes[g]
                groups[t, s] = max(groups[t, s], issued)
    return overflowing


@njit(cache=True)
def _find_unshared(kept, vector_rows, m, candidates, slots):  # type: ignore[no-untyped-def]
    """Return the first row of the first block that is not V:N:M, -1 where all are."""
    rows, channels, cells = kept.shape
    for first in range(0, rows, vector_rows):
        for cell in range(cells):
            for g in range(0, channels, m):
                below = min(channels, g + m)
                used = 0
                for c in range(g, below):
                    hit = False
                    for r in range(first, min(rows, first + vector_rows)):
                        hit |= kept[r, c, cell] != 0
                    used += hit
                if used > candidates:
                    return first
                for r in range(first, min(rows, first + vector_rows)):
                    found = 0
                    for c in range(g, below):
                        found += kept[r, c, cell] != 0
                    if found > slots:
                        return first
    return -1
