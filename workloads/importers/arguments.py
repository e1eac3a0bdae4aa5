"""The user's samples as what forward takes: by the names of its arguments, or in their order."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..files.container import one_line
from .samples import ONE

KERNELS = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
UNNAMED = re.compile(r"arr_(\d+)")  # the names that np.savez gives to arrays without one
MARKS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


@dataclass(frozen=True, eq=False)
class Arguments:
    """What forward is given, in order and by name."""

    values: tuple[torch.Tensor, ...]
    keywords: dict[str, torch.Tensor] = field(default_factory=dict)


def arguments_of(module: nn.Module, samples: Any) -> Arguments:
    """Return ``samples`` as forward takes them: one array, a tuple of them, or arrays by name.

    Names go to the arguments of these names, keyword-only ones and those of ``**`` among them; arrays that np.savez
    named by their number, and forward does not, go first, in order. Floating-point numbers get the dtype of the
    first layer's weights, arrays of whole numbers of 16 and 32 bits int64; any others keep theirs.
    Raises InputError where a name is of no argument, or one is missing.
    """
    dtype = _dtype(module)
    if isinstance(samples, tuple):
        return Arguments(tuple(_tensor(each, dtype) for each in samples))
    if not isinstance(samples, Mapping):
        return Arguments((_tensor(samples, dtype),))
    known = _parameters(module)
    tensors = {name: _tensor(value, dtype) for name, value in samples.items()}
    unnamed = [name for name in tensors if name == ONE or (UNNAMED.fullmatch(name) and name not in known)]
    ordered = tuple(tensors[name] for name in sorted(unnamed, key=_number))
    named = {name: tensor for name, tensor in tensors.items() if name not in unnamed}
    if not named:
        return Arguments(ordered)
    if any(name not in known for name in named) and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        others = ", ".join(name for name in named if name not in known)
        raise _unfit(known, f"there is no argument {others}; rename them, or leave them out of the file")
    first = [name for name, each in known.items() if each.kind is each.POSITIONAL_ONLY and name in named]
    try:
        bound = inspect.Signature(list(known.values())).bind(
            *ordered, *(named[name] for name in first), **{key: each for key, each in named.items() if key not in first}
        )
    except TypeError as error:
        raise _unfit(known, f"{one_line(error)}; rename them") from None
    return Arguments(bound.args, bound.kwargs)


def _dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype in which the first layer computes; without layers, in which most parameters are.

    Nothing is computed in numbers of one byte.
    """
    for part in module.modules():
        if isinstance(part, KERNELS):
            for each in part.parameters(recurse=False):
                if each.is_floating_point() and each.dtype.itemsize > 1:
                    return each.dtype
    counts: dict[torch.dtype, int] = {}
    for each in module.parameters():
        if each.is_floating_point() and each.dtype.itemsize > 1:
            counts[each.dtype] = counts.get(each.dtype, 0) + each.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def _parameters(module: nn.Module) -> dict[str, inspect.Parameter]:
    """Return what forward takes by name; anything, where it does not tell."""
    try:
        return dict(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):  # a function of C
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _unfit(known: Mapping[str, inspect.Parameter], why: str) -> InputError:
    names = ", ".join(MARKS.get(each.kind, "") + name for name, each in known.items()) or "none"
    return InputError(f"samples must be named as forward's arguments, {names:.200}: {why}")


def _number(name: str) -> int:
    found = UNNAMED.fullmatch(name)
    return int(found[1]) if found else -1


def _tensor(value: Any, dtype: torch.dtype) -> torch.Tensor:
    # A copy in either case: networks overwrite what they are fed.
    made = value.detach().clone() if isinstance(value, torch.Tensor) else torch.from_numpy(_wide(np.array(value)))
    return made.to(dtype) if made.is_floating_point() else made


def _wide(array: np.ndarray) -> np.ndarray:
    """Return whole numbers of 16 and 32 bits as int64: torch takes no others for most indices, and writes these."""
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype.itemsize in (2, 4) else array
