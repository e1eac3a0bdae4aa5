"""What a search chooses from: for each layer of a trained network, which share of it to keep.

A choice is a number in (0, 1], the share of the layer that is preserved: of its output channels (kind "channels"), of
its weights ("sparsity"), or n / m of N:M groups ("nm"). 1 leaves the layer as it is. Only the choices that a layer
lists are legal; `Space.snap` finds the nearest one to any number. What is kept is always what is largest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..pruning import Masks, Weights
from ..trace import Layer, Trace
from .trained import Trained

if TYPE_CHECKING:
    from torch import nn

    from ..training.loop import Loop

Cost = Callable[[Trace], float]
"""What a network costs: any number that falls when less is left of it, such as the cycles that a machine simulates."""


@dataclass(frozen=True)
class SearchLayer:
    """A layer that a search chooses for.

    ``name``: of its layer in a trace, or of its weight where that is several. ``parameter``: of its weight.
    ``index``: its place in `Space.layers`. ``type``: the op of its trace, "linear" or "conv2d". ``kernel``: (height,
    width), (1, 1) where there is none. ``weights``: how many it has when dense. ``macs``: multiplications a sample when
    dense. ``choices``: the legal ones, from the smallest to 1. ``traced``: the names of the layers of a trace that its
    weight is in.
    """

    name: str
    parameter: str
    index: int
    kind: str
    type: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: int
    weights: int
    macs: float
    choices: tuple[float, ...] = field(repr=False)
    traced: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with less left of it: one point of a space, made by `Space.apply`; nothing of it ever changes.

    ``choices``: one a layer of the space. ``state`` and ``masks``: parameters and buffers in the shapes of the dense
    network, 0 where masked. ``epochs``: of fine-tuning behind it.
    """

    space: Space
    choices: tuple[float, ...]
    state: Weights
    masks: Masks
    epochs: int = 0

    @cached_property
    def _own(self) -> tuple[Loop, Weights, Masks]:
        return self.space.own(self)

    @property
    def module(self) -> nn.Module:
        """Return a copy of the network in evaluation mode, of the shapes it really has, with its weights."""
        import copy

        loop, state, _ = self._own
        loop.load(state)
        return copy.deepcopy(loop.network).cpu().eval()

    def trace(self, **about: Any) -> Trace:
        """Return the network with the activations of the space's samples; a few milliseconds, nothing is trained.

        ``about`` is added to its provenance.
        """
        from ..training.capture import capture
        from ..training.loop import deterministic

        loop, state, masks = self._own
        trained = self.space.trained
        loop.load(state)
        with deterministic(loop.recipe.seed):
            layers = capture(
                loop.network,
                trained.samples.to(loop.recipe.device),
                masks={name: mask for name, mask in masks.items() if mask.ndim > 1},
                patterns={name: self.space.pattern(name, mask) for name, mask in masks.items() if mask.ndim > 1},
            )
        return Trace(name=loop.recipe.name, layers=tuple(layers), provenance=about)

    @cached_property
    def weights_kept(self) -> int:
        """Count the weights of the space's layers that are left."""
        return sum(int(np.count_nonzero(self.masks[layer.parameter])) for layer in self.space.layers)

    @cached_property
    def _judged(self) -> tuple[float, float]:
        loop, state, _ = self._own
        return loop.evaluate(state)

    def accuracy(self) -> float:
        """Return the fraction of the validation samples that the network gets right."""
        return self._judged[0]

    def loss(self) -> float:
        """Return the mean cross-entropy of the validation samples, in nats: it tells equal accuracies apart."""
        return self._judged[1]

    def test_accuracy(self) -> float:
        """Return the fraction of the test samples that the network gets right: for the end of a search alone."""
        loop, state, _ = self._own
        return replace(loop, tests=self.space.trained.tests).evaluate(state)[0]

    def fine_tune(self, epochs: int) -> Candidate:
        """Return the candidate after so many more epochs at the recipe's fine-tuning rate; what is gone stays."""
        if epochs == 0:
            return self
        loop, state, masks = self._own
        size = loop.steps_per_epoch
        # The epochs go on counting, so that a second fine-tuning sees the samples in another order than the first.
        first, last = self.epochs * size, (self.epochs + epochs) * size
        tuned = loop.train(state, masks, first, last, finetune=True)
        return replace(self, state=self.space.spread(self, tuned), epochs=self.epochs + epochs)

    def recalibrated(self) -> Candidate:
        """Return the candidate with batch-norm statistics that fit what is left; itself where there are none."""
        from ..training.measure import has_batch_norm

        loop, state, _ = self._own
        if not has_batch_norm(loop.network):
            return self
        return replace(self, state=self.space.spread(self, loop.recalibrate(state)))


