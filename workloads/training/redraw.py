"""First weights drawn anew for a module of the user's: what a control of the lottery ticket starts from."""

from __future__ import annotations

import copy

from torch import nn

from ..errors import InputError


def redrawn(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` whose layers have drawn new weights from torch's generator, as they do when made.

    Raises InputError naming a parameter that belongs to no layer with a ``reset_parameters`` of its own.
    """
    fresh = copy.deepcopy(module)
    drawn: set[int] = set()
    for layer in fresh.modules():
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(reset):
            reset()
            drawn |= {id(parameter) for parameter in layer.parameters(recurse=False)}
    for name, parameter in fresh.named_parameters():
        if id(parameter) not in drawn:
            raise InputError(
                f"parameter {name}: a control that is initialised again needs layers with reset_parameters(), and the "
                "layer of this one has none; give it one"
            )
    return fresh
