"""Iterative magnitude pruning with rewinding, and the controls that say what of a winning ticket wins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...pruning import Masks, Weights, sparsity_levels
from .solution import Solution, prune

if TYPE_CHECKING:
    from ..loop import Loop


def imp(loop: Loop) -> Iterator[Solution]:
    """Train, prune a fraction of what is left, rewind to step k, and again: iterative magnitude pruning.

    With a control, each level's mask is also tried on another network, and that one is yielded.
    Source: Frankle and Carbin, ICLR 2019 (k = 0); Frankle et al., ICML 2020.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    k, T = recipe.rewind_step, loop.steps
    weights = rewound = loop.train(loop.weights(), masks, 0, k, stage="rewound")
    for level, sparsity in enumerate(sparsity_levels(recipe.sparsity, recipe.rate)):  # the first is 0: dense
        masks = prune(loop, weights, masks, sparsity)
        weights = loop.train(rewound, masks, k, T, stage=f"level-{level:02}", average=True)
        if level and recipe.control != "none":
            yield control(loop, rewound, masks, level)
        else:
            yield Solution(weights, masks)


def control(loop: Loop, rewound: Weights, masks: Masks, level: int) -> Solution:
    """Return the control: a network that has the ticket's mask but not its weights, or the reverse."""
    k, T, stage = loop.recipe.rewind_step, loop.steps, f"control-{level:02}"
    if loop.recipe.control == "reinitialised":
        return Solution(loop.train(loop.redrawn(), masks, 0, T, stage=stage, average=True), masks)
    rng = np.random.default_rng((loop.recipe.seed, 1, level))
    masks = shuffled(masks, rng) if loop.recipe.control == "shuffled" else random_masks(masks, rng)
    return Solution(loop.train(rewound, masks, k, T, stage=stage, average=True), masks)


def shuffled(masks: Masks, rng: np.random.Generator) -> Masks:
    """Return masks that keep as many weights of each layer, anywhere in it."""
    return {name: rng.permutation(mask.ravel()).reshape(mask.shape) for name, mask in masks.items()}


def random_masks(masks: Masks, rng: np.random.Generator) -> Masks:
    """Return masks that keep as many weights, anywhere in the network."""
    flat = rng.permutation(np.concatenate([mask.ravel() for mask in masks.values()]))
    pieces = np.split(flat, np.cumsum([mask.size for mask in masks.values()])[:-1])
    return {name: piece.reshape(masks[name].shape) for name, piece in zip(masks, pieces, strict=True)}


def imp_steps(loop: Loop) -> int:
    """Count the steps of `imp`."""
    levels = len(sparsity_levels(loop.recipe.sparsity, loop.recipe.rate))
    level = loop.steps - loop.recipe.rewind_step
    control = {"none": 0, "reinitialised": loop.steps}.get(loop.recipe.control, level)
    return loop.recipe.rewind_step + levels * level + (levels - 1) * control
