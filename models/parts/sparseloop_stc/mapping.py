"""Sparseloop's sparse tensor core, what its weights keep, and where a product's operands lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

from ....workloads.lowering import reduction_axis
from ..ranges import check_bounds, check_either, check_positive

if TYPE_CHECKING:
    from ....workloads.trace import Layer

METADATA = ("coordinates", "run-length")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sparseloop's sparse tensor core. Values are computed in float32; ``word_bits`` sets what they take to keep.

    ``subpartitions`` of ``rows_per_subpartition`` rows, each of ``reduction_lanes`` multipliers. ``columns_per_tile``:
    columns for which weights stay in the multipliers' registers. ``metadata``: "coordinates" in the group, or
    "run-length", the zeros before a kept weight. ``smem_bytes``, ``smem_words_per_clk``: shared memory. ``clock_hz``.
    ``energy``: an energy table. ``dense_energy``: that of layers that run dense, "" for the same.
    """

    subpartitions: int
    rows_per_subpartition: int
    reduction_lanes: int
    columns_per_tile: int
    metadata: str
    smem_bytes: int
    smem_words_per_clk: int
    word_bits: int
    clock_hz: float
    energy: str
    dense_energy: str

    def __post_init__(self) -> None:
        bounds = {
            "subpartitions": (1, 1024), "rows_per_subpartition": (1, 1024), "reduction_lanes": (1, 1024),
            "columns_per_tile": (1, 1 << 16), "smem_bytes": (1, 1 << 50), "smem_words_per_clk": (1, 1 << 20),
            "word_bits": (1, 64),
        }  # fmt: skip
        check_bounds(self, bounds)
        check_either(self, {"metadata": METADATA})
        check_positive(self, "clock_hz")

    @property
    def rows(self) -> int:
        """Return how many rows take part in a step."""
        return self.subpartitions * self.rows_per_subpartition

    @property
    def multipliers(self) -> int:
        """Return the multipliers of all sub-partitions."""
        return self.rows * self.reduction_lanes


@dataclass(frozen=True)
class Scheme:
    """What the weights of a layer keep: ``n`` of ``m``, with ``bits`` of metadata each; dense is 1 of 1 with none."""

    n: int
    m: int
    bits: int

    @classmethod
    def of(cls, layer: Layer, metadata: str) -> Scheme:
        """Return the scheme of ``layer``: its N:M pattern where that lies along the inputs, else dense.

        Coordinates take log2(m) bits, run-lengths log2(m - n), at least 2; both rounded up to a power of two: 3 take 4.
        """
        pattern = layer.pattern
        if pattern.kind != "n:m" or pattern.axis != reduction_axis(layer):
            return cls(1, 1, 0)
        assert pattern.n is not None and pattern.m is not None
        n, m = pattern.n, pattern.m
        if n == m:
            return cls(1, 1, 0)
        choices = m if metadata == "coordinates" else min(m, max(m - n, 4))
        bits = (choices - 1).bit_length()
        return cls(n, m, 1 << (bits - 1).bit_length())

    @property
    def dense(self) -> bool:
        """Tell whether nothing is left out."""
        return self.n == self.m

    def words_per_step(self, config: Config) -> Fraction:
        """Return the words that shared memory delivers for a step of all rows: inputs, weights and metadata."""
        inputs = Fraction(config.reduction_lanes * self.m, self.n)
        weights = Fraction(config.multipliers, config.columns_per_tile)
        return inputs + weights * (1 + Fraction(self.bits, config.word_bits))


