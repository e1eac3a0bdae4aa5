"""What an N:M weight passes forward and learns while its mask is still in flux: the table of the N:M methods.

The dense weight w is kept and trained; at step j the network computes with ``w * factor``, and w learns from the
gradient of that product, straight through or bent by the method. m(w) is the mask of the n largest of every m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .recipe import Recipe

Held = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A dense weight, its mask, and what it was multiplied by."""
Decay = Literal["none", "linear", "exponential"]


@dataclass(frozen=True)
class Flow:
    """One row of the table: a pattern, and what of the pruned weights still flows.

    ``decay``: how much of a pruned weight is passed on at step j: nothing; 1 - c j, down to 0; exp(-c j).
    ``sr_decay``: lambda, what pulls the pruned weights towards 0. ``true_derivative``: whether the gradient is scaled
    by the factor too, the mask being taken as constant.
    Sources: STE and SR-STE, Zhou et al., ICLR 2021; MdGf and SdGf, Bambhaniya et al., arXiv 2402.04744.
    """

    n: int
    m: int
    axis: int = 1
    decay: Decay = "none"
    c: float = 0.0
    sr_decay: float = 0.0
    true_derivative: bool = False

    @classmethod
    def of(cls, recipe: Recipe, n: int, m: int) -> Flow:
        """Return the flow of an N:M recipe towards the pattern ``n``:``m``."""
        assert recipe.is_nm
        decay: Decay = "none"
        if recipe.method.startswith("mdgf"):
            decay = "linear" if recipe.method == "mdgf-linear" else "exponential"
        return cls(
            n,
            m,
            recipe.axis,
            decay,
            recipe.decay,
            recipe.sr_decay if recipe.method == "sr-ste" else 0.0,
            recipe.true_derivative,
        )

    def leak(self, step: int) -> float:
        """Return b, the share of a pruned weight that is passed on at step j of the method's phase."""
        if self.decay == "linear":
            return max(0.0, 1.0 - self.c * step)
        return math.exp(-self.c * step) if self.decay == "exponential" else 0.0

    def density(self, step: int) -> float:
        """Return the share of multiplications that are left in the forward pass."""
        return 1.0 if self.leak(step) > 0 else self.n / self.m

    def mask(self, weight: torch.Tensor) -> torch.Tensor:
        """Return m(w) as 0 and 1: what `n_of_m` keeps of a full mask, ties to the lower index."""
        values = weight.detach().abs().movedim(self.axis, -1)
        side = values.shape[-1]
        padded = torch.nn.functional.pad(values, (0, -side % self.m), value=-1.0)
        groups = padded.reshape(-1, padded.shape[-1] // self.m, self.m)
        largest = groups.argsort(dim=-1, descending=True, stable=True)[..., : self.n]
        ones = torch.ones_like(largest, dtype=groups.dtype)
        if side % self.m:
            ones[:, -1, -(-(side % self.m) * self.n // self.m) :] = 0
        kept = torch.zeros_like(groups).scatter_(-1, largest, ones)
        return kept.reshape(padded.shape)[..., :side].movedim(-1, self.axis)

    def factor(self, mask: torch.Tensor, step: int) -> torch.Tensor:
        """Return what w is multiplied by in the forward pass: m + (1 - m) b."""
        leak = self.leak(step)
        return mask + (1 - mask) * leak if leak else mask

    def gradient(
        self, gradient: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor
    ) -> torch.Tensor:
        """Return what w learns from the ``gradient`` of the loss by ``w * factor``."""
        if self.true_derivative:
            return gradient * factor
        return gradient + self.sr_decay * (1 - mask) * weight if self.sr_decay else gradient


def pass_on(parameters: list[nn.Parameter], flow: Flow, step: int) -> list[Held]:
    """Put into each parameter what the flow passes on; return its dense weight, mask and factor."""
    kept = []
    with torch.no_grad():
        for parameter in parameters:
            dense, mask = parameter.detach().clone(), flow.mask(parameter)
            factor = flow.factor(mask, step)
            parameter.mul_(factor)
            kept.append((dense, mask, factor))
    return kept


def take_back(parameters: list[nn.Parameter], flow: Flow, kept: list[Held]) -> None:
    """Put the dense weights back, with what they are to learn."""
    with torch.no_grad():
        for parameter, (dense, mask, factor) in zip(parameters, kept, strict=True):
            parameter.copy_(dense)
            if parameter.grad is not None:
                parameter.grad = flow.gradient(parameter.grad, dense, mask, factor)
