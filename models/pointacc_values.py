"""The values of a layer as PointAcc computes them, in float32: gather, product, scatter."""

from __future__ import annotations

import numpy as np

from ..simulator.memo import Memo
from ..workloads.points.sparse_conv import sparse_convolution
from ..workloads.trace import Layer
from .pointacc_work import maps_of


def values(layer: Layer, memo: Memo) -> np.ndarray | None:
    """Return the output of ``layer``, (vectors, out), None where only its geometry is known."""
    if layer.op == "sparse_conv3d":
        return None if layer.inputs is None else sparse_convolution(layer, maps_of(layer, memo))
    if layer.op == "matmul":
        return np.asarray(layer.inputs @ layer.weight.transpose(0, 2, 1)).reshape(-1, layer.shape[1])
    output = np.asarray(layer.inputs.reshape(-1, layer.shape[1]) @ layer.weight.T)
    bias = bias_of(layer)
    return output if bias is None else output + bias


def bias_of(layer: Layer) -> np.ndarray | None:
    """Return the bias of ``layer`` in float32, (out,), or None."""
    if layer.bias_codes is not None and layer.codebook is not None:
        return np.asarray(layer.codebook[layer.bias_codes])
    return layer.bias
