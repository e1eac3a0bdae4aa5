"""Pruning: pure functions of weights and masks, in numpy alone, and what they leave.

`unstructured` keeps weights one by one, balanced over processing elements or not; `structured` keeps N:M groups, tiles,
kernels and channels; `kernel_patterns` keeps a few patterns of kernels; `sparsity` counts what is left.
"""

from .unstructured import Masks, Weights, balanced, kept_count, largest, magnitude, magnitude_global, sparsity_levels

__all__ = [
    "Masks",
    "Weights",
    "balanced",
    "kept_count",
    "largest",
    "magnitude",
    "magnitude_global",
    "sparsity_levels",
]
