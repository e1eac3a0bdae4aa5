"""How much pruning each layer bears: one layer at a time is pruned, the others left as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..pruning import Masks, kept_count, magnitude
from .measure import State, borrowed, measure, settle

if TYPE_CHECKING:
    from torch import nn

    from .measure import Loader

Strategy = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(weight, mask, sparsity) -> new mask, as `gossamer.workloads.pruning.magnitude` is one."""

TENTHS = tuple(i / 10 for i in range(10))


@dataclass(frozen=True, eq=False)
class Scan:
    """Accuracy and loss with one layer pruned, by layer and sparsity.

    ``sparsities``: (r,) what was asked for. ``accuracy``, ``loss``: by the weight's name (r,), fractions and nats.
    ``base_accuracy``, ``base_loss``: of the network as it was given.
    """

    sparsities: np.ndarray
    accuracy: Mapping[str, np.ndarray]
    loss: Mapping[str, np.ndarray]
    base_accuracy: float
    base_loss: float

    def drop(self, name: str) -> np.ndarray:
        """Return how much accuracy was lost by pruning the weight ``name``, at each sparsity; negative where gained."""
        return self.base_accuracy - self.accuracy[name]


def sensitivity_scan(
    module: nn.Module,
    weights: State,
    masks: Masks,
    loader: Loader,
    *,
    sparsities: Sequence[float] = TENTHS,
    strategy: Strategy = magnitude,
    recalibrate: Loader | None = None,
) -> Scan:
    """Return accuracy and loss on ``loader`` with each kernel of ``masks`` alone pruned to each of ``sparsities``.

    Kernels have at least 2 dimensions; other masks (of the biases of pruned channels) hold, and are not varied. A
    kernel that is sparser already stays as it is. Nothing is trained in between; with ``recalibrate``, a loader of
    training samples, batch-norm statistics are recomputed each time. The module, the weights and the masks are left
    as they were, bit for bit. Raises InputError.
    Source: Han et al., NIPS 2015, section 4 (figure 6).
    """
    from .loop import apply_masks

    if not len(sparsities) or not all(0 <= r <= 1 for r in sparsities):
        raise InputError(f"sparsities must be fractions between 0 and 1, at least one, not {list(sparsities)}")
    for name, mask in masks.items():
        if name not in weights or weights[name].shape != mask.shape:
            raise InputError(f"mask {name} must belong to a weight of its shape {mask.shape}, and there is none")
    given = apply_masks(weights, masks)
    accuracy: dict[str, np.ndarray] = {}
    loss: dict[str, np.ndarray] = {}
    with borrowed(module):
        settle(module, given, recalibrate)
        base_loss, base_accuracy = measure(module, loader)
        for name, mask in masks.items():
            if mask.ndim < 2:
                continue
            rows = []
            for sparsity in sparsities:
                pruned = _at_least(given[name], mask, sparsity, strategy)
                if np.array_equal(pruned, mask):
                    rows.append((base_loss, base_accuracy))
                    continue
                settle(module, given | apply_masks({name: given[name]}, {name: pruned}), recalibrate)
                rows.append(measure(module, loader))
            loss[name], accuracy[name] = np.array(rows).T
    return Scan(np.array(sparsities, float), accuracy, loss, base_accuracy, base_loss)


def choose_sparsities(scan: Scan, max_drop: float) -> dict[str, float]:
    """Return for each layer the largest sparsity of the scan that costs at most ``max_drop``, 0 where none does.

    ``max_drop`` is a fraction of the samples: 0.01 is one point of accuracy. Layers are judged one by one; all of
    them pruned together lose more.
    """
    if not max_drop >= 0:
        raise InputError(f"max_drop must be a fraction of at least 0, not {max_drop}")
    chosen = {}
    for name in scan.accuracy:
        borne = scan.sparsities[scan.drop(name) <= max_drop + 1e-12]  # a difference of two fractions is rounded
        chosen[name] = float(borne.max(initial=0.0))
    return chosen


def _at_least(weight: np.ndarray, mask: np.ndarray, sparsity: float, strategy: Strategy) -> np.ndarray:
    """Return the mask of this sparsity, or ``mask`` where that has no more weights left."""
    left = np.count_nonzero(mask)
    return mask if left <= kept_count(mask.size, sparsity) else strategy(weight, mask, sparsity)
