"""A training run: weights, masks, their history and the trace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..pruning import Weights
from ..trace import Trace
from .trained import Trained

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Subject:
    """What `prune` was given, to be traced: a copy of the module, and test samples with their labels."""

    module: nn.Module
    inputs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Run(Trained):
    """What a recipe came to: parameters by name, the masks of the prunable ones, and every level on the way.

    ``made_with``: versions of the packages that trained. ``files``: what was written, by kind. ``buffers``: the
    statistics of batch norms. ``particles``: the networks that the last level averages, and ``averages``: the last
    two levels' results, parameters and buffers both. ``subject``: of `prune`, None for a bundled network.
    """

    particles: tuple[Weights, ...] = ()
    averages: tuple[Weights, ...] = ()
    subject: Subject | None = None

    @cached_property
    def trace(self) -> Trace:
        """Return the network with the activations of real test samples, ready to simulate."""
        return self.traced()

    def traced(self, *, products: bool = False, fold_batch_norm: bool = False) -> Trace:
        """Return the `trace`, as `trace_of` makes it with ``products`` and ``fold_batch_norm``."""
        from .export import trace_of

        given = self.subject
        if given is None and not self.recipe.network:
            raise InputError(
                f"run {self.recipe.name}: its network was a module given to prune(), and is not here; "
                "give trace_of the module and samples"
            )
        if given is None:
            return trace_of(self, products=products, fold_batch_norm=fold_batch_norm)
        return trace_of(
            self,
            module=given.module,
            samples=given.inputs,
            labels=given.labels,
            products=products,
            fold_batch_norm=fold_batch_norm,
        )

    def load_into(self, module: nn.Module) -> None:
        """Give ``module``, of the network's structure, the pruned weights and the buffers."""
        import torch

        state = dict(module.named_parameters()) | dict(module.named_buffers())
        with torch.no_grad():
            for name, value in (self.weights | self.buffers).items():
                state[name].copy_(torch.from_numpy(value))
