"""The values of a layer as PointAcc computes them, in float32: gather, product, scatter."""

from __future__ import annotations

import numpy as np

from ....simulator.memo import Memo
from ....workloads.points.sparse_conv import sparse_convolution
from ....workloads.trace import Layer
from ..dense import bias_of
from .work import maps_of


def values(layer: Layer, memo: Memo) -> np.ndarray | None:
    """Return the output of ``layer``, (vectors, out), None where only its geometry is known."""
    if layer.op == "sparse_conv3d":
        return None if layer.inputs is None else sparse_convolution(layer, maps_of(layer, memo))
    if layer.op == "matmul":
        return np.asarray(layer.inputs @ layer.weight.transpose(0, 2, 1)).reshape(-1, layer.shape[1])
    output = np.asarray(layer.inputs.reshape(-1, layer.shape[1]) @ layer.weight.T)
    bias = bias_of(layer)
    return output if bias is None else output + bias
