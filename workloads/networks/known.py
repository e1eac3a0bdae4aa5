"""The networks by name, each built for samples of a shape and a number of classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from ..checks import whole
from ..errors import InputError
from ..extras import need

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
SHORTEST = 3  # steps of a sequence, of which three halving convolutions leave one


def lenet_300_100(shape: Shape = (64,), classes: int = 10) -> nn.Module:
    """Return the fully connected 300-100-classes with ReLU between: LeNet-300-100, by default for 8 x 8 pixels.

    Source: LeCun et al., Proc. IEEE 1998 (28 x 28 inputs there).
    """
    return _flattened(mlp(prod(shape), 300, 100, classes), shape)


def mlp_100_100(shape: Shape = (64,), classes: int = 10) -> nn.Module:
    """Return the fully connected 100-100-classes with ReLU between.

    Source: for 40 inputs this is the MLP of Greydanus and Kobak, arXiv 2011.14439 (MNIST-1D), 15,210 parameters.
    """
    return _flattened(mlp(prod(shape), 100, 100, classes), shape)


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


def convnet_digits(shape: Shape = (1, 8, 8), classes: int = 10) -> nn.Module:
    """Return the small convolutional net: three 3 x 3 kernels of 16, 32 and 64 channels with batch norm, then linear.

    Source: none; the smallest of the usual kind, convolution - norm - ReLU with halved sides, for images of 8 x 8.
    """
    from .convolutional import ConvNet

    return ConvNet(*_image(shape, "convnet-digits"), classes)


def convnet_1d(shape: Shape = (40,), classes: int = 10) -> nn.Module:
    """Return the convolutional net for sequences: three kernels of 25 channels, strides of 2, then linear.

    Source: the CNN of Greydanus and Kobak, arXiv 2011.14439 (MNIST-1D), 5,210 parameters for 40 inputs.
    """
    from .convolutional import ConvNet1d

    return ConvNet1d(*_sequence(shape, "convnet-1d"), classes)


def resnet_20(shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Module:
    """Return the ResNet-20 for small images: three stages of three blocks, of 16, 32 and 64 channels.

    Shortcuts have no parameters (option A). Source: He et al., CVPR 2016, section 4.2; 0.27 M parameters there.
    """
    from .resnet import ResNet

    return ResNet(_image(shape, "resnet-20")[0], classes, blocks=3)


def vit_digits(shape: Shape = (1, 8, 8), classes: int = 10) -> nn.Module:
    """Return the tiny vision transformer: patches of 2 x 2, 3 layers of width 48, 4 heads.

    Above 16 pixels a side patches are 4 x 4. Norms come first, and the mean of all tokens is classified.
    Source: Dosovitskiy et al., ICLR 2021 (there with a class token); Beyer et al., arXiv 2205.01580 (the mean).
    """
    from .vit import VisionTransformer

    channels, *sides = _image(shape, "vit-digits")
    patch = 2 if max(sides) <= 16 else 4
    if any(side % patch for side in sides):
        raise InputError(f"network vit-digits needs sides that its patches of {patch} x {patch} tile, not {shape}")
    return VisionTransformer((channels, sides[0], sides[1]), classes, patch=patch, width=48, layers=3, heads=4)


def lstm_64(shape: Shape = (8, 8), classes: int = 10) -> nn.Module:
    """Return the LSTM of 64 units that reads a sequence step by step, or an image row by row, then linear.

    Source: Hochreiter and Schmidhuber, Neural Computation 1997, with the forget gate of torch's own.
    """
    from .recurrent import SequenceClassifier

    if len(shape) > 3:
        raise InputError(f"network lstm-64 needs samples (steps,), (steps, features) or (channels, h, w), not {shape}")
    return SequenceClassifier(shape, classes, units=64)


def sparse_convnet(shape: Shape = (256, 3), classes: int = 9) -> nn.Module:
    """Return the small sparse-convolution net for clouds of points: 3, 2, 3, 2 and 3 cells a side, to 64 channels.

    Voxels are an eighth of the points' unit. Source: none; the layers of Graham et al., CVPR 2018, as few as will do.
    """
    from .sparse_convolutional import SparseConvNet

    if len(shape) != 2 or shape[1] != 3:
        raise InputError(f"network sparse-convnet needs clouds (points, 3), not samples of {shape}")
    return SparseConvNet(classes)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet-300-100": lenet_300_100,
    "mlp-100-100": mlp_100_100,
    "convnet-digits": convnet_digits,
    "convnet-1d": convnet_1d,
    "resnet-20": resnet_20,
    "vit-digits": vit_digits,
    "lstm-64": lstm_64,
    "sparse-convnet": sparse_convnet,
}


def build_network(name: str, shape: Shape | None = None, classes: int = 10) -> nn.Module:
    """Return a new network ``name`` with random weights for samples of ``shape``, its usual one by default.

    Raises InputError that lists the known ones, or says what shape the network needs.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    whole(classes, "classes", 1)
    if shape is not None and (not shape or min(shape) < 1):
        raise InputError(f"network {name} needs samples without an empty side, not {tuple(shape)}")
    need("train", "torch")
    return NETWORKS[name](classes=classes) if shape is None else NETWORKS[name](tuple(shape), classes)


def _flattened(network: nn.Module, shape: Shape) -> nn.Module:
    """Return the network that takes samples of ``shape``, its parameters' names unchanged."""
    from torch import nn

    if len(shape) == 1:
        return network
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *network.named_children()]))


def _image(shape: Shape, name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"network {name} needs images (channels, height, width), not samples of {shape}")
    return shape[0], shape[1], shape[2]


def _sequence(shape: Shape, name: str) -> tuple[int, int]:
    """Return channels and steps of a sequence; one of single numbers may come without its features' axis."""
    if len(shape) not in (1, 2):
        raise InputError(f"network {name} needs sequences (steps,) or (steps, features), not samples of {shape}")
    if shape[0] < SHORTEST:
        raise InputError(f"network {name} needs sequences of {SHORTEST} steps at least, not samples of {shape}")
    return (shape[1] if len(shape) == 2 else 1), shape[0]
