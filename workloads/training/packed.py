"""Weights that torch holds packed or quantized, taken out of it: what a trace needs, and a CPU can multiply."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.sparse import SparseSemiStructuredTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import InputError
from ..files.container import one_line
from ..files.numbers import bfloat16_to_float32
from ..formats.nm import decode
from ..formats.nm_torch import from_torch
from ..patterns import Pattern


def unpacked(parameters: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Pattern]]:
    """Return the dense tensors, and the patterns, of those ``parameters`` that are packed or quantized, by name.

    A quantized one, as torchao's, becomes the numbers it stands for. Raises InputError naming the parameter for a
    cuSPARSELt blob, and for a class of tensors that does not tell its numbers.
    """
    dense, patterns = {}, {}
    for name, parameter in parameters.items():
        if isinstance(parameter, SparseSemiStructuredTensor):
            dense[name], patterns[name] = _unpack(parameter, f"parameter {name}")
        elif _is_wrapper(parameter):
            dense[name] = _dequantized(parameter, f"parameter {name}")
    return dense, patterns


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Tell whether ``tensor`` is of a class that keeps its numbers in other tensors."""
    found: object = tensor
    return bool(is_traceable_wrapper_subclass(found))


def _dequantized(parameter: torch.Tensor, where: str) -> torch.Tensor:
    try:
        with torch.no_grad():
            found = parameter.dequantize()
            plain = not _is_wrapper(found) and found.is_floating_point()
    except Exception as error:  # of the class, whatever it lacks
        kind = type(parameter).__name__
        raise InputError(
            f"{where}: must be a plain tensor or tell its numbers, and is a {kind} ({one_line(error):.120}); "
            "dequantize it"
        ) from None
    if not plain or found.shape != parameter.shape:
        raise InputError(f"{where}: must be floating-point numbers, and is a {type(parameter).__name__}; dequantize it")
    return found


def _unpack(parameter: SparseSemiStructuredTensor, where: str) -> tuple[torch.Tensor, Pattern]:
    assert parameter.packed is not None  # only the second form of a transposed weight lacks it, and no layer holds one
    values = parameter.packed.detach().cpu()
    words = values.dtype == torch.bfloat16  # which numpy has not
    meta = None if parameter.meta is None else parameter.meta.cpu().numpy()
    found = from_torch((values.view(torch.int16) if words else values).numpy(), meta, reordered=True, where=where)
    weight = decode(found)
    dense = torch.from_numpy(bfloat16_to_float32(weight.view("u2")) if words else weight)
    return dense.to(parameter.device, parameter.dtype), Pattern("n:m", n=found.n, m=found.m, axis=1)
