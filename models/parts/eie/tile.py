"""What one run of EIE's array works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Tile:
    """What one run of the array works on: part of a product, a bias being the matrix's last column.

    ``outputs`` are the rows of the product that it adds to. ``loads`` and ``stores`` are the words that move between
    activation SRAM and registers before and after each run; 0 unless activations are batched.
    """

    matrix: np.ndarray
    codebook: np.ndarray | None
    vectors: np.ndarray
    has_bias: bool
    outputs: slice
    loads: int = 0
    stores: int = 0
