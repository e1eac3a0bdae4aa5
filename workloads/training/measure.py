"""Loss and accuracy of a module under given weights; the module itself is left as it was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..extras import need

if TYPE_CHECKING:
    import torch
    from torch import nn

    Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]
    """Batches of (inputs, labels), the same ones each time it is walked: a DataLoader that does not shuffle, a list."""

State = Mapping[str, np.ndarray]
"""A solution: a module's parameters by name and, where it has them, its buffers (batch-norm statistics)."""


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """Lend ``module`` out in evaluation mode; give it back bit for bit: parameters, buffers, gradients and modes.

    Inside, torch computes the same bits every time: see `deterministic`.
    """
    need("train", "torch")
    import torch

    from .loop import deterministic

    tensors = [*module.parameters(), *module.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    gradients = [parameter.grad for parameter in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with deterministic(0):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for part, training in modes:
            part.training = training


def place(module: nn.Module, state: State) -> None:
    """Give ``module`` these parameters and buffers; buffers that ``state`` lacks stay as they are.

    Raises InputError for a name that the module does not have, a parameter that is missing, and a shape that differs.
    """
    import torch

    own = dict(module.named_parameters()) | dict(module.named_buffers())
    unknown = [name for name in state if name not in own]
    missing = [name for name, _ in module.named_parameters() if name not in state]
    if unknown or missing:
        raise InputError(
            f"weights must be those of the module: {', '.join(own)}; "
            f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        )
    with torch.no_grad():
        for name, value in state.items():
            if tuple(own[name].shape) != np.shape(value):
                raise InputError(f"weight {name} must be {tuple(own[name].shape)} in the module, not {np.shape(value)}")
            own[name].copy_(torch.from_numpy(np.array(value)))


def measure(module: nn.Module, loader: Loader) -> tuple[float, float]:
    """Return mean cross-entropy (in nats) and accuracy (a fraction) of ``module`` as it stands, over ``loader``.

    Outputs are (n, classes), labels (n,) whole numbers. The loss may be infinite or nan, and is then returned so.
    """
    import torch
    from torch.nn.functional import cross_entropy

    loss, hits, count = 0.0, 0, 0
    with torch.no_grad():
        for inputs, labels in batches(module, loader):
            outputs = module(inputs)
            loss += float(cross_entropy(outputs, labels, reduction="sum"))
            hits += int((outputs.argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, hits / count


def settle(module: nn.Module, state: State, recalibrate: Loader | None) -> None:
    """Give ``module`` the weights of ``state``, batch-norm statistics recomputed on ``recalibrate`` if there is one."""
    from torch.optim.swa_utils import update_bn

    place(module, state)
    if recalibrate is not None:
        update_bn(batches(module, recalibrate), module)
        module.eval()


def batches(module: nn.Module, loader: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of ``loader`` on the device of ``module``; raises InputError where there are none."""
    device = next((parameter.device for parameter in module.parameters()), None)
    empty = True
    for inputs, labels in loader:
        empty = False
        yield inputs.to(device), labels.to(device)
    if empty:
        raise InputError("a loader must give at least one batch each time it is walked; give a list or a DataLoader")


def has_batch_norm(module: nn.Module) -> bool:
    """Tell whether ``module`` normalises by running statistics, which must fit its weights."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(part, _BatchNorm) and part.track_running_stats for part in module.modules())
