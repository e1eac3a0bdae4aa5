"""What a method yields, and how a recipe's strategy prunes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import InputError
from ...pruning import Masks, Weights, balanced, magnitude, magnitude_global
from ...pruning.kernel_patterns import pattern_prune
from ...pruning.structured import channels, equal_tiles, kernels, tiles
from ..recipe import Recipe

if TYPE_CHECKING:
    from ..loop import Loop


class Solution(NamedTuple):
    """A trained network and its masks; ``particles`` are those that it averages."""

    weights: Weights
    masks: Masks
    particles: tuple[Weights, ...] = ()


def prune(loop: Loop, weights: Weights, masks: Masks, sparsity: float) -> Masks:
    """Return masks of this sparsity by the recipe's strategy: those of the kernels, and what goes with a channel."""
    recipe = loop.recipe
    pruned = {name: mask for name, mask in masks.items() if mask.ndim > 1}
    if recipe.strategy == "magnitude-global":
        return magnitude_global(weights, pruned, sparsity)
    if recipe.strategy == "pattern":
        assert recipe.patterns is not None
        try:
            return pattern_prune(weights, pruned, sparsity, recipe.patterns)
        except InputError as error:
            raise InputError(f"recipe {recipe.name}: {error}") from None
    by_layer = _strategy(recipe)
    found = {}
    for name, mask in pruned.items():
        try:
            found[name] = by_layer(weights[name], mask, sparsity)
        except InputError as error:
            raise InputError(f"recipe {recipe.name}: {name}: {error}") from None
    return with_companions(loop, found) if recipe.strategy == "channel" else found


def with_companions(loop: Loop, masks: Masks) -> Masks:
    """Return the masks, and those of the biases and norms of the channels that are gone whole."""
    from ..kernels import companions

    goes_with = companions(loop.network)
    alive: Masks = {name: np.any(mask, axis=tuple(range(1, mask.ndim))) for name, mask in masks.items()}
    return masks | {other: alive[name] for name in masks for other in goes_with.get(name, [])}


def _strategy(recipe: Recipe) -> Callable[[np.ndarray, np.ndarray, float], np.ndarray]:
    """Return the pruning of one layer: (weight, mask, sparsity) -> mask."""
    match recipe.strategy:
        case "balanced":
            pe_count, scope = recipe.pe_count, recipe.scope
            assert pe_count is not None and scope is not None
            return lambda weight, mask, sparsity: balanced(weight, mask, sparsity, pe_count, scope)
        case "block" | "vector":
            tile = recipe.block if recipe.vector is None else (1, recipe.vector)
            assert tile is not None
            return lambda weight, mask, sparsity: tiles(weight, mask, sparsity, tile)
        case "equal-blocks":
            block = recipe.block
            assert block is not None
            return lambda weight, mask, sparsity: equal_tiles(weight, mask, sparsity, block)
        case "kernel":
            return kernels
        case "channel":
            return channels
    return magnitude
