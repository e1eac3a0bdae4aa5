"""The configuration of a GPU with sparse tensor cores, for the instruction level and for whole products."""

from __future__ import annotations

import re

import msgspec

from ..ranges import check_bounds, check_either, check_not_negative, check_one_of, check_positive, check_shares

DTYPE_BITS = {"fp16": 16, "bf16": 16, "tf32": 32, "int8": 8, "int4": 4, "b1": 1}  # tf32 is kept in 32-bit words
ACCUMULATES = {
    "fp16": ("fp32", "fp16"), "bf16": ("fp32",), "tf32": ("fp32",), "int8": ("int32",), "int4": ("int32",),
    "b1": ("int32",),
}  # fmt: skip
SPARSITIES = ("dense", "2:4", "n:m", "wide-fetch", "v:n:m")
TILINGS = ("fixed", "auto")


def parse_tiles(text: str) -> list[tuple[int, int, int, int]]:
    """Return the CTA tiles that ``text`` lists: rows, columns, and rows and columns of a warp.

    Raises ValueError for anything but one or more tiles like 128x256/64x64, with sides from 1 to 65536.
    """
    tiles = []
    for word in text.split():
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})/([1-9]\d{0,4})x([1-9]\d{0,4})", word, re.ASCII)
        sides = [int(side) for side in match.groups()] if match else []
        if not match or max(sides) > 65536:
            raise ValueError(f"cta_tiles must be tiles like 128x256/64x64, with sides up to 65536, not {word!r}")
        tiles.append((sides[0], sides[1], sides[2], sides[3]))
    if not 1 <= len(tiles) <= 64:
        raise ValueError(f"cta_tiles must list 1 to 64 tiles, not {len(tiles)}")
    return tiles


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU with tensor cores. A core is one sub-core of a streaming multiprocessor (SM), with its own warps.

    The chip: ``sm_count``; ``tensor_cores_per_sm``; ``clock_hz``.

    Multipliers: ``fp16_fma_per_clk``, ``bf16_...``, ``tf32_...``, ``int8_...``, ``int4_...``, ``b1_...``: dense
    multiply-adds a clock and core, 0 where it has none of this kind. ``fp32_accumulate_rate``: the share of the fp16
    and bf16 rate that is left when they accumulate in fp32. ``sparsity``: what A, the weight, may leave out: "dense"
    nothing; "2:4" two of four (tf32 one of two, int4 four of eight in pairs); "n:m" any N:M by M:1 muxes; "wide-fetch"
    the same with B fetched ``fetch_width`` times as wide; "v:n:m" 2:4 cores whose four candidates are chosen among M by
    ``vector_rows`` rows together. ``largest_m``: the widest choice, of a mux or of such rows. ``fetch_width``,
    ``vector_rows``: see there; 1 elsewhere. ``lockstep_rows``: rows that issue together, and wait for the one that
    needs most passes.

    Instructions, in cycles: ``issue_min_cycles``, ``sparse_issue_min_cycles``: between two issues of one core, at
    least; an instruction whose multiply-adds take longer, c cycles, keeps the core for c. ``latency_base_cycles`` and
    ``latency_per_cycle``: results are there base + per_cycle * c after the issue. ``instruction_spacing_cycles``:
    between two instructions of one warp. ``loop_overhead_cycles``: once a round through the warps of a core.

    Products: ``cta_rows`` x ``cta_columns`` outputs a CTA (bm, bn), ``warp_rows`` x ``warp_columns`` a warp (wm, wn);
    the reduction is padded to ``cta_depth`` (K of one step). ``pipeline_stages``: steps that have a buffer in shared
    memory, 2 being double buffering. ``ctas_per_sm``: resident at once. ``tiling``: "fixed", the tile given here; or
    "auto", for each layer the tile of ``cta_tiles`` that takes fewest cycles, written as "128x256/64x64": bm x bn / wm
    x wn, one or more with spaces between. ``split_k``: CTAs that share the reduction of a tile, whose partial sums a
    second kernel adds; with "auto" at most so many.
    ``smem_bytes``, ``l2_bytes``, ``hbm_bytes``: capacities; ``smem_bytes_per_clk`` of an SM, ``l2_bytes_per_clk`` of
    the chip, ``hbm_bytes_per_s``, of which ``hbm_efficiency`` is reached. ``fill_cycles``: to fill a CTA's pipeline.
    ``launch_s``: a kernel's start. ``kernel_efficiency``: the share of these bounds that a real kernel reaches.

    ``dtype``, ``accumulate``: in which a product is computed. ``functional``: compute the values too, not the cost
    alone. ``energy``: an energy table, "" for none.
    """

    sm_count: int
    tensor_cores_per_sm: int
    clock_hz: float
    fp16_fma_per_clk: int
    bf16_fma_per_clk: int
    tf32_fma_per_clk: int
    int8_fma_per_clk: int
    int4_fma_per_clk: int
    b1_fma_per_clk: int
    fp32_accumulate_rate: float
    sparsity: str
    largest_m: int
    fetch_width: int
    vector_rows: int
    lockstep_rows: int
    issue_min_cycles: float
    sparse_issue_min_cycles: float
    latency_base_cycles: float
    latency_per_cycle: float
    instruction_spacing_cycles: float
    loop_overhead_cycles: float
    cta_rows: int
    cta_columns: int
    cta_depth: int
    pipeline_stages: int
    warp_rows: int
    warp_columns: int
    ctas_per_sm: int
    tiling: str
    cta_tiles: str
    split_k: int
    smem_bytes: int
    smem_bytes_per_clk: float
    l2_bytes: int
    l2_bytes_per_clk: float
    hbm_bytes: int
    hbm_bytes_per_s: float
    hbm_efficiency: float
    fill_cycles: int
    launch_s: float
    kernel_efficiency: float
    dtype: str
    accumulate: str
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        bounds = {
            "sm_count": (1, 65536), "tensor_cores_per_sm": (1, 64), "largest_m": (1, 256), "fetch_width": (1, 256),
            "vector_rows": (1, 65536), "lockstep_rows": (1, 65536), "pipeline_stages": (2, 64),
            "cta_rows": (1, 65536), "cta_columns": (1, 65536), "cta_depth": (1, 65536), "warp_rows": (1, 65536),
            "warp_columns": (1, 65536), "ctas_per_sm": (1, 64), "split_k": (1, 1024), "smem_bytes": (1, 1 << 40),
            "l2_bytes": (1, 1 << 50), "hbm_bytes": (1, 1 << 50), "fill_cycles": (0, 1 << 30),
            **{f"{dtype}_fma_per_clk": (0, 1 << 20) for dtype in DTYPE_BITS},
        }  # fmt: skip
        check_bounds(self, bounds)
        check_positive(
            self, "clock_hz", "latency_base_cycles", "smem_bytes_per_clk", "l2_bytes_per_clk", "hbm_bytes_per_s"
        )
        check_not_negative(
            self, "issue_min_cycles", "sparse_issue_min_cycles", "latency_per_cycle", "instruction_spacing_cycles",
            "loop_overhead_cycles", "launch_s",
        )  # fmt: skip
        check_shares(self, "fp32_accumulate_rate", "hbm_efficiency", "kernel_efficiency")
        self._check_words()
        for tile in (
            (self.cta_rows, self.cta_columns, self.warp_rows, self.warp_columns),
            *parse_tiles(self.cta_tiles),
        ):
            rows, columns, warp_rows, warp_columns = tile
            if rows % warp_rows or columns % warp_columns:
                raise ValueError(
                    f"warp tiles must fill the CTA tile of {rows} x {columns}, and {warp_rows} x {warp_columns} do not"
                )

    def _check_words(self) -> None:
        check_one_of(self, {"sparsity": SPARSITIES, "dtype": tuple(DTYPE_BITS)})
        check_either(self, {"tiling": TILINGS})
        if self.accumulate not in ACCUMULATES[self.dtype]:
            raise ValueError(
                f"accumulate of {self.dtype} must be {' or '.join(ACCUMULATES[self.dtype])}, not {self.accumulate!r}"
            )
        if self.fma_per_clk(self.dtype, self.accumulate) == 0:
            raise ValueError(f"dtype must be one that the cores multiply, and {self.dtype}_fma_per_clk is 0")

    def fma_per_clk(self, dtype: str, accumulate: str) -> float:
        """Return the dense multiply-adds a clock and core of ``dtype`` accumulated in ``accumulate``; 0 for none."""
        rate = float(getattr(self, f"{dtype}_fma_per_clk"))
        return rate * self.fp32_accumulate_rate if dtype in ("fp16", "bf16") and accumulate == "fp32" else rate

    @property
    def warps_per_cta(self) -> int:
        """Return how many warp tiles a CTA tile holds."""
        return (self.cta_rows // self.warp_rows) * (self.cta_columns // self.warp_columns)

    @property
    def element_bytes(self) -> float:
        """Return the bytes of one element of ``dtype``; a fraction for int4 and b1."""
        return DTYPE_BITS[self.dtype] / 8
