"""What a search found: the network, what it costs, and every step on the way there, as plain data for JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ..trace import Trace
from .space import Candidate

Progress = Callable[[float, str], None]
"""Told how far a search has come, from 0 to 1, and what it has just done."""


class Trial(msgspec.Struct, frozen=True):
    """One network that a step tried: the layer it changed, to which choice, at what cost, and how well it then did."""

    layer: str
    choice: float
    cost: float
    accuracy: float
    loss: float


class Step(msgspec.Struct, frozen=True):
    """One step of a search: the cost that was aimed at, all that was tried, and the network that was kept.

    ``kept``: the layer that was changed. ``choices``: of all layers after the step. ``accuracy``, ``loss``: on the
    validation samples.
    """

    step: int
    target: float
    kept: str
    choices: tuple[float, ...]
    cost: float
    accuracy: float
    loss: float
    tried: tuple[Trial, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """The end of a search.

    ``method``: what searched. ``candidate``: the network, fine-tuned. ``cost``, ``dense_cost``: of it and of
    the network that it began as. ``target``: the cost it was to have, at most. ``steps``: how it came there.
    """

    method: str
    candidate: Candidate
    cost: float
    dense_cost: float
    target: float
    steps: tuple[Step, ...] = ()

    @property
    def ratio(self) -> float:
        """Return the cost as a share of the dense network's."""
        return self.cost / self.dense_cost

    @property
    def reached(self) -> bool:
        """Tell whether the network costs what it was to, or up to 2 % more: fine-tuning moves activations a little."""
        return self.cost <= self.target * 1.02

    def trace(self) -> Trace:
        """Return the network with its activations, and in its provenance the recipe, the accuracy and the search."""
        space, candidate = self.candidate.space, self.candidate
        recipe = space.trained.recipe
        about = {
            "source": f"gossamer search {self.method} on {recipe.name}",
            "network": recipe.network,
            "data": recipe.data,
            "recipe": msgspec.to_builtins(recipe),
            "seed": recipe.seed,
            "labels": space.trained.labels,
            "accuracy": candidate.test_accuracy(),
            "dense_accuracy": space.dense.test_accuracy(),
            "search": {
                "method": self.method,
                "kind": space.kind,
                "choices": {layer.name: choice for layer, choice in zip(space.layers, candidate.choices, strict=True)},
                "cost": self.cost,
                "dense_cost": self.dense_cost,
                "target": self.target,
                "epochs": candidate.epochs,
            },
        }
        return candidate.trace(**about)

    def summary(self) -> dict[str, Any]:
        """Return what was found as plain data: figures, the choice of each layer, and the steps."""
        space, candidate = self.candidate.space, self.candidate
        return {
            "method": self.method,
            "kind": space.kind,
            "seed": space.trained.recipe.seed,
            "cost": self.cost,
            "cost_ratio": self.ratio,
            "target": self.target,
            "reached": self.reached,
            "accuracy": candidate.accuracy(),
            "test_accuracy": candidate.test_accuracy(),
            "weights": candidate.weights_kept,
            "epochs": candidate.epochs,
            "choices": {layer.name: choice for layer, choice in zip(space.layers, candidate.choices, strict=True)},
            "steps": msgspec.to_builtins(self.steps),
        }
