"""What PointAcc can be configured to: its array, memories, dataflow and mapping unit."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from ..ranges import check_bounds, check_one_of, check_positive
from .hashing import HashEngine
from .mapper import Mapper

CHOICES = {
    "loop_order": ("output-tile", "weight-stationary"),
    "flow": ("fetch-on-demand", "gather-scatter"),
    "overlap": ("all", "tiles", "memory", "none"),
    "mapper": ("merge-sort", "hash"),
}
BOUNDS = {
    "rows": (1, 4096), "columns": (1, 4096), "word_bytes": (1, 8), "sum_bytes": (1, 8), "index_bytes": (1, 8),
    "key_bytes": (1, 16), "coordinate_bytes": (1, 8), "cache_bytes": (1, 1 << 30), "cache_block_rows": (1, 65536),
    "weight_buffer_bytes": (1, 1 << 40), "output_buffer_bytes": (1, 1 << 40), "mapping_buffer_bytes": (1, 1 << 40),
    "output_tile": (1, 1 << 30), "fuse_tile": (1, 1 << 30), "fps_lanes": (1, 65536), "fps_latency": (0, 65536),
    "hash_latency": (0, 65536),
}  # fmt: skip


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PointAcc: a mapping unit, a memory management unit and a systolic array. Values are computed in float32.

    ``rows`` x ``columns``: of the array, input channels by output channels. ``array_fill``: charge each pass for its
    weights' way in and for filling and draining the array; else one row a cycle and nothing more. ``word_bytes``: of
    features and weights; ``sum_bytes``: of partial sums; ``index_bytes``: of an index, of which a map entry has two;
    ``key_bytes``: of a voxel's packed coordinates; ``coordinate_bytes``: of one coordinate of a point.
    ``cache_bytes``: feature memory, a direct-mapped cache of blocks of ``cache_block_rows`` rows of the channels that
    enter the array together. ``weight_buffer_bytes``, ``output_buffer_bytes`` (partial sums), ``mapping_buffer_bytes``.
    ``loop_order``: tiles of ``output_tile`` outputs outside, offsets inside, or the whole cloud offset by offset.
    ``flow``: rows through the cache, or gathered rows written to DRAM and sums scattered there, offset by offset.
    ``fuse_layers``: leave the features between dense layers of a chain on chip where those of ``fuse_tile`` rows fit.
    ``overlap``: which of mapping, matrix and memory run at the same time. ``mapper``: who builds kernel maps; the rest
    is described by `Mapper` and `HashEngine`. ``functional``: compute the values too. ``energy``: a table, "" for none.
    """

    rows: int
    columns: int
    clock_hz: float
    array_fill: bool
    word_bytes: int
    sum_bytes: int
    index_bytes: int
    key_bytes: int
    coordinate_bytes: int
    cache_bytes: int
    cache_block_rows: int
    weight_buffer_bytes: int
    output_buffer_bytes: int
    mapping_buffer_bytes: int
    dram_bandwidth_bytes_per_s: float
    loop_order: str
    output_tile: int
    flow: str
    fuse_layers: bool
    fuse_tile: int
    overlap: str
    mapper: str
    merger_width: int
    merge_rule: str
    fps_lanes: int
    fps_latency: int
    exploit_symmetry: bool
    hash_banks: int
    hash_load: float
    hash_probing: str
    hash_latency: int
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        check_positive(self, "clock_hz", "dram_bandwidth_bytes_per_s")
        check_one_of(self, CHOICES)
        block = self.cache_block_rows * self.rows * self.word_bytes
        if block > self.cache_bytes:
            raise ValueError(f"cache_bytes must hold a block of {block} bytes, not {self.cache_bytes}")
        _renamed(lambda: self.merge_unit, rule="merge_rule", loop_latency="fps_latency")
        _renamed(
            lambda: self.hash_unit,
            bank_count="hash_banks",
            load_factor="hash_load",
            probing="hash_probing",
            pipeline_depth="hash_latency",
        )

    @property
    def merge_unit(self) -> Mapper:
        """Return the mapping unit that merges sorted keys."""
        return Mapper(
            merger_width=self.merger_width,
            rule=self.merge_rule,  # type: ignore[arg-type]  # checked by Mapper
            fps_lanes=self.fps_lanes,
            loop_latency=self.fps_latency,
            exploit_symmetry=self.exploit_symmetry,
        )

    @property
    def hash_unit(self) -> HashEngine:
        """Return the mapping unit that looks keys up in a hash table."""
        return HashEngine(
            bank_count=self.hash_banks,
            load_factor=self.hash_load,
            probing=self.hash_probing,  # type: ignore[arg-type]  # checked by HashEngine
            pipeline_depth=self.hash_latency,
            exploit_symmetry=self.exploit_symmetry,
        )

    @property
    def multipliers(self) -> int:
        """Return the multipliers of the array."""
        return self.rows * self.columns

    @property
    def fill_cycles(self) -> int:
        """Return what a pass costs beyond a cycle a row: weights in, the first row's way in, the last sum's way out."""
        return 2 * self.rows + self.columns - 2 if self.array_fill else 0

    @property
    def cycles_per_byte(self) -> Fraction:
        """Return the clock cycles that DRAM takes for a byte."""
        return Fraction(self.clock_hz) / Fraction(self.dram_bandwidth_bytes_per_s)


def _renamed(build: object, **names: str) -> None:
    """Call ``build``; a rule that it states of its own fields is stated of the Config's, which have other names."""
    try:
        build()  # type: ignore[operator]
    except ValueError as error:
        message = str(error)
        for theirs, ours in names.items():
            if message.startswith(f"{theirs} "):
                message = ours + message.removeprefix(theirs)
        raise ValueError(message) from None
