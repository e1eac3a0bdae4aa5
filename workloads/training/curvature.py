"""The curvature of the loss at a solution: the Hessian's trace and its largest eigenvalue, from its products alone.

The module is in evaluation mode: batch norm uses its running statistics, and dropout is off. With masks, the Hessian
is that of the weights that are left; the rows and columns of pruned ones are taken out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..pruning import Masks
from .measure import State, batches, borrowed, place

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .measure import Loader

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """The mean loss of a batch, of its outputs and labels."""
    Vector = list[torch.Tensor]


@dataclass(frozen=True)
class TraceEstimate:
    """An estimate of a Hessian's trace: the mean over ``samples`` probes and its standard error."""

    mean: float
    standard_error: float
    samples: int


@dataclass(frozen=True)
class Eigenvalue:
    """The largest eigenvalue of a Hessian, by power iteration.

    ``residual``: |H v - value v| / |value|, which bounds the relative distance to an eigenvalue of H. ``converged``:
    whether it came under the tolerance within ``iterations`` products.
    """

    value: float
    residual: float
    iterations: int
    converged: bool


def hessian_trace(
    module: nn.Module,
    weights: State,
    loader: Loader,
    *,
    samples: int = 32,
    seed: int = 0,
    masks: Masks | None = None,
    loss: Loss | None = None,
) -> TraceEstimate:
    """Return the trace of the Hessian of the mean loss over ``loader``, by Hutchinson's estimator.

    ``samples`` probes v of random signs give v' H v, whose mean is the trace. ``loss`` is cross-entropy where it is
    not given. ``weights`` may carry buffers. Raises InputError.
    Source: Hutchinson, Communications in Statistics 1989; Yao et al., PyHessian, 2020.
    """
    if samples < 2:
        raise InputError(f"samples must be at least 2, for a standard error, not {samples}")
    with _hessian(module, weights, masks, loss) as hessian:
        generator = np.random.default_rng(seed)
        probes = [hessian.signs(generator) for _ in range(samples)]
        products = hessian.products(loader, probes)
        values = [_dot(probe, product) for probe, product in zip(probes, products, strict=True)]
    return TraceEstimate(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(samples), samples)


def top_eigenvalue(
    module: nn.Module,
    weights: State,
    loader: Loader,
    *,
    tolerance: float = 1e-2,
    iterations: int = 200,
    seed: int = 0,
    masks: Masks | None = None,
    loss: Loss | None = None,
) -> Eigenvalue:
    """Return the largest eigenvalue of the Hessian of the mean loss over ``loader``, by power iteration.

    It ends when |H v - l v| <= ``tolerance`` |l|, or after ``iterations`` products, not converged. Power iteration
    finds the eigenvalue of largest magnitude; where that is negative, a second one on H - l finds the largest.
    The error of l is of the second order in the residual where the eigenvalue stands alone. Raises InputError.
    """
    if not tolerance > 0 or iterations < 1:
        raise InputError(f"tolerance must be above 0 and iterations at least 1, not {tolerance} and {iterations}")
    with _hessian(module, weights, masks, loss) as hessian:
        value, residual, used = _iterate(hessian, loader, 0.0, tolerance, iterations, seed)
        if value < 0 and used < iterations:
            value, residual, more = _iterate(hessian, loader, value, tolerance, iterations - used, seed)
            used += more
    return Eigenvalue(value, residual, used, residual <= tolerance)


def _iterate(
    hessian: _Hessian, loader: Loader, shift: float, tolerance: float, iterations: int, seed: int
) -> tuple[float, float, int]:
    """Return the eigenvalue farthest from ``shift``, its relative residual, and the products that it took."""
    vector = hessian.signs(np.random.default_rng(seed))
    value, residual = 0.0, math.inf
    for step in range(1, iterations + 1):
        length = math.sqrt(_dot(vector, vector))
        if not length:  # H is shift times 1 on what v spans, or there is no weight at all
            return shift, 0.0, step
        vector = [part / length for part in vector]
        (product,) = hessian.products(loader, [vector])
        value = _dot(vector, product)
        rest = [p - value * v for p, v in zip(product, vector, strict=True)]
        off = math.sqrt(_dot(rest, rest))
        residual = off / abs(value) if value else (math.inf if off else 0.0)
        if residual <= tolerance:
            return value, residual, step
        vector = [p - shift * v for p, v in zip(product, vector, strict=True)]
    return value, residual, iterations


@dataclass(frozen=True, eq=False)
class _Hessian:
    module: nn.Module
    parameters: Vector
    kept: Vector  # 1 where a weight is left, 0 where it is pruned
    loss: Loss

    def signs(self, generator: np.random.Generator) -> Vector:
        """Return a vector of random signs, 0 where pruned; drawn on the CPU, so that no device changes it."""
        import torch

        return [
            kept * torch.from_numpy(generator.integers(0, 2, tuple(kept.shape)) * 2 - 1).to(kept) for kept in self.kept
        ]

    def products(self, loader: Loader, vectors: Sequence[Vector]) -> list[Vector]:
        """Return H v for each v of ``vectors``, all in one walk over ``loader``."""
        import torch

        sums = [[torch.zeros_like(part) for part in vector] for vector in vectors]
        count = 0
        for inputs, labels in batches(self.module, loader):
            loss = self.loss(self.module(inputs), labels)
            gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
            used = [(g, i) for i, g in enumerate(gradients) if g.requires_grad]  # a linear loss has no second order
            for vector, total in zip(vectors, sums, strict=True):
                if not used:
                    continue
                slope = sum((g * vector[i]).sum() for g, i in used)
                assert isinstance(slope, torch.Tensor)
                seconds = torch.autograd.grad(slope, self.parameters, retain_graph=True, materialize_grads=True)
                for part, second in zip(total, seconds, strict=True):
                    part.add_(second, alpha=len(labels))
            count += len(labels)
        return [[part * kept / count for part, kept in zip(total, self.kept, strict=True)] for total in sums]


@contextmanager
def _hessian(module: nn.Module, weights: State, masks: Masks | None, loss: Loss | None) -> Iterator[_Hessian]:
    """Lend out the Hessian of ``module`` at ``weights``, pruned ones set to 0."""
    with borrowed(module):
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import cross_entropy

        from .loop import apply_masks

        masks = masks or {}
        for name, mask in masks.items():
            if name not in weights or weights[name].shape != mask.shape:
                raise InputError(f"mask {name} must belong to a weight of its shape {mask.shape}, and there is none")
        place(module, apply_masks(weights, masks))
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        kept = [
            torch.from_numpy(masks[name]).to(parameter) if name in masks else torch.ones_like(parameter)
            for name, parameter in named
        ]
        # Fused attention has no second derivative; the plain formula has.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield _Hessian(module, [parameter for _, parameter in named], kept, loss or cross_entropy)


def _dot(a: Vector, b: Vector) -> float:
    products = [float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True)]
    return float(np.sum(products))  # alike in every Python, as its own sum is not; nan where one is
