"""The nine different 3 x 3 convolutions of VGG-16, drawn and pruned by patterns: what PatDNN's figures are about.

The paper's pruned weights are not public; sizes are those of VGG-16 on images of 224 x 224.
Sources: Simonyan and Zisserman, ICLR 2015 (sizes); Niu et al., ASPLOS 2020 (which layers, and how they are pruned).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import number, positive, whole
from ..errors import InputError
from ..files.drawn import Draw
from ..patterns import Pattern
from ..pruning.kernel_patterns import KEPT, pattern_prune
from ..trace import Layer, Trace


@dataclass(frozen=True)
class VggLayer:
    """A convolution of 3 x 3 with padding 1: ``filters`` over ``channels`` of ``side`` x ``side`` positions."""

    name: str
    filters: int
    channels: int
    side: int


VGG_LAYERS = (
    VggLayer("L1", 64, 3, 224),
    VggLayer("L2", 64, 64, 224),
    VggLayer("L3", 128, 64, 112),
    VggLayer("L4", 128, 128, 112),
    VggLayer("L5", 256, 128, 56),
    VggLayer("L6", 256, 256, 56),
    VggLayer("L7", 512, 256, 28),
    VggLayer("L8", 512, 512, 28),
    VggLayer("L9", 512, 512, 14),
)


def vgg_layer(
    name: str, *, connectivity: float = 3.6, patterns: int = 8, filter_sigma: float = 0.3, seed: int = 0
) -> Trace:
    """Return the layer of VGG-16 called ``name``, "L1" to "L9", pruned by ``patterns`` and by ``connectivity``.

    Weights are normal, scaled by one lognormal factor a filter, ``filter_sigma`` the standard deviation of its
    logarithm: filters that matter less keep fewer kernels. One kernel of ``connectivity`` is left. Activations are
    drawn, all of them nonzero. Raises InputError for an unknown name or values out of range.
    """
    layer = _named(name)
    weight, mask = vgg_weight(name, connectivity=connectivity, patterns=patterns, filter_sigma=filter_sigma, seed=seed)
    draw = Draw(act_density=1.0, seed=seed)
    return Trace(
        name=f"vgg-{layer.name}",
        layers=(
            Layer(
                name=layer.name,
                op="conv2d",
                weight=weight,
                mask=mask,
                inputs=draw.activations(0, (layer.channels, layer.side, layer.side)),
                pattern=Pattern("kernel-pattern", n=KEPT, m=patterns),
                attributes={"padding": (1, 1)},
            ),
        ),
        provenance={
            "source": "synthetic",
            "statistics": {
                "of": f"{layer.name} of VGG-16",
                "connectivity": connectivity,
                "patterns": patterns,
                "filter_sigma": filter_sigma,
                "weights": "normal",
            },
            "activations": draw.provenance(),
            "seed": seed,
        },
    )


def vgg_weight(
    name: str, *, connectivity: float = 3.6, patterns: int = 8, filter_sigma: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of the layer that `vgg_layer` returns, 0 where pruned, and its mask."""
    layer = _named(name)
    if positive(connectivity, "connectivity") < 1:
        raise InputError(f"connectivity must be at least 1 and finite, not {connectivity}")
    filter_sigma = number(filter_sigma, "filter_sigma", 0, 4)
    patterns = whole(patterns, "patterns", 1)
    rng = np.random.default_rng([whole(seed, "seed", 0), 0, 5])
    scale = np.exp(filter_sigma * rng.standard_normal(layer.filters)).astype(np.float32)
    weight = rng.standard_normal((layer.filters, layer.channels, 3, 3), np.float32) * scale[:, None, None, None]
    sparsity = 1 - KEPT / 9 / connectivity
    mask = pattern_prune({name: weight}, {name: np.ones(weight.shape, bool)}, sparsity, patterns)[name]
    return np.where(mask, weight, np.float32(0)), mask


def _named(name: str) -> VggLayer:
    for layer in VGG_LAYERS:
        if layer.name.lower() == str(name).lower():
            return layer
    raise InputError(f"unknown VGG-16 layer {name!r}; known: {', '.join(layer.name for layer in VGG_LAYERS)}")
