"""Weights that torch holds in its semi-structured form, taken out of it: what a trace needs, and a CPU can multiply."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.sparse import SparseSemiStructuredTensor

from ..files.numbers import bfloat16_to_float32
from ..formats.nm import decode
from ..formats.nm_torch import from_torch
from ..patterns import Pattern


def unpacked(parameters: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Pattern]]:
    """Return the dense tensors, and the patterns, of those ``parameters`` that are packed, by name.

    Raises InputError naming the parameter for a cuSPARSELt blob.
    """
    dense, patterns = {}, {}
    for name, parameter in parameters.items():
        if isinstance(parameter, SparseSemiStructuredTensor):
            dense[name], patterns[name] = _unpack(parameter, f"parameter {name}")
    return dense, patterns


def _unpack(parameter: SparseSemiStructuredTensor, where: str) -> tuple[torch.Tensor, Pattern]:
    assert parameter.packed is not None  # only the second form of a transposed weight lacks it, and no layer holds one
    values = parameter.packed.detach().cpu()
    words = values.dtype == torch.bfloat16  # which numpy has not
    meta = None if parameter.meta is None else parameter.meta.cpu().numpy()
    found = from_torch((values.view(torch.int16) if words else values).numpy(), meta, reordered=True, where=where)
    weight = decode(found)
    dense = torch.from_numpy(bfloat16_to_float32(weight.view("u2")) if words else weight)
    return dense.to(parameter.device, parameter.dtype), Pattern("n:m", n=found.n, m=found.m, axis=1)
