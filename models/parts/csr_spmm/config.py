"""The configuration of CSR SpMM on a GPU: the chip, and the kernel that runs on it."""

from __future__ import annotations

import msgspec

from ....workloads.errors import InputError
from ..ranges import check_bounds, check_either, check_not_negative, check_positive, check_shares

WARP = 32  # threads (CUDA C++ programming guide)
LINE_BYTES, SECTOR_BYTES = 128, 32  # of L1 and L2 (CUDA C++ programming guide, compute capability 7.x and 8.x)
MOST_REGISTERS = 255  # of a thread (CUDA C++ programming guide)
VALUE_BYTES = {"fp32": 4, "fp16": 2}
ORDERS = ("identity", "sorted")
KERNELS = ("fixed", "heuristic")
VECTORS = (1, 2, 4, 8)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU, and a kernel that multiplies a sparse matrix in CSR by a dense one, row-major.

    The chip: ``sm_count``; ``clock_hz``; ``sub_cores`` of an SM, each with its own warps and one instruction a clock;
    ``fma_per_clk`` of an SM. ``registers_per_sm``, ``max_warps_per_sm``, ``max_blocks_per_sm``: what bounds the thread
    blocks that an SM holds.

    Memory: ``l1_bytes`` and ``l1_bytes_per_clk`` of an SM, shared memory included; ``l2_bytes``, ``l2_bytes_per_clk``
    of the chip, of which ``l2_efficiency`` is reached; ``hbm_bytes``, ``hbm_bytes_per_s``, of which ``hbm_efficiency``
    is reached. ``l1_latency_cycles``, ``smem_latency_cycles``, ``l2_latency_cycles``: of a load.

    The kernel: a thread block has ``block_rows`` rows and ``tile_columns`` columns of the output; ``subwarp_threads``
    threads have one row, so that a warp holds 32 / ``subwarp_threads`` of them. Nonzeros come in steps of
    ``tile_depth``, by loads of ``sparse_vector`` values a thread; a row that does not start at a multiple of it is read
    from the multiple before (reverse-offset alignment). What is left of a row is multiplied ``residue_unroll`` nonzeros
    at a time. Rows of the dense matrix come by loads of ``dense_vector`` values a thread, for ``loads_in_flight``
    nonzeros at once. ``order``: "identity", or "sorted", the rows with most nonzeros first (row swizzle). ``kernel``:
    "fixed", the tile given here; "heuristic", Sputnik's choice by the columns, which replaces all of these
    but ``residue_unroll``. ``base_registers``: of a thread, beside the values that it
    has loaded and sums up. ``nonzero_instructions``, ``step_instructions``: of a warp, for each nonzero and for each
    step, beside multiply-adds and loads.

    ``launch_s``: a kernel's start. ``kernel_efficiency``: the share of these bounds that a real kernel reaches.
    ``dtype``: of values, "fp32" or "fp16" (multiplied and summed up in fp32). ``index_bits``: of a column.
    ``functional``: compute the values too. ``energy``: an energy table, "" for none.
    """

    sm_count: int
    sub_cores: int
    clock_hz: float
    fma_per_clk: int
    registers_per_sm: int
    max_warps_per_sm: int
    max_blocks_per_sm: int
    l1_bytes: int
    l1_bytes_per_clk: float
    l1_latency_cycles: int
    smem_latency_cycles: int
    l2_bytes: int
    l2_bytes_per_clk: float
    l2_efficiency: float
    l2_latency_cycles: int
    hbm_bytes: int
    hbm_bytes_per_s: float
    hbm_efficiency: float
    kernel: str
    order: str
    block_rows: int
    tile_columns: int
    tile_depth: int
    subwarp_threads: int
    sparse_vector: int
    dense_vector: int
    residue_unroll: int
    loads_in_flight: int
    base_registers: int
    nonzero_instructions: int
    step_instructions: int
    launch_s: float
    kernel_efficiency: float
    dtype: str
    index_bits: int
    functional: bool
    energy: str

    def __post_init__(self) -> None:
        bounds = {
            "sm_count": (1, 65536), "sub_cores": (1, 64), "fma_per_clk": (1, 1 << 20),
            "registers_per_sm": (1, 1 << 30), "max_warps_per_sm": (1, 1024), "max_blocks_per_sm": (1, 1024),
            "l1_bytes": (1, 1 << 40), "l1_latency_cycles": (0, 1 << 20), "smem_latency_cycles": (0, 1 << 20),
            "l2_bytes": (1, 1 << 50), "l2_latency_cycles": (0, 1 << 20), "hbm_bytes": (1, 1 << 50),
            "block_rows": (1, 1024), "tile_columns": (1, 65536), "tile_depth": (1, 65536), "subwarp_threads": (1, 32),
            "residue_unroll": (1, 65536), "loads_in_flight": (1, 65536), "base_registers": (0, 255),
            "nonzero_instructions": (0, 65536), "step_instructions": (0, 65536), "index_bits": (1, 32),
        }  # fmt: skip
        check_bounds(self, bounds)
        check_positive(self, "clock_hz", "l1_bytes_per_clk", "l2_bytes_per_clk", "hbm_bytes_per_s")
        check_not_negative(self, "launch_s")
        check_shares(self, "l2_efficiency", "hbm_efficiency", "kernel_efficiency")
        check_either(self, {"kernel": KERNELS, "order": ORDERS, "dtype": tuple(VALUE_BYTES)})
        self._check_tile()

    def _check_tile(self) -> None:
        for name in ("sparse_vector", "dense_vector"):
            if getattr(self, name) not in VECTORS:
                raise ValueError(f"{name} must be 1, 2, 4 or 8 values, not {getattr(self, name)}")
        if WARP % self.subwarp_threads:
            raise ValueError(f"subwarp_threads must divide a warp of {WARP} threads, not {self.subwarp_threads}")
        if self.block_rows % self.rows_per_warp:
            raise ValueError(
                f"block_rows must fill warps of {self.rows_per_warp} rows, and {self.block_rows} do not; "
                "change it or subwarp_threads"
            )
        for name, what in (("tile_depth", "sparse_vector"), ("tile_columns", "dense_vector")):
            step = self.subwarp_threads * getattr(self, what)
            if getattr(self, name) % step:
                raise ValueError(
                    f"{name} must be a multiple of subwarp_threads x {what}, {step}, not {getattr(self, name)}"
                )
        if self.tile_depth % self.residue_unroll:
            raise ValueError(f"residue_unroll must divide tile_depth, {self.tile_depth}, not {self.residue_unroll}")
        if self.blocks_per_sm < 1:
            raise ValueError(
                f"a thread block of {self.warps_per_block} warps and {self.registers_per_thread} registers a thread "
                "must fit in an SM, and does not; shrink the tile"
            )

    @property
    def rows_per_warp(self) -> int:
        """Return the rows that a warp holds, one a sub-warp."""
        return WARP // self.subwarp_threads

    @property
    def warps_per_block(self) -> int:
        """Return the warps of a thread block."""
        return self.block_rows // self.rows_per_warp

    @property
    def value_bytes(self) -> int:
        """Return the bytes of a value."""
        return VALUE_BYTES[self.dtype]

    @property
    def index_bytes(self) -> int:
        """Return the bytes of a column's index."""
        return -(-self.index_bits // 8)

    @property
    def registers_per_thread(self) -> int:
        """Return the registers of a thread: loaded values, sums in fp32 and ``base_registers``, to a multiple of 8.

        A compiler goes no further than 255, and orders its loads otherwise where it would need more.
        """
        own = self.tile_columns // self.subwarp_threads
        loaded = -(-self.loads_in_flight * own * self.value_bytes // 4)
        need = loaded + own + self.base_registers
        return min(-(-need // 8) * 8, MOST_REGISTERS)

    @property
    def blocks_per_sm(self) -> int:
        """Return the thread blocks that an SM holds at once."""
        registers = self.registers_per_thread * WARP * self.warps_per_block
        return min(
            self.max_blocks_per_sm, self.max_warps_per_sm // self.warps_per_block, self.registers_per_sm // registers
        )


def choose(config: Config, columns: int) -> Config:
    """Return ``config`` with the tile that a product of ``columns`` gets; itself where its kernel is fixed.

    Source: Sputnik, sputnik/spmm/cuda_spmm.cu.cc, ``CudaSpmm`` (fp32; its table of kernels for single sizes left out)
    and its version for half2, whose columns are pairs. Raises InputError where the tile does not go with the chip.
    """
    if config.kernel == "fixed":
        return config
    shape: tuple[int, int, int, int, int]  # rows, threads a row, columns, values of a sparse and of a dense load
    if config.dtype == "fp16":
        shape = (4, 8, 64, 8, 8) if columns % 64 == 0 else (2, 16, 64, 4, 4)
        shape = (4, 8, 16, 8, 2) if columns <= 16 else (4, 8, 32, 8, 4) if columns <= 32 else shape
    elif columns % 4 == 0:
        shape = (4, 8, 64, 4, 4) if columns % 64 == 0 else (4, 8, 32, 4, 4)
        shape = (4, 8, 8, 4, 1) if columns <= 8 else (4, 8, 16, 4, 2) if columns <= 16 else shape
    else:
        shape = (2, 16, 32, 2, 2) if columns % 2 == 0 else (1, 32, 32, 1, 1)
    rows, threads, tile, sparse, dense = shape
    depth = 32 if config.dtype == "fp32" else 64
    try:
        return msgspec.structs.replace(
            config, kernel="fixed", block_rows=rows, subwarp_threads=threads, tile_columns=tile, sparse_vector=sparse,
            dense_vector=dense, tile_depth=depth, loads_in_flight=depth,
        )  # fmt: skip
    except ValueError as error:  # residue_unroll, or what an SM holds, does not go with that tile
        raise InputError(f"kernel heuristic, {columns} columns: {error}") from None