@dataclass(frozen=True)
class Gemm:
    """One product: ``rows`` x ``reduction`` weights meet ``columns`` vectors.

    ``kept``: weights stored of a row, zeros that fill a group among them. ``padded``: the reduction with every group
    whole (a convolution's groups lie along its channels, for each place of the kernel).
    """

    rows: int
    reduction: int
    columns: int
    kept: int
    padded: int
    has_bias: bool

    @classmethod
    def of(cls, layer: Layer, scheme: Scheme, columns: int) -> Gemm:
        """Return the sizes of one of the products of ``layer``; those of a layer are all alike."""
        axis = reduction_axis(layer)
        channels, places = layer.shape[axis], math.prod(layer.shape[axis + 1 :])
        kept = places * sum(group_kept(scheme, channels))
        # Of a linear layer the short group is padded with the rest of the last step, as the study counts.
        padded = channels if places == 1 else places * -(-channels // scheme.m) * scheme.m
        rows = layer.shape[axis - 1] // layer.attributes.get("groups", 1)
        return cls(rows, channels * places, columns, kept, padded, layer.has_bias)

    def steps(self, config: Config, scheme: Scheme) -> int:
        """Return how many steps a row takes for one column."""
        lanes = config.reduction_lanes
        # A short group may keep more than its share: the second bound matters where n does not divide the lanes.
        return max(-(-self.padded * scheme.n // (lanes * scheme.m)), -(-self.kept // lanes))


def group_kept(scheme: Scheme, channels: int) -> list[int]:
    """Return how many weights each group of ``channels`` stores: n, or all of a short last one that has fewer."""
    whole, rest = divmod(channels, scheme.m)
    return [scheme.n] * whole + [min(scheme.n, rest)] * (rest > 0)


@dataclass(frozen=True)
class Mapping:
    """What of a product lies in shared memory at a time: weights of ``rows``, inputs of ``columns``.

    ``rows_first``: the next rows come before the next columns; what comes first is fetched again for each of the
    other. The reduction is not cut, as in the study's dataflow: sums never leave the register files. Of those that fit,
    the mapping moves the fewest words between DRAM and shared memory, then the fewest weights into the registers.
    """

    rows: int
    columns: int
    rows_first: bool
    fits: bool = True

    @classmethod
    def of(cls, config: Config, scheme: Scheme, gemm: Gemm) -> Mapping:
        """Return the mapping of ``gemm``: rows in whole steps, columns a power of two up to those of a tile."""
        words = 8 * config.smem_bytes // config.word_bits
        best: tuple[tuple[int, int, int], Mapping] | None = None
        blocks = -(-gemm.rows // config.rows)
        for block in range(1, min(blocks, 8) + 1):  # at most 8 steps' rows in the memory: the study's constraint
            rows = min(block * config.rows, gemm.rows)
            columns = config.columns_per_tile
            while columns:
                if rows * gemm.kept + min(columns, gemm.columns) * gemm.reduction <= words:
                    for rows_first in (True, False):
                        found = cls(rows, columns, rows_first)
                        cost = (found.dram_words(gemm), found.column_tiles(gemm), -rows)
                        if best is None or cost < best[0]:
                            best = cost, found
                columns //= 2
        return best[1] if best is not None else cls(min(config.rows, gemm.rows), 1, True, fits=False)

    def row_tiles(self, gemm: Gemm) -> int:
        """Return how often the rows in shared memory change."""
        return -(-gemm.rows // self.rows)

    def column_tiles(self, gemm: Gemm) -> int:
        """Return how often the columns in shared memory change."""
        return -(-gemm.columns // self.columns)

    def weight_fetches(self, gemm: Gemm) -> int:
        """Return how often all weights come from DRAM."""
        return self.column_tiles(gemm) if self.rows_first and self.row_tiles(gemm) > 1 else 1

    def input_fetches(self, gemm: Gemm) -> int:
        """Return how often all inputs come from DRAM."""
        return self.row_tiles(gemm) if not self.rows_first and self.column_tiles(gemm) > 1 else 1

    def dram_words(self, gemm: Gemm) -> int:
        """Return the operands fetched from DRAM, without metadata."""
        weights, inputs = gemm.rows * gemm.kept, gemm.reduction * gemm.columns
        return weights * self.weight_fetches(gemm) + inputs * self.input_fetches(gemm)


@dataclass
class Tally:
    """What a layer did, counted in wholes: both engines fill it in, and everything reported follows from it.

    ``row_steps``: steps times the rows that took part. ``loaded``: weights put into multipliers' registers.
    ``fetched_weights``, ``fetched_inputs``: words from DRAM. ``cycles``: once all is done.
    """

    cycles: int = 0
    macs: int = 0
    row_steps: int = 0
    loaded: int = 0
    fetched_weights: int = 0
    fetched_inputs: int = 0
