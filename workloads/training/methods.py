"""How a network is trained and pruned: each method yields weights and masks, a pair for every network it finishes.

The first pair is the dense network, the last one is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..pruning import Masks, Weights, balanced, magnitude, magnitude_global, sparsity_levels
from .recipe import Recipe

if TYPE_CHECKING:
    from .loop import Loop

Pair = tuple[Weights, Masks]


def dense(loop: Loop) -> Iterator[Pair]:
    """Train, and prune nothing."""
    masks = loop.full_masks()
    yield loop.train(loop.weights(), masks, 0, loop.steps), masks


def one_shot(loop: Loop) -> Iterator[Pair]:
    """Train, prune to the sparsity asked for, and train what is left at the fine-tuning rate.

    Source: Han et al., NIPS 2015.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    weights = loop.train(loop.weights(), masks, 0, loop.steps)
    yield weights, masks
    masks = prune(weights, masks, recipe.sparsity, recipe)
    yield loop.train(weights, masks, 0, recipe.finetune_epochs * loop.steps_per_epoch, finetune=True), masks


def imp(loop: Loop) -> Iterator[Pair]:
    """Train, prune a fraction of what is left, rewind to step k, and again: iterative magnitude pruning.

    Source: Frankle and Carbin, ICLR 2019 (k = 0); Frankle et al., ICML 2020.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    k, T = recipe.rewind_step, loop.steps
    weights = rewound = loop.train(loop.weights(), masks, 0, k)
    for sparsity in sparsity_levels(recipe.sparsity, recipe.rate):  # the first is 0: the dense network
        masks = prune(weights, masks, sparsity, recipe)
        weights = loop.train(rewound, masks, k, T)
        yield weights, masks


METHODS: dict[str, Callable[[Loop], Iterator[Pair]]] = {"dense": dense, "one-shot": one_shot, "imp": imp}


def prune(weights: Weights, masks: Masks, sparsity: float, recipe: Recipe) -> Masks:
    """Return masks of this sparsity by the recipe's strategy."""
    if recipe.strategy == "magnitude-global":
        return magnitude_global(weights, masks, sparsity)
    if recipe.strategy == "magnitude-layer":
        return {name: magnitude(weights[name], mask, sparsity) for name, mask in masks.items()}
    assert recipe.pe_count is not None and recipe.scope is not None
    return {
        name: balanced(weights[name], mask, sparsity, recipe.pe_count, recipe.scope) for name, mask in masks.items()
    }


def steps_in_all(loop: Loop) -> int:
    """Count the training steps of a run, for showing how far it is."""
    recipe = loop.recipe
    if recipe.method == "one-shot":
        return loop.steps + recipe.finetune_epochs * loop.steps_per_epoch
    if recipe.method == "imp":
        levels = len(sparsity_levels(recipe.sparsity, recipe.rate))
        return recipe.rewind_step + levels * (loop.steps - recipe.rewind_step)
    return loop.steps
