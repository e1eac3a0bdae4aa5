"""Pruning by the alternating direction method of multipliers: weights are led to where pruning costs little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...pruning import Masks, Weights
from .magnitude import finetune_steps
from .solution import Solution, prune

if TYPE_CHECKING:
    from ..loop import Loop


def admm(loop: Loop) -> Iterator[Solution]:
    """Train; then, round by round, train while pulled towards the pruned weights; then prune and fine-tune.

    With W the weights, Z what pruning leaves of them at first and U the multipliers, 0 at first, a round is

        W = argmin of loss + rho / 2 |W - Z + U|^2, some epochs at the fine-tuning rate
        Z = what pruning leaves of W + U
        U = U + W - Z

    Source: Zhang et al., ECCV 2018; of patterns and connectivity, Niu et al., ASPLOS 2020.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    weights = loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True)
    yield Solution(weights, masks)
    multipliers = {name: np.zeros_like(weights[name]) for name in masks}
    goal = _pruned(loop, weights, masks)
    for number in range(recipe.admm_rounds):
        weights = loop.train(
            weights, masks, 0, round_steps(loop), stage=f"round-{number:02}", finetune=True, towards=goal
        )
        raised = {name: weights[name] + multipliers[name] for name in masks}
        pruned = _pruned(loop, raised, masks)
        multipliers = {name: raised[name] - pruned[name] for name in masks}
        goal = {name: pruned[name] - multipliers[name] for name in masks}
    masks = prune(loop, weights, masks, recipe.sparsity)
    yield Solution(loop.train(weights, masks, 0, finetune_steps(loop), stage="finetuned", finetune=True), masks)


def _pruned(loop: Loop, weights: Weights, masks: Masks) -> Weights:
    """Return what pruning leaves of the prunable ones of ``weights``, by name."""
    kept = prune(loop, weights, masks, loop.recipe.sparsity)
    return {name: np.where(kept[name], weights[name], np.float32(0)) for name in masks}


def round_steps(loop: Loop) -> int:
    """Count the steps of one round."""
    return loop.recipe.admm_epochs * loop.steps_per_epoch


def admm_steps(loop: Loop) -> int:
    """Count the steps of `admm`."""
    return loop.steps + loop.recipe.admm_rounds * round_steps(loop) + finetune_steps(loop)
