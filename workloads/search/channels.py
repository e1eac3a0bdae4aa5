"""Channel ratios: networks that are really smaller, for machines that skip nothing.

A channel that goes takes with it a filter of its own layer, its place in the batch norm behind, and the weights that
every next layer multiplies it with: of C output channels and as many inputs, keeping a share r of both leaves r^2 of
the work. The filters of smallest L2 norm go first, as in NetAdapt (Yang et al., ECCV 2018, and its public code); Li et
al., ICLR 2017, rank them by their L1 norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..pruning import Masks, Weights, largest
from ..training.kernels import layer_of
from .space import Candidate, SearchLayer, Space, search_layers
from .trained import Trained
from .wiring import cut, wires

if TYPE_CHECKING:
    from ..training.loop import Loop

FINEST = 512  # choices a layer at most


class ChannelSpace(Space):
    """Shares of output channels: choice i keeps that share of the filters of layer i, and a network that much smaller.

    Layers whose channels others depend on are left whole, each with a reason in ``whole``: those that are added to
    others by a shortcut, and the last one, whose channels are the classes.
    """

    kind: ClassVar[str] = "channels"

    def __init__(self, trained: Trained, *, step: int = 1) -> None:
        """Make the space in which layers lose ``step`` channels at a time.

        Raises InputError, with the reasons, for a network of which no layer can lose any.
        """
        if step < 1:
            raise InputError(f"step must be at least 1, not {step}")
        self.trained = trained
        loop = trained.loop
        loop.load(trained.weights)
        self.wires, self.whole = wires(loop.network, trained.samples[:1].to(loop.recipe.device), loop.full_masks())
        if not self.wires:
            reasons = "; ".join(f"{name} {reason}" for name, reason in self.whole.items())
            raise InputError(f"some layer must be able to lose channels, and none is: {reasons}; choose another kind")

        def choices(shape: tuple[int, ...]) -> list[float]:
            channels = shape[0]
            by = max(step, -(-channels // FINEST))
            counts = sorted({*range(channels, 0, -by)})
            return [count / channels for count in counts]

        self.layers = search_layers(trained, self.kind, list(self.wires), choices)
        self._buffers = {name for name, _ in loop.network.named_buffers()}
        self.depends = {}
        for layer in self.layers:
            for name in (layer.parameter, *self.wires[layer.parameter].inputs):
                traced = layer_of(name)
                self.depends[traced] = (*self.depends.get(traced, ()), layer.index)

    def channels(self, candidate: Candidate) -> dict[str, int]:
        """Return how many output channels each layer of the space has left, by name."""
        return {
            layer.name: round(choice * layer.out_channels)
            for layer, choice in zip(self.layers, candidate.choices, strict=True)
        }

    def masks(self, choices: Sequence[float], ranks: Weights) -> Masks:
        """Return what is left of every array that a channel goes through, in the dense shapes."""
        kept: Masks = {}
        for layer, choice in zip(self.layers, choices, strict=True):
            wire, rank = self.wires[layer.parameter], ranks[layer.parameter]
            alive = largest(rank[None], np.array([round(choice * len(rank))]))[0]
            for name, axis, index in wire.slices(alive):
                if name in self._buffers:
                    continue
                shape = self.trained.weights[name].shape
                mask = kept.setdefault(name, np.ones(shape, bool))
                gone = np.ones(shape[axis], bool)
                gone[index] = False
                mask[(slice(None),) * axis + (gone,)] = False
        return kept

    def own(self, candidate: Candidate) -> tuple[Loop, Weights, Masks]:
        """Return the smaller network; it has no masks."""
        places = self._places(candidate)
        loop = self.trained.loop
        loop.load(candidate.state)
        loop = replace(loop, network=cut(loop.network, places))
        return loop, loop.weights(), {}

    def spread(self, candidate: Candidate, state: Weights) -> Weights:
        """Return ``state`` in the shapes of the dense network, 0 where a parameter has gone."""
        whole = {name: value.copy() for name, value in candidate.state.items()}
        grids: dict[str, list[np.ndarray]] = {
            name: [np.arange(side) for side in value.shape] for name, value in whole.items()
        }
        for (name, axis), kept in self._places(candidate).items():
            grids[name][axis] = kept
        for name, value in state.items():
            if value.ndim:
                whole[name][np.ix_(*grids[name])] = value
            else:
                whole[name] = value.copy()
        return whole

    def _places(self, candidate: Candidate) -> dict[tuple[str, int], np.ndarray]:
        """Return what is left of each array along each axis that channels go through."""
        places: dict[tuple[str, int], np.ndarray] = {}
        for layer in self.layers:
            alive = _alive(candidate.masks[layer.parameter])
            for name, axis, kept in self.wires[layer.parameter].slices(alive):
                before = places.get((name, axis))
                places[name, axis] = kept if before is None else np.intersect1d(before, kept)
        return places

    def _ranks(self, layer: SearchLayer, state: Weights, masks: Masks) -> np.ndarray:
        """Return the L2 norms of the filters, (channels,), those that are kept before all that are not."""
        name = layer.parameter
        norms = _norms(state[name])
        if name not in masks:
            return norms
        alive, trained = _alive(masks[name]), _norms(self.trained.weights[name])
        return np.where(alive, norms + (trained.max() + 1.0), trained)

    def pattern(self, parameter: str, mask: np.ndarray) -> Pattern:
        """Return that nothing is pruned: what went is not there any more."""
        return Pattern(kind="dense")


def _norms(weight: np.ndarray) -> np.ndarray:
    """Return the L2 norm of each filter, float64."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    norms: np.ndarray = np.sqrt(np.square(rows).sum(axis=1))
    return norms


def _alive(mask: np.ndarray) -> np.ndarray:
    """Return which filters have anything left."""
    alive: np.ndarray = np.any(mask, axis=tuple(range(1, mask.ndim)))
    return alive
