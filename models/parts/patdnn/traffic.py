"""What moves between DRAM and L2 while cores go through a layer, and the time that takes at least.

Each operand comes once where activations and stored weights fit L2 together. Else the loop order decides. With filters
outside, a block's weights stay while its tiles are gone through, and activations come again with every block: cores of
a static schedule go through the same tiles side by side, so that what one brings serves all; tiles of a dynamic one
are brought for the core that takes them. With tiles outside, a tile's activations stay while all blocks meet it, and
weights come again with every tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .config import Config
from .plan import Geometry, Kernels, Plan
from .run import Run


@dataclass(frozen=True)
class Traffic:
    """Bytes from L2 to all L1s, and between DRAM and L2."""

    l1_fill: int
    dram_read: int
    dram_write: int

    @classmethod
    def of(cls, kernels: Kernels, geometry: Geometry, plan: Plan, run: Run, config: Config) -> Traffic:
        """Return the bytes that ``run``, with the code of ``plan``, moves."""
        word = config.word_bytes
        used = np.zeros(kernels.channels, bool)
        for first in np.unique(kernels.first_channel):
            mine = kernels.pattern_of[kernels.first_channel == first]
            used[first : first + mine.shape[1]] |= (mine >= 0).any(axis=0)
        sample = int(used.sum()) * geometry.in_height * geometry.in_width * word
        bits = kernels.weight.size * 8 * word if geometry.is_linear else sum(kernels.stored_bits.values())
        inputs, weights = sample * geometry.samples, -(-bits // 8)
        if sample + weights > config.l2_bytes:
            brought = run.fills[:, 0]
            if plan.order == "tiles":
                weights = max(weights, int(run.fills[:, 1].sum()))
            elif config.schedule == "static":
                inputs = max(inputs, int(brought.max()))
            else:
                inputs = max(inputs, int(brought.sum()))
        return cls(int(run.fills.sum()), inputs + weights, geometry.positions * len(kernels.order) * word)

    def dram_cycles(self, config: Config) -> int:
        """Return the cycles that DRAM takes for it, rounded up."""
        bandwidth = Fraction(config.dram_bytes_per_s) * Fraction(config.dram_efficiency)
        return math.ceil((self.dram_read + self.dram_write) * Fraction(config.clock_hz) / bandwidth)
