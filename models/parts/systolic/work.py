"""What the weight-stationary array is, the products that pass it, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import msgspec

from ..ranges import check_bounds, check_positive

CAUSES = ("load", "compute", "fill_drain", "memory")
SRAMS = ("ifmap", "filter", "ofmap")
COUNTS = (
    "macs", "register_reads", *(f"{sram}_sram_{act}" for sram in SRAMS for act in ("reads", "writes")),
    "dram_reads", "dram_writes",
)  # fmt: skip


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A weight-stationary array. Values are computed in float32; ``word_bytes`` sets what they take to keep and move.

    ``rows``: along the reduction. ``columns``: along the outputs. ``clock_hz``. ``word_bytes``: of weights, inputs and
    partial sums. ``ifmap_sram_bytes``, ``filter_sram_bytes``, ``ofmap_sram_bytes``: capacities. ``batch_size``: samples
    whose vectors pass the array together, 0 for all of them; the next ones begin when they are done, with weights
    loaded again.
    ``dram_bandwidth_bytes_per_s``. ``dram_bounds_latency``: a pass takes as long as its DRAM traffic where that is
    longer (everything is prefetched, double-buffered); else DRAM costs energy, not time. ``energy``: an energy table.
    """

    rows: int
    columns: int
    clock_hz: float
    word_bytes: int
    ifmap_sram_bytes: int
    filter_sram_bytes: int
    ofmap_sram_bytes: int
    batch_size: int
    dram_bandwidth_bytes_per_s: float
    dram_bounds_latency: bool
    energy: str

    def __post_init__(self) -> None:
        bounds = {
            "rows": (1, 65536), "columns": (1, 65536), "word_bytes": (1, 8), "ifmap_sram_bytes": (1, 1 << 50),
            "filter_sram_bytes": (1, 1 << 50), "ofmap_sram_bytes": (1, 1 << 50), "batch_size": (0, 1 << 30),
        }  # fmt: skip
        check_bounds(self, bounds)
        check_positive(self, "clock_hz", "dram_bandwidth_bytes_per_s")


@dataclass(frozen=True)
class Gemm:
    """One product in one pass: ``vectors`` (M) of ``depth`` (K) to ``outputs`` (N), from ``input_words`` in DRAM."""

    vectors: int
    depth: int
    outputs: int
    input_words: int
    has_bias: bool

    def row_tiles(self, config: Config) -> int:
        """Return how many tiles lie along the reduction."""
        return -(-self.depth // config.rows)

    def column_tiles(self, config: Config) -> int:
        """Return how many tiles lie along the outputs."""
        return -(-self.outputs // config.columns)

    def inputs_fit(self, config: Config) -> bool:
        """Tell whether the inputs stay in their SRAM from one column tile to the next."""
        return self.input_words * config.word_bytes <= config.ifmap_sram_bytes

    def sums_fit(self, config: Config) -> bool:
        """Tell whether the partial sums of a column tile stay in their SRAM from one tile along K to the next."""
        words = self.vectors * min(self.outputs, config.columns)
        return self.row_tiles(config) == 1 or words * config.word_bytes <= config.ofmap_sram_bytes


@dataclass
class Account:
    """A layer's figures, added up pass by pass."""

    causes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    @property
    def cycles(self) -> int:
        """Return the cycles of all passes."""
        return sum(self.causes.values())

    def add(self, other: Account, times: int) -> None:
        """Add the figures of ``other``, ``times`` over."""
        for mine, theirs in ((self.causes, other.causes), (self.counts, other.counts)):
            for name, value in theirs.items():
                mine[name] += times * value

    def count(self, **words: int) -> None:
        """Add ``words`` to the counts of these names."""
        for name, value in words.items():
            self.counts[name] += value


def dram_cycles(words: int, config: Config) -> int:
    """Return the clock cycles that DRAM takes to move ``words``, rounded up."""
    moved = words * config.word_bytes * Fraction(config.clock_hz)
    return math.ceil(moved / Fraction(config.dram_bandwidth_bytes_per_s))
