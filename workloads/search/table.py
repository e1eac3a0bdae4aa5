"""The look-up table of a search: what each layer costs at each choice, simulated once and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..trace import Trace
from .space import Cost, Space


class Table:
    """Costs of layers one by one, filled as they are asked for.

    A layer's entry is the cost of a trace of that layer alone, of the trained network with nothing changed but the
    layers that it depends on. Costs that add up over layers, such as cycles and energy, are then told exactly where a
    layer's cost depends on its shape alone; others, and costs that depend on activations, nearly.
    """

    def __init__(self, space: Space, cost: Cost) -> None:
        self.space, self.cost = space, cost
        self.simulated = 0  # traces that were handed to the cost function
        self._entries: dict[tuple[object, ...], float] = {}
        self._names = [layer.name for layer in space.dense.trace().layers]

    def exact(self, trace: Trace) -> float:
        """Return the cost of a trace, simulated. Raises InputError where it is not finite, or below 0."""
        self.simulated += 1
        value = float(self.cost(trace))
        if not np.isfinite(value) or value < 0:
            raise InputError(f"the cost of a network must be finite and at least 0, not {value}; choose another cost")
        return value

    def layer(self, name: str, choices: Sequence[float]) -> float:
        """Return the cost of the layer ``name`` of the trace where the layers of the space have these choices."""
        depends = self.space.depends.get(name, ())
        key = (name, *(choices[index] for index in depends))
        if key not in self._entries:
            alone = [1.0] * len(self.space.layers)
            for index in depends:
                alone[index] = choices[index]
            trace = self.space.apply(alone).trace()
            only = next(layer for layer in trace.layers if layer.name == name)
            self._entries[key] = self.exact(Trace(name=trace.name, layers=(only,)))
        return self._entries[key]

    def network(self, choices: Sequence[float]) -> float:
        """Return the sum of the layers' costs."""
        return math.fsum(self.layer(name, choices) for name in self._names)
