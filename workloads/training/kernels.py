"""Which parameters of a network can be pruned, what else goes with a pruned channel, and how often each is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..errors import InputError
from ..names import fits
from ..networks.sparse_convolutional import SparseConv3d
from .recipe import Recipe

KERNELS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "weight_ih_l", "weight_hh_l")
CONVOLUTIONS = (_ConvNd, SparseConv3d)


def kernels(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the kernels of linear, convolution, attention and recurrent layers by name, in the order of the network.

    Biases, norms and embeddings are none; a parameter that two layers share counts once.
    """
    owner = {
        id(parameter): module
        for module in network.modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS, nn.MultiheadAttention, nn.RNNBase))
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and name.startswith(KERNELS)
    }
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in owner}


def prunable(network: nn.Module, recipe: Recipe) -> list[str]:
    """Return the names of the kernels that ``recipe`` prunes. Raises InputError where it names what is not there."""
    names = list(kernels(network))
    if not names:
        raise InputError(
            "the network must have a linear, convolution, attention or recurrent layer to be pruned, and has none"
        )
    for pattern in recipe.exclude:
        gone = [name for name in names if fits(layer_of(name), pattern)]
        if not gone:
            layers = ", ".join(dict.fromkeys(layer_of(name) for name in kernels(network)))
            raise InputError(
                f"recipe {recipe.name}: exclude must name layers of the network, not {pattern!r}: {layers}"
            )
    last = names[-1]
    kept_dense = recipe.strategy == "channel" or recipe.method == "slimming"  # the classes are no channels
    names = [name for name in names if not any(fits(layer_of(name), each) for each in recipe.exclude)]
    if not recipe.prune_output or kept_dense:
        names = [name for name in names if name != last]
    if recipe.strategy in ("kernel", "pattern") or recipe.method == "slimming":  # those of convolutions alone
        parameters = kernels(network)
        least = 4 if recipe.strategy == "pattern" else 3  # patterns are those of two dimensions
        names = [name for name in names if parameters[name].ndim >= least]
    if not names and recipe.method != "dense":
        raise InputError(f"recipe {recipe.name}: something must be left to prune with these settings, and nothing is")
    return names


def layer_of(name: str) -> str:
    """Return the name of the layer that owns the parameter ``name``."""
    return name.rpartition(".")[0]


def companions(network: nn.Module) -> dict[str, list[str]]:
    """Return, by kernel, the parameters that have one value a channel of its output: its bias, and its batch norm's.

    The batch norm of a layer is the next module of the network, in the order of definition, if that has as many
    channels: a channel that is pruned is then 0 behind it as well.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found: dict[str, list[str]] = {}
    leaves = [module for module in network.modules() if not list(module.children())]
    for module, after in zip(leaves, [*leaves[1:], None], strict=True):
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)) or id(module.weight) not in names:
            continue
        goes_with = [module.bias]
        if isinstance(after, _BatchNorm) and after.num_features == module.weight.shape[0]:
            goes_with += [after.weight, after.bias]
        found[names[id(module.weight)]] = [names[id(value)] for value in goes_with if value is not None]
    return found


def scales(network: nn.Module) -> dict[str, str]:
    """Return the batch-norm scale behind each convolution, by the convolution's kernel; others have no entry."""
    names = {name for name, parameter in network.named_parameters() if parameter.ndim == 1}
    norms = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, _BatchNorm) and module.affine
    }
    return {
        kernel: scale
        for kernel, others in companions(network).items()
        for scale in others
        if scale in names and scale in norms
    }


def uses(network: nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Return how often a sample uses each weight of each kernel in a forward pass: positions, steps, tokens, pairs.

    Times the kernel's size it is the kernel's multiplications. A layer that the network calls in a way of its own
    counts once.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    counts: dict[str, float] = {}

    def count(module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, torch.Tensor):
            if isinstance(module, SparseConv3d):
                used = module.uses(*given, **keywords)
            else:
                used = first.numel() / (module.out_channels if isinstance(module, _ConvNd) else first.shape[-1])
            for parameter in _used_by(module):
                name = names.get(id(parameter), "")
                counts[name] = counts.get(name, 0.0) + used / len(inputs)

    handles = [module.register_forward_hook(count, with_kwargs=True) for module in network.modules()]
    mode = network.training
    try:
        with torch.no_grad():
            network.eval()(inputs)
    finally:
        network.train(mode)
        for handle in handles:
            handle.remove()
    return {name: counts.get(name, 1.0) for name in kernels(network)}


def _used_by(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the kernels that the layer uses once for every position of its output."""
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        yield module.weight
    elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        for name, parameter in module.named_parameters():  # the output projection of attention included
            if parameter.ndim > 1 and name.removeprefix("out_proj.").startswith(KERNELS):
                yield parameter
