"""Which CTA tile a product is cut into, and among how many CTAs its reduction is split.

A library of kernels has several tiles and picks one for the sizes at hand. With ``tiling`` "auto" the pick is the one
of fewest cycles by the recurrences of `parts.tensorcore.gemm`, of all tiles of ``cta_tiles`` whose steps fit in the
shared memory, and of 1, 2, 4 .. ``split_k`` shares of the reduction; of equals, the first tile, the fewest shares. Real
libraries predict by heuristics of their own: theirs may pick worse, and never better than this.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from ....workloads.gemm import Gemm
from .config import Config, parse_tiles
from .gemm import solve
from .plan import plan
from .tiles import Times, measure


def choose(config: Config, gemm: Gemm, kept: np.ndarray | None) -> Config:
    """Return ``config`` with the tile and the split that ``gemm`` gets; itself where its tiling is fixed.

    ``kept``: see `parts.tensorcore.plan.plan`.
    """
    if config.tiling == "fixed":
        return config
    best, least = config, None
    for tile in _tiles(config):
        planned = plan(tile, gemm, kept)
        for shares in _shares(config.split_k, planned.steps):
            cut = msgspec.structs.replace(tile, split_k=shares)
            times = measure(cut, gemm, planned)
            total = (not fits(cut, times), solve(cut, gemm, planned, times).total)
            if least is None or total < least:
                best, least = cut, total
    return best


def fits(config: Config, times: Times) -> bool:
    """Tell whether the steps in flight fit in the shared memory of an SM."""
    return held_bytes(config, times) <= config.smem_bytes


def held_bytes(config: Config, times: Times) -> int:
    """Return what the steps in flight take in the shared memory of an SM."""
    return config.ctas_per_sm * config.pipeline_stages * int(times.smem_write.max()) // 8


def _tiles(config: Config) -> Iterator[Config]:
    for rows, columns, warp_rows, warp_columns in parse_tiles(config.cta_tiles):
        yield msgspec.structs.replace(
            config, tiling="fixed", cta_rows=rows, cta_columns=columns, warp_rows=warp_rows, warp_columns=warp_columns
        )


def _shares(most: int, steps: int) -> Iterator[int]:
    shares = 1
    while shares <= min(most, steps):
        yield shares
        shares *= 2
