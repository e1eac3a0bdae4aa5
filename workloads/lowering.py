"""Layers as matrix-vector products: what an accelerator that knows only those is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .errors import InputError
from .trace import Layer

PRODUCTS = ("linear", "conv2d", "matmul")


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix that meets ``vectors``, one after another.

    ``kept`` is (out, in): codes (uint8) where the layer has a codebook, float32 weights elsewhere. ``vectors`` is
    (count, in) float32. ``bias`` is (out,) of the dtype of ``kept``, None where there is none.
    """

    kept: np.ndarray
    vectors: np.ndarray
    bias: np.ndarray | None
    codebook: np.ndarray | None

    @property
    def weight(self) -> np.ndarray:
        """Return the matrix in float32, (out, in)."""
        return self.kept if self.codebook is None else self.codebook[self.kept]

    @property
    def bias_values(self) -> np.ndarray | None:
        """Return the bias in float32, (out,), or None."""
        return self.bias if self.bias is None or self.codebook is None else self.codebook[self.bias]

    @cached_property
    def with_bias(self) -> np.ndarray:
        """Return ``kept`` with the bias, where there is one, as one more column: it meets the activation 1.0."""
        return self.kept if self.bias is None else np.column_stack([self.kept, self.bias])


def lower(layer: Layer) -> list[Product]:
    """Return the products that compute ``layer``: one, one a group of a grouped convolution, or those of a matmul.

    A convolution is one product an output position: its vector is the patch of the padded input under the kernel, in
    the order (channel, row, column) of the weight. Vectors follow one another by sample, then row, then column.
    Raises InputError for a layer of another op.
    """
    check_product(layer)
    bias = layer.bias if layer.codes is None else layer.bias_codes
    if layer.op == "linear":
        vectors = np.ascontiguousarray(layer.inputs.reshape(-1, layer.inputs.shape[-1]))
        return [Product(np.ascontiguousarray(layer.kept), vectors, bias, layer.codebook)]
    if layer.op == "matmul":
        return [Product(weight, inputs, None, None) for weight, inputs in zip(layer.weight, layer.inputs, strict=True)]
    groups = layer.attributes["groups"]
    out, channels = layer.shape[0] // groups, layer.shape[1]
    products = []
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        kept = np.ascontiguousarray(layer.kept[rows].reshape(out, -1))
        vectors = _patches(layer, layer.inputs[:, group * channels : (group + 1) * channels])
        products.append(Product(kept, vectors, None if bias is None else bias[rows], layer.codebook))
    return products


def check_product(layer: Layer) -> None:
    """Raise InputError unless ``layer`` is one that products compute."""
    if layer.op not in PRODUCTS:
        raise InputError(
            f"layer {layer.name}: op must be one of {', '.join(PRODUCTS)} to be multiplied, not {layer.op}"
        )


def output_sides(layer: Layer) -> tuple[int, int]:
    """Return how many rows and columns of outputs a conv2d ``layer`` has."""
    stride, padding, dilation = (layer.attributes[name] for name in ("stride", "padding", "dilation"))
    tall, wide = (
        (size + 2 * padding[side] - dilation[side] * (layer.shape[2 + side] - 1) - 1) // stride[side] + 1
        for side, size in enumerate(layer.inputs.shape[2:])
    )
    return tall, wide


def reduction_axis(layer: Layer) -> int:
    """Return the axis of the weight of ``layer`` along which it is summed up."""
    return 2 if layer.op == "matmul" else 1


def join(layer: Layer, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the output of ``layer``, a row a vector, of the outputs of its products, (vectors, out) each.

    The groups of a convolution meet the same positions and lie side by side; the products of a matmul meet vectors of
    their own and lie below one another.
    """
    return np.concatenate(parts, axis=0 if layer.op == "matmul" else 1)


def _patches(layer: Layer, inputs: np.ndarray) -> np.ndarray:
    """Return the input under the kernel at every output position, (batch x positions, channels x kernel)."""
    (top, left), stride, dilation = (layer.attributes[name] for name in ("padding", "stride", "dilation"))
    kernel = layer.shape[2:]
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, top), (left, left)))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    # (batch, channels, rows, columns, kernel rows, kernel columns) -> positions first
    ordered = windows.transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(ordered).reshape(-1, inputs.shape[1] * kernel[0] * kernel[1])
