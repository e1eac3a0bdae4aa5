"""Network slimming: the scales of batch norm say which channels a convolution can do without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...pruning.structured import by_scale
from .magnitude import finetune_steps
from .solution import Solution, with_companions

if TYPE_CHECKING:
    from ..loop import Loop


def slimming(loop: Loop) -> Iterator[Solution]:
    """Train with an L1 norm on batch-norm scales, prune the channels whose scales are small, and fine-tune.

    One threshold for all layers; a layer keeps at least one channel. Source: Liu et al., ICCV 2017.
    """
    from ..kernels import scales

    recipe, masks = loop.recipe, loop.full_masks()
    norms = {kernel: scale for kernel, scale in scales(loop.network).items() if kernel in masks}
    if not norms:
        raise InputError(
            f"recipe {recipe.name}: slimming needs convolutions with batch norms behind them, and the network has none"
        )
    weights = loop.train(loop.weights(), masks, 0, loop.steps, stage="dense", average=True)
    yield Solution(weights, masks)
    alive = by_scale({kernel: weights[scale] for kernel, scale in norms.items()}, recipe.sparsity)
    masks = {
        name: np.broadcast_to(alive[name].reshape((-1,) + (1,) * (mask.ndim - 1)), mask.shape).copy()
        for name, mask in masks.items()
        if name in alive
    }
    masks = with_companions(loop, masks)
    yield Solution(loop.train(weights, masks, 0, finetune_steps(loop), stage="finetuned", finetune=True), masks)
