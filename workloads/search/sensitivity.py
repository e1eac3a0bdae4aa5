"""Sensitivity: what pruning one layer alone does to accuracy and to cost, and the shares that follow from it.

For each layer only it is pruned, to each of some shares, accuracy and cost are recorded, and it is restored. Layer i
then gets r_i, the most that can be pruned while the drop of accuracy stays within a threshold T. Layers are judged one
by one: all of them pruned together lose more. Source: Han et al., NIPS 2015, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .found import Found, Progress, Step
from .space import Cost, Space

TENTHS = tuple(i / 10 for i in range(10))  # pruned


@dataclass(frozen=True, eq=False)
class CostScan:
    """Accuracy and cost with one layer pruned, by layer.

    ``ratios``: (r,), what was asked to be pruned. ``kept``: the choices that were tried, by layer, (r,).
    ``accuracy``, ``loss``, ``cost``: of the network with that layer alone at that choice, by layer, (r,).
    ``base_accuracy``, ``base_cost``: of the network as it was.
    """

    space: Space
    ratios: np.ndarray
    kept: Mapping[str, np.ndarray]
    accuracy: Mapping[str, np.ndarray]
    loss: Mapping[str, np.ndarray]
    cost: Mapping[str, np.ndarray]
    base_accuracy: float
    base_cost: float

    def drop(self, name: str) -> np.ndarray:
        """Return how much accuracy was lost with the layer ``name`` at each choice; negative where gained."""
        return self.base_accuracy - self.accuracy[name]

    def choose(self, max_drop: float) -> tuple[float, ...]:
        """Return for each layer the smallest choice that costs at most ``max_drop`` of accuracy; 1 where none does."""
        if not max_drop >= 0:
            raise InputError(f"max_drop must be a fraction of at least 0, not {max_drop}")
        chosen = []
        for layer in self.space.layers:
            borne = self.kept[layer.name][self.drop(layer.name) <= max_drop + 1e-12]
            chosen.append(float(borne.min(initial=1.0)))
        return tuple(chosen)


def scan(
    space: Space,
    cost: Cost,
    *,
    ratios: Sequence[float] = TENTHS,
    progress: Progress = lambda share, what: None,
) -> CostScan:
    """Return accuracy, on the validation samples, and cost with each layer alone pruned by each of ``ratios``.

    A layer takes the legal choice nearest to 1 - ratio. Nothing is trained;
    batch-norm statistics are made to fit. Raises InputError for ratios that are no shares of what may go.
    """
    if not len(ratios) or not all(0 <= ratio < 1 for ratio in ratios):
        raise InputError(f"ratios must be shares of at least 0 and below 1, at least one, not {list(ratios)}")
    base = space.dense
    base_cost = float(cost(base.trace()))
    figures: dict[str, np.ndarray] = {}
    kept: dict[str, np.ndarray] = {}
    for layer in space.layers:
        choices = [space.snap(layer.index, 1 - ratio) for ratio in ratios]
        known = {1.0: (base.accuracy(), base.loss(), base_cost)}
        for choice in choices:
            if choice not in known:
                alone = [1.0] * len(space.layers)
                alone[layer.index] = choice
                candidate = space.apply(alone).recalibrated()
                known[choice] = (candidate.accuracy(), candidate.loss(), float(cost(candidate.trace())))
        kept[layer.name] = np.array(choices)
        figures[layer.name] = np.array([known[choice] for choice in choices]).T
        progress((layer.index + 1) / len(space.layers), layer.name)
    by = [{name: figure[row] for name, figure in figures.items()} for row in range(3)]
    return CostScan(space, np.array(ratios, float), kept, by[0], by[1], by[2], base.accuracy(), base_cost)


def from_scan(
    found: CostScan, cost: Cost, *, max_drop: float | None = None, target: float | None = None, epochs: int = 10
) -> Found:
    """Return the network of the shares that a scan chooses, fine-tuned.

    ``max_drop``: the threshold T, a fraction of the samples. ``target``: instead of it, a share of the first cost; T is
    then the smallest whose network costs no more, all that the scan tried where none does. Raises InputError unless
    one of the two is given.
    """
    if (max_drop is None) == (target is None):
        raise InputError("a scan chooses by max_drop or by target; give one of the two")
    space = found.space
    steps: list[Step] = []
    if max_drop is not None:
        drops, limit = [max_drop], found.base_cost
    else:
        assert target is not None
        if not 0 < target < 1:
            raise InputError(f"target must be a share of the dense network's cost, above 0 and below 1, not {target}")
        every = np.concatenate([found.drop(layer.name) for layer in space.layers])
        drops, limit = sorted({max(0.0, float(drop)) for drop in every}), target * found.base_cost
    candidate, before = space.dense, None
    for drop in drops:
        choices = found.choose(drop)
        if choices == before:
            continue
        before, candidate = choices, space.apply(choices).recalibrated()
        now = float(cost(candidate.trace()))
        steps.append(
            Step(len(steps) + 1, limit, f"T = {drop:.4g}", choices, now, candidate.accuracy(), candidate.loss())
        )
        if now <= limit:
            break
    tuned = candidate.fine_tune(epochs)
    return Found("sensitivity", tuned, float(cost(tuned.trace())), found.base_cost, limit, tuple(steps))
