"""What a mobile processor is to pattern-pruned convolutions: vector units, caches, and its compiler's choices."""

from __future__ import annotations

import msgspec

from ..ranges import check_bounds, check_either, check_positive, check_shares

LOOP_ORDERS = ("filters", "tiles")
SCHEDULES = ("static", "dynamic")
BOUNDS = {
    "cores": (1, 4096), "vector_width": (1, 4096), "registers": (4, 65536), "load_ports": (1, 64),
    "load_cycles": (1, 1024), "fma_ports": (1, 64), "store_ports": (1, 64), "fma_latency": (1, 1024),
    "load_latency": (0, 65536),
    "window": (1, 65536), "kernel_cycles": (0, 65536), "dispatch_cycles": (0, 65536), "switch_cycles": (0, 65536),
    "item_cycles": (0, 1 << 30), "lane_filters": (1, 4096), "word_bytes": (1, 8), "l1_bytes": (1, 1 << 40),
    "l2_bytes": (1, 1 << 40), "l2_bytes_per_clk": (1, 1 << 20), "pattern_codes": (1, 65536), "tile_rows": (1, 4096),
    "tile_vectors": (1, 4096), "filter_block": (1, 4096),
}  # fmt: skip


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores with vector units, and which of PatDNN's techniques the code that they run was compiled with.

    The machine: ``cores``, each with a vector of ``vector_width`` words, ``registers``, ``load_ports``,
    ``fma_ports`` and ``store_ports`` (vectors a cycle; a load takes its port for ``load_cycles``); ``clock_hz``.
    ``fma_latency``: from one multiply-add to the next that adds to the same register. ``load_latency``: from a load
    to its use. ``window``: kernels whose loads may run ahead of the multiply-adds. ``kernel_cycles``: of the front
    end for every kernel (its index, its pointers); ``dispatch_cycles``: for looking up a kernel's pattern;
    ``switch_cycles``: lost where the next kernel has another pattern; ``item_cycles``: for each tile of outputs.
    ``lane_filters``: filters side by side in the lanes of a vector, in lockstep. ``flat_lanes``: lanes lie along
    all output positions, not along a row. ``schedule``: "static", filter blocks are given out before; "dynamic",
    tiles go to whichever core is free. ``word_bytes``: of weights and activations; ``l1_bytes`` of each core,
    ``l2_bytes`` for all, ``l2_bytes_per_clk`` to each core; ``dram_bytes_per_s``, of which ``dram_efficiency`` is
    reached.

    The code: ``sparse``: pruned kernels and weights are left out, else all are computed. ``pattern_codes``: patterns
    that code is generated for. ``reorder``: the filter-kernel reorder. ``kernel_lre``, ``filter_lre``: elimination of
    redundant loads, within a kernel and among filters. ``tile_rows`` x ``tile_vectors`` outputs of ``filter_block``
    filters are held in registers; ``loop_order``: "filters" or "tiles" in the outer loop. ``tune``: choose these four
    for each layer, the fastest. ``functional``: compute the values too, not the cost alone. ``energy``: an energy
    table, "" for none.
    """

    cores: int
    clock_hz: float
    vector_width: int
    registers: int
    load_ports: int
    load_cycles: int
    fma_ports: int
    store_ports: int
    fma_latency: int
    load_latency: int
    window: int
    kernel_cycles: int
    dispatch_cycles: int
    switch_cycles: int
    item_cycles: int
    lane_filters: int
    flat_lanes: bool
    schedule: str
    word_bytes: int
    l1_bytes: int
    l2_bytes: int
    l2_bytes_per_clk: int
    dram_bytes_per_s: float
    dram_efficiency: float
    sparse: bool
    pattern_codes: int
    reorder: bool
    kernel_lre: bool
    filter_lre: bool
    tile_rows: int
    tile_vectors: int
    filter_block: int
    loop_order: str
    tune: bool
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        check_positive(self, "clock_hz", "dram_bytes_per_s")
        check_shares(self, "dram_efficiency")
        check_either(self, {"schedule": SCHEDULES, "loop_order": LOOP_ORDERS})
        if self.vector_width % self.lane_filters:
            raise ValueError(f"lane_filters must divide vector_width = {self.vector_width}, not {self.lane_filters}")
        if self.lane_filters > 1 and self.filter_block > 1:
            raise ValueError(
                f"filter_block must be 1 where lane_filters is {self.lane_filters}, not {self.filter_block}"
            )

    @property
    def lanes(self) -> int:
        """Return the output positions in a vector."""
        return self.vector_width // self.lane_filters

    @property
    def multipliers(self) -> int:
        """Return the multiply-adds of a cycle, all cores together."""
        return self.cores * self.fma_ports * self.vector_width