class Space(ABC):
    """All that may be kept of one trained network, layer by layer.

    ``layers``: those that are chosen for, in the order in which samples meet them. ``whole``: why other layers are left
    as they are, by name. ``depends``: by the name of a layer of the trace, the layers whose choices change its shape or
    its weights, by index; a layer that is not named depends on none.
    """

    kind: ClassVar[str]
    trained: Trained
    layers: tuple[SearchLayer, ...]
    whole: Mapping[str, str]
    depends: dict[str, tuple[int, ...]]

    @cached_property
    def dense(self) -> Candidate:
        """Return the candidate that keeps everything."""
        return self.apply([1.0] * len(self.layers))

    def apply(self, choices: Sequence[float], start: Candidate | None = None) -> Candidate:
        """Return the network that keeps these shares, untrained as yet.

        ``start``: a candidate of this space to go on from, with its weights: what it lacks is taken from the trained
        network, and only after all that it has. The trained network itself where there is none.
        Raises InputError for a choice that a layer does not have.
        """
        chosen = self._checked(choices)
        state, masks = self.trained.weights, {}
        epochs = 0
        if start is not None:
            if start.space is not self:
                raise InputError("start must be a candidate of this space, and is one of another")
            state, masks, epochs = start.state, start.masks, start.epochs
        ranks = {layer.parameter: self._ranks(layer, state, masks) for layer in self.layers}
        state = state if start is None else self._whole_again(start)
        kept = self.masks(chosen, ranks)
        return Candidate(self, chosen, _masked(state, kept), kept, epochs)

    def snap(self, index: int, ratio: float) -> float:
        """Return the legal choice of layer ``index`` that is nearest to ``ratio``; of two, the smaller."""
        return min(self.layers[index].choices, key=lambda choice: abs(choice - ratio))

    @abstractmethod
    def masks(self, choices: Sequence[float], ranks: Weights) -> Masks:
        """Return what is kept, in the dense shapes; ``ranks``: by parameter, larger for what should sooner stay."""

    @abstractmethod
    def pattern(self, parameter: str, mask: np.ndarray) -> Pattern:
        """Return the promise that the mask of ``parameter`` keeps."""

    def own(self, candidate: Candidate) -> tuple[Loop, Weights, Masks]:
        """Return the candidate's network with state and masks in the shapes it really has."""
        return self.trained.loop, candidate.state, candidate.masks

    def spread(self, candidate: Candidate, state: Weights) -> Weights:
        """Return ``state``, of the shapes the candidate really has, in those of the dense network."""
        return state

    def _checked(self, choices: Sequence[float]) -> tuple[float, ...]:
        if len(choices) != len(self.layers):
            raise InputError(f"choices must be one for each of the {len(self.layers)} layers, not {len(choices)}")
        for layer, choice in zip(self.layers, choices, strict=True):
            if choice not in layer.choices:
                raise InputError(
                    f"layer {layer.name}: the choice must be one of its {len(layer.choices)}, from "
                    f"{layer.choices[0]:.4g} to 1, not {choice!r}; use snap"
                )
        return tuple(float(choice) for choice in choices)

    def _ranks(self, layer: SearchLayer, state: Weights, masks: Masks) -> np.ndarray:
        """Return the magnitudes of a weight, float64, what is kept before all that is not."""
        name = layer.parameter
        ranks = np.abs(state[name].astype(np.float64))
        if name not in masks or masks[name].all():
            return ranks
        trained = np.abs(self.trained.weights[name].astype(np.float64))
        return np.where(masks[name], ranks + float(trained.max()), trained)

    def _whole_again(self, start: Candidate) -> Weights:
        """Return the state of ``start``, with the trained values where it has none."""
        trained = self.trained.weights
        return {
            name: np.where(start.masks[name], value, trained[name]) if name in start.masks else value
            for name, value in start.state.items()
        }


def own_layers(layers: Sequence[SearchLayer]) -> dict[str, tuple[int, ...]]:
    """Return `Space.depends` of a kind whose choices change nothing but the weights of their own layer."""
    return {name: (layer.index,) for layer in layers for name in layer.traced}


def search_layers(
    trained: Trained, kind: str, names: Sequence[str], choices: Callable[[tuple[int, ...]], Sequence[float]]
) -> tuple[SearchLayer, ...]:
    """Return the layers of the parameters ``names``, in the order of first use; ``choices`` by the weight's shape."""
    from ..training.capture import capture
    from ..training.kernels import kernels, uses
    from ..training.loop import deterministic

    loop = trained.loop
    loop.load(trained.weights)
    samples = trained.samples.to(loop.recipe.device)
    found: list[tuple[int, str, list[Layer]]] = []
    with deterministic(loop.recipe.seed):
        counts = uses(loop.network, samples)
        order = [layer.name for layer in capture(loop.network, samples)]
        for name in names:
            shape = tuple(kernels(loop.network)[name].shape)
            gone = {name: np.zeros(shape, bool)}  # which layers of the trace are it: those that are empty without it
            own = [layer for layer in capture(loop.network, samples, masks=gone) if layer.nonzeros == 0]
            if own:
                found.append((order.index(own[0].name), name, own))
    layers = []
    for index, (_, name, own) in enumerate(sorted(found, key=lambda each: each[0])):
        shape = tuple(trained.weights[name].shape)
        sides = (1,) * (4 - len(shape)) + shape[2:] if len(shape) > 2 else (1, 1)
        stride = own[0].attributes.get("stride", (1, 1))
        layers.append(
            SearchLayer(
                name=own[0].name if len(own) == 1 else name,
                parameter=name,
                index=index,
                kind=kind,
                type=own[0].op,
                in_channels=shape[1],
                out_channels=shape[0],
                kernel=(sides[0], sides[1]),
                stride=int(stride[-1]),
                weights=int(np.prod(shape)),
                macs=counts[name] * float(np.prod(shape)),
                choices=tuple(float(each) for each in choices(shape)),
                traced=tuple(layer.name for layer in own),
            )
        )
    return tuple(layers)


def _masked(state: Weights, masks: Masks) -> Weights:
    from ..training.loop import apply_masks

    return apply_masks(state, masks)
