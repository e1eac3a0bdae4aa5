"""Networks that a recipe names under ``network``: built on demand, so that listing them needs no torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from .errors import InputError
from .extras import need

if TYPE_CHECKING:
    from torch import nn


def lenet_300_100() -> nn.Module:
    """Return the fully connected 64-300-100-10 with ReLU between: LeNet-300-100 for images of 8 x 8 pixels.

    Source: LeCun et al., Proc. IEEE 1998 (28 x 28 inputs there).
    """
    return mlp(64, 300, 100, 10)


def mlp(*widths: int) -> nn.Module:
    """Return a fully connected network, layers fc1, fc2, ... with biases and ReLU between.

    Weights are drawn from torch's own generator, as its layers do.
    """
    import torch
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        if i > 1:
            layers[f"relu{i - 1}"] = nn.ReLU()
        layers[f"fc{i}"] = nn.Linear(fan_in, fan_out, dtype=torch.float32)
    return nn.Sequential(layers)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"lenet-300-100": lenet_300_100}


def build_network(name: str) -> nn.Module:
    """Return a new network ``name`` with random weights. Raises InputError that lists the known ones."""
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    need("train", "torch")
    return NETWORKS[name]()
