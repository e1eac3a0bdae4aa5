"""N:M: of every M consecutive weights at most N are kept. One-shot, straight-through, and decaying flows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from ...errors import InputError
from ...pruning import Masks, Weights
from ...pruning.structured import check_groups, n_of_m
from .solution import Solution

if TYPE_CHECKING:
    from ..loop import Loop


def asp(loop: Loop) -> Iterator[Solution]:
    """Train dense, keep the N largest of every M, and repeat the same training with the mask frozen.

    Source: Mishra et al., arXiv 2104.08378 (ASP).
    """
    masks = full_masks(loop)
    weights = loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True)
    yield Solution(weights, masks)
    masks = group_masks(loop, weights, masks)
    yield Solution(loop.train(weights, masks, 0, loop.steps, stage="pruned", average=True), masks)


def gradient_flow(loop: Loop) -> Iterator[Solution]:
    """Train dense; then with the mask of each step, what is pruned flowing less and less; then with the last mask.

    Sources: Zhou et al., ICLR 2021 (STE, SR-STE); Bambhaniya et al., arXiv 2402.04744 (MdGf).
    """
    assert loop.recipe.n is not None and loop.recipe.m is not None
    yield from _phases(loop, [(loop.recipe.n, loop.recipe.m)])


def structure_decay(loop: Loop) -> Iterator[Solution]:
    """Train dense; then under one pattern after another, in phases of equal length, down to N:M; then with that mask.

    Source: Bambhaniya et al., arXiv 2402.04744 (SdGf).
    """
    assert loop.recipe.n is not None and loop.recipe.m is not None
    patterns = stepwise if loop.recipe.method == "sdgf-stepwise" else geometric
    yield from _phases(loop, patterns(loop.recipe.n, loop.recipe.m))


def stepwise(n: int, m: int) -> list[tuple[int, int]]:
    """Return the patterns (M-1):M, M/2:M, M/4:M and so on, down to N:M."""
    kept, left = [m - 1], m // 2
    while left > n:
        kept.append(left)
        left //= 2
    return [(each, m) for each in dict.fromkeys([*(k for k in kept if k > n), n])]


def geometric(n: int, m: int) -> list[tuple[int, int]]:
    """Return the patterns 8N:8M, 4N:4M, 2N:2M, N:M: as sparse as the last, and ever less free."""
    return [(scale * n, scale * m) for scale in (8, 4, 2, 1)]


def _phases(loop: Loop, patterns: list[tuple[int, int]]) -> Iterator[Solution]:
    """Train through the dense phase, one phase of equal length a pattern, and the fine-tuning phase."""
    from ..flow import Flow

    recipe, masks = loop.recipe, full_masks(loop)
    first, last = (
        epochs * loop.steps_per_epoch for epochs in (recipe.dense_epochs, recipe.dense_epochs + recipe.epochs)
    )
    weights = loop.train(loop.weights(), masks, 0, first, stage="dense")
    if first:
        yield Solution(weights, masks)
    bounds = [first + (last - first) * i // len(patterns) for i in range(len(patterns) + 1)]
    for (n, m), (start, end) in zip(patterns, pairwise(bounds), strict=True):
        flow = Flow.of(recipe, n, m)
        weights = loop.train(weights, masks, start, end, stage=f"flow-{n}-{m}", flow=flow)
        if (n, m) != patterns[-1]:
            kept = {name: n_of_m(weights[name], mask, n, m, recipe.axis, pad=True) for name, mask in masks.items()}
            yield _masked(loop, weights, kept)
    kept = group_masks(loop, weights, masks)
    tuned = loop.train(weights, kept, last, loop.steps, stage="finetuned", average=True)
    yield Solution(tuned, kept) if recipe.finetune_epochs else _masked(loop, tuned, kept)


def _masked(loop: Loop, weights: Weights, masks: Masks) -> Solution:
    """Return the network as it would be with the mask frozen now: batch norms know what they are fed."""
    from ..loop import apply_masks

    return Solution(loop.recalibrate(apply_masks(weights, masks)), masks)


def full_masks(loop: Loop) -> Masks:
    """Return masks that prune nothing, of weights whose groups all fit. Raises InputError naming one that does not."""
    recipe, masks = loop.recipe, loop.full_masks()
    assert recipe.n is not None and recipe.m is not None
    for name, mask in masks.items():
        try:
            check_groups(mask.shape, recipe.n, recipe.m, recipe.axis, pad=recipe.pad)
        except InputError as error:
            raise InputError(f"recipe {recipe.name}: {name}: {error}") from None
    return masks


def group_masks(loop: Loop, weights: Weights, masks: Masks) -> Masks:
    """Return the masks that the recipe's N:M gives these weights."""
    recipe = loop.recipe
    assert recipe.n is not None and recipe.m is not None
    return {
        name: n_of_m(weights[name], mask, recipe.n, recipe.m, recipe.axis, pad=recipe.pad)
        for name, mask in masks.items()
    }


def asp_steps(loop: Loop) -> int:
    """Count the steps of `asp`."""
    return 2 * loop.steps


def gradient_flow_steps(loop: Loop) -> int:
    """Count the steps of `gradient_flow` and of `structure_decay`."""
    return loop.steps
