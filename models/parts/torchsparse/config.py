"""What a GPU that runs TorchSparse can be configured to: its SMs, memories, dataflow and grouping."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import get_args

import msgspec

from ..ranges import check_bounds, check_not_negative, check_one_of, check_positive, check_shares
from .groups import Grouping

CHOICES = {
    "dtype": ("fp16", "fp32"),
    "dataflow": ("gather-gemm-scatter", "fetch-on-demand", "implicit-gemm"),
    "grouping": get_args(Grouping),
}
BOUNDS = {
    "sm_count": (1, 1024), "fp16_fma_per_clk": (1, 65536), "fp32_fma_per_clk": (1, 65536), "tile_rows": (1, 1024),
    "tile_columns": (1, 1024), "least_tile_columns": (1, 1024), "tile_depth": (1, 1024), "fill_cycles": (0, 1 << 30),
    "l2_bytes": (0, 1 << 40), "thread_bytes": (1, 16), "probe_sectors": (1, 64), "threshold": (0, 1 << 30),
    "fixed_group": (1, 1 << 15), "mask_splits": (0, 32),
}  # fmt: skip
LINE_BYTES = 128  # that the threads of a warp read or write at once
WARP_THREADS = 32
CHANNEL_BYTES = 16  # rows of features are padded to multiples of these


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU, and how it runs a sparse convolution. Values are computed in float32.

    ``sm_count``; ``clock_hz``. ``fp16_fma_per_clk``, ``fp32_fma_per_clk``: multiply-adds of an SM;
    ``kernel_efficiency``: of these, what the main loop of a product reaches. ``tile_rows`` x ``tile_columns``: outputs
    of a CTA; products of fewer columns take the least power of 2 that holds them, not below ``least_tile_columns``.
    ``tile_depth``: of a step along the reduction. ``fill_cycles``: a CTA's way in and out. ``launch_s``: of a kernel.
    ``l2_bytes``, ``l2_bytes_per_clk``: what fits there is read from DRAM once. ``dram_bytes_per_s``, of which
    ``dram_efficiency`` is reached. ``dtype``: of features and weights.
    ``dataflow``: "gather-gemm-scatter", with products grouped by ``grouping`` ("adaptive" and its ``epsilon`` and
    ``threshold``; "tuned", with the best of these for each layer; "fixed", batches of ``fixed_group`` maps; "separate";
    "batched", all in one); "fetch-on-demand"; or "implicit-gemm", whose rows are sorted by the offsets they have in
    ``mask_splits`` parts of these, 0 for rows as they come. ``fused_movement``: gather all maps in one kernel, each
    input row read once, and scatter likewise; else map by map. ``thread_bytes``: that a thread moves at a time.
    ``probe_sectors``: sectors of 32 bytes that a look-up in the hash table reads. ``functional``: compute the values
    too. ``energy``: an energy table, "" for none.
    """

    sm_count: int
    clock_hz: float
    fp16_fma_per_clk: int
    fp32_fma_per_clk: int
    kernel_efficiency: float
    tile_rows: int
    tile_columns: int
    least_tile_columns: int
    tile_depth: int
    fill_cycles: int
    launch_s: float
    l2_bytes: int
    l2_bytes_per_clk: float
    dram_bytes_per_s: float
    dram_efficiency: float
    dtype: str
    dataflow: str
    grouping: str
    epsilon: float
    threshold: int
    fixed_group: int
    mask_splits: int
    fused_movement: bool
    thread_bytes: int
    probe_sectors: int
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        check_positive(self, "clock_hz", "l2_bytes_per_clk", "dram_bytes_per_s")
        check_shares(self, "kernel_efficiency", "dram_efficiency")
        check_not_negative(self, "launch_s")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must be from 0 to 1, not {self.epsilon}")
        check_one_of(self, CHOICES)

    @property
    def value_bytes(self) -> int:
        """Return the bytes of a feature or weight."""
        return 2 if self.dtype == "fp16" else 4

    @property
    def fma_per_clk(self) -> int:
        """Return the multiply-adds of an SM in a cycle."""
        return self.fp16_fma_per_clk if self.dtype == "fp16" else self.fp32_fma_per_clk

    @property
    def launch_cycles(self) -> int:
        """Return the cycles of a kernel's launch."""
        return math.ceil(Fraction(self.launch_s) * Fraction(self.clock_hz))

    @property
    def movement_share(self) -> Fraction:
        """Return what of a line a warp uses when it gathers or scatters."""
        return min(Fraction(1), Fraction(WARP_THREADS * self.thread_bytes, LINE_BYTES))

    def row_bytes(self, channels: int) -> int:
        """Return the bytes of a row of features."""
        return -(-channels * self.value_bytes // CHANNEL_BYTES) * CHANNEL_BYTES

    def columns_of_tile(self, columns: int) -> int:
        """Return the columns of the CTA that computes ``columns`` of outputs."""
        return min(self.tile_columns, max(self.least_tile_columns, 1 << (columns - 1).bit_length()))

    def step_cycles(self, columns: int) -> int:
        """Return the cycles of a step along the reduction, for ``columns`` of outputs."""
        products = self.tile_rows * self.columns_of_tile(columns) * self.tile_depth
        return math.ceil(products / (Fraction(self.fma_per_clk) * Fraction(self.kernel_efficiency)))

    def memory_cycles(self, dram: int, l2: int, share: Fraction = Fraction(1)) -> int:
        """Return the cycles in which DRAM and L2 move so many bytes, in lines of which ``share`` is used."""
        per_s = Fraction(self.dram_bytes_per_s) * Fraction(self.dram_efficiency)
        return max(
            math.ceil(dram * Fraction(self.clock_hz) / (per_s * share)),
            math.ceil(l2 / (Fraction(self.l2_bytes_per_clk) * share)),
        )

    def from_dram(self, moved: int, footprint: int, touched: int) -> int:
        """Return what DRAM moves of ``moved`` bytes: the ``touched`` ones once, where L2 holds the ``footprint``."""
        return min(moved, touched) if footprint <= self.l2_bytes else moved
