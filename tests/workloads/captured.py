"""What tests of captured layers are made of: seeded modules, drawn samples, and what torch computes with them."""

import numpy as np
import torch
from torch import nn

from gossamer.workloads.lowering import lower

BUNDLED = {
    "lenet-300-100": "digits",
    "convnet-digits": "digits-images",
    "convnet-1d": "mnist1d",
    "resnet-20": "digits-images",
    "vit-digits": "digits-images",
    "lstm-64": "digits-rows",
}


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def seeded(make):
    """A module made with torch's generator at a fixed place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make()


def product(layer):
    """What the layer computes, in float64, one row a vector."""
    parts = []
    for part in lower(layer):
        bias = 0 if part.bias_values is None else part.bias_values
        parts.append(part.vectors.astype(np.float64) @ part.weight.T.astype(np.float64) + bias)
    return np.concatenate(parts, axis=1)


def rows(output, channels_at):
    """The same of what torch computed: channels last, one row a vector."""
    return output.detach().movedim(channels_at, -1).flatten(end_dim=-2).numpy()


def by_name(layers):
    return {layer.name: layer for layer in layers}


def watched(network, samples):
    """What each linear and convolutional layer returned, one row a vector, by its name."""
    seen = {}

    def watch(name, at):
        return lambda module, given, output: seen.update({name: rows(output, at)})

    handles = [
        part.register_forward_hook(watch(name, -1 if isinstance(part, nn.Linear) else 1))
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv1d)
    ]
    with torch.no_grad():
        outputs = network.eval()(samples)
    for handle in handles:
        handle.remove()
    return seen, outputs
