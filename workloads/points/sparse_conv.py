"""Sparse convolution, offset by offset: gather what it meets, multiply, scatter to the outputs.

Source of the three steps: Choy et al., "4D Spatio-Temporal ConvNets", CVPR 2019; Tang et al., TorchSparse, MLSys 2022.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..trace import Layer
from .kernel_map import Maps, maps_between, offsets, transposed
from .keys import pack, shift


def layer_maps(layer: Layer) -> Maps:
    """Return the kernel maps of a sparse_conv3d layer: for each offset, its inputs and the outputs that these meet.

    A transposed convolution has the maps of the downsampling from its outputs to its inputs, each pair swapped.
    """
    coarse_or_own = layer.coordinates if layer.output_coordinates is None else layer.output_coordinates
    kernel_size, step = layer.attributes["kernel_size"], layer.attributes["tensor_stride"]
    assert layer.coordinates is not None and coarse_or_own is not None
    if layer.attributes["transposed"]:
        return transposed(maps_between(coarse_or_own, layer.coordinates, kernel_size, step))
    return maps_between(layer.coordinates, coarse_or_own, kernel_size, step)


def sparse_convolution(layer: Layer, maps: Maps | None = None) -> np.ndarray:
    """Return the output of a sparse_conv3d layer with features, float32 (outputs, channels); no ReLU.

    ``maps``: those of `layer_maps`, where they are already known. Raises InputError for a layer without inputs.
    """
    inputs, outputs = _features(layer), _outputs(layer)
    sums = np.zeros((outputs, layer.shape[0]), np.float32)
    weights = np.ascontiguousarray(layer.weight.transpose(2, 1, 0))  # (offsets, in, out)
    for weight, (into, out) in zip(weights, layer_maps(layer) if maps is None else maps, strict=True):
        if len(into):
            sums[out] += inputs[into] @ weight  # an offset meets an output at most once
    bias = _bias(layer)
    return sums if bias is None else sums + bias


def exact_convolution(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return the output of a sparse_conv3d layer, float64 (outputs, channels), and the sum of magnitudes behind each.

    It looks for its maps by itself, one intersection of keys an offset: the reference for all that is faster.
    Raises InputError for a layer without inputs.
    """
    inputs, weight = _features(layer).astype(np.float64), layer.weight.astype(np.float64)
    assert layer.coordinates is not None
    keys_in = pack(layer.coordinates)
    keys_out = keys_in if layer.output_coordinates is None else pack(layer.output_coordinates)
    sums, magnitudes = (np.zeros((len(keys_out), layer.shape[0])) for _ in range(2))
    is_transposed = layer.attributes["transposed"]
    for place, offset in enumerate(offsets(layer.attributes["kernel_size"], layer.attributes["tensor_stride"])):
        step = -shift(offset) if is_transposed else shift(offset)
        _, into, out = np.intersect1d(keys_in, keys_out + step, assume_unique=True, return_indices=True)
        sums[out] += inputs[into] @ weight[:, :, place].T
        magnitudes[out] += np.abs(inputs[into]) @ np.abs(weight[:, :, place].T)
    bias = _bias(layer)
    return (sums, magnitudes) if bias is None else (sums + bias, magnitudes + np.abs(bias))


def _features(layer: Layer) -> np.ndarray:
    if layer.op != "sparse_conv3d":
        raise InputError(f"layer {layer.name}: op must be sparse_conv3d to be convolved, not {layer.op}")
    if layer.inputs is None:
        raise InputError(
            f"layer {layer.name}: inputs are needed for values, and the layer has only its geometry; "
            "build the trace with features=True"
        )
    return layer.inputs


def _outputs(layer: Layer) -> int:
    assert layer.coordinates is not None
    return len(layer.coordinates if layer.output_coordinates is None else layer.output_coordinates)


def _bias(layer: Layer) -> np.ndarray | None:
    if layer.bias_codes is not None and layer.codebook is not None:
        return np.asarray(layer.codebook[layer.bias_codes])
    return layer.bias
