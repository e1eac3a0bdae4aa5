"""What training leaves, as data: parameters, masks, and how good the network was at each level."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..pruning import Masks, Weights
from .recipe import Recipe


class Level(msgspec.Struct, frozen=True):
    """One trained network of a run: level 0 is the least pruned one, dense unless an N:M recipe has no dense phase.

    ``sparsity``: of the prunable weights. ``kept``: how many of them are left. ``accuracy``: a fraction of the test
    samples. ``loss``: mean cross-entropy on them, in nats. ``training_flops``: multiplications in all the training up
    to here, 1.0 being a dense training over the recipe's schedule; hardware may not save what masks could.
    """

    level: int
    sparsity: float
    kept: int
    accuracy: float
    loss: float
    training_flops: float


@dataclass(frozen=True, eq=False)
class Trained:
    """The network that a recipe came to, as checkpoints keep it and traces are made of it.

    `Run` says what each field means.
    """

    recipe: Recipe
    weights: Weights
    masks: Masks
    history: tuple[Level, ...]
    made_with: dict[str, str]
    files: dict[str, Path] = field(default_factory=dict)
    buffers: Weights = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Return the fraction of test samples that the pruned network gets right."""
        return self.history[-1].accuracy

    @property
    def dense_accuracy(self) -> float | None:
        """Return the fraction of test samples that the network got right before it was pruned, None if it never was."""
        return None if self.history[0].sparsity else self.history[0].accuracy
