"""Training, pruning by magnitude once, and pruning by magnitude again and again with fine-tuning between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...pruning import sparsity_levels
from .solution import Solution, prune

if TYPE_CHECKING:
    from ..loop import Loop


def dense(loop: Loop) -> Iterator[Solution]:
    """Train, and prune nothing."""
    masks = loop.full_masks()
    yield Solution(loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True), masks)


def one_shot(loop: Loop) -> Iterator[Solution]:
    """Train, prune to the sparsity asked for, and train what is left at the fine-tuning rate.

    Source: Han et al., NIPS 2015.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    weights = loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True)
    yield Solution(weights, masks)
    masks = prune(loop, weights, masks, recipe.sparsity)
    yield Solution(loop.train(weights, masks, 0, finetune_steps(loop), stage="finetuned", finetune=True), masks)


def iterative(loop: Loop) -> Iterator[Solution]:
    """Train; then prune a fraction of what is left and fine-tune the weights that are there, again and again.

    Source: Han et al., NIPS 2015.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    weights = loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True)
    yield Solution(weights, masks)
    for level, sparsity in enumerate(sparsity_levels(recipe.sparsity, recipe.rate)[1:], start=1):
        masks = prune(loop, weights, masks, sparsity)
        weights = loop.train(weights, masks, 0, finetune_steps(loop), stage=f"level-{level:02}", finetune=True)
        yield Solution(weights, masks)


def finetune_steps(loop: Loop) -> int:
    """Count the steps of one fine-tuning."""
    return loop.recipe.finetune_epochs * loop.steps_per_epoch


def dense_steps(loop: Loop) -> int:
    """Count the steps of `dense`."""
    return loop.steps


def one_shot_steps(loop: Loop) -> int:
    """Count the steps of `one_shot`."""
    return loop.steps + finetune_steps(loop)


def iterative_steps(loop: Loop) -> int:
    """Count the steps of `iterative`."""
    levels = len(sparsity_levels(loop.recipe.sparsity, loop.recipe.rate))
    return loop.steps + (levels - 1) * finetune_steps(loop)
