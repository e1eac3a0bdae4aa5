"""What a layer computes where nothing is left out and nothing is rounded but to float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...workloads.lowering import Product, join

if TYPE_CHECKING:
    from ...workloads.trace import Layer


def dense_output(layer: Layer, products: Sequence[Product]) -> np.ndarray:
    """Return the output of ``layer``, (vectors, out) float32, of the ``products`` that it is lowered to."""
    outputs = []
    for product in products:
        bias = product.bias_values
        output = product.vectors @ product.weight.T
        outputs.append(output if bias is None else output + bias)
    return join(layer, outputs).astype(np.float32, copy=False)


def bias_of(layer: Layer) -> np.ndarray | None:
    """Return the bias of ``layer`` in float32, (out,), or None."""
    if layer.bias_codes is not None and layer.codebook is not None:
        return np.asarray(layer.codebook[layer.bias_codes])
    return layer.bias
