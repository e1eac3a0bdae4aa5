"""What a recipe promises of its masks: the pattern that the layers of its trace carry."""

from __future__ import annotations

from math import prod

import numpy as np

from ..patterns import Pattern
from ..pruning.kernel_patterns import KEPT
from .recipe import Recipe


def pattern_of(recipe: Recipe, mask: np.ndarray | None) -> Pattern:
    """Return the pattern that ``recipe`` gives to a kernel of this mask; dense where there is none.

    Input channels that are no whole number of N:M groups are padded in the trace; any other side cannot be, without
    changing what the layer returns, and is promised nothing.
    """
    if recipe.method == "dense" or mask is None:
        return Pattern(kind="dense")
    shape = mask.shape
    if recipe.is_nm:
        assert recipe.n is not None and recipe.m is not None
        if recipe.axis != 1 and shape[recipe.axis] % recipe.m:
            return Pattern(kind="unstructured")
        return Pattern(kind="n:m", n=recipe.n, m=recipe.m, axis=recipe.axis)
    if recipe.method == "slimming":
        return Pattern(kind="block", block=(1, prod(shape[1:])))
    match recipe.strategy:
        case "channel":
            return Pattern(kind="block", block=(1, prod(shape[1:])))
        case "balanced":
            return Pattern(kind="balanced", pe_count=recipe.pe_count, scope=recipe.scope)
        case "block" | "equal-blocks":
            return Pattern(kind="block", block=recipe.block)
        case "vector":
            return Pattern(kind="block", block=(1, recipe.vector or 1))
        case "kernel":
            return Pattern(kind="block", block=(1, prod(shape[2:])))
        case "pattern":
            if shape[2:] != (3, 3):
                return Pattern(kind="block", block=(1, prod(shape[2:])))
            return Pattern(kind="kernel-pattern", n=KEPT, m=recipe.patterns)
    return Pattern(kind="unstructured")
