"""Weights that a network applies by itself, past torch's layers: each use taken for the layer that it is.

`F.linear(x, w)`, `x @ w`, an einsum, a convolution whose kernel is standardized first, an embedding's table as the last
matrix: torch computes all of them by a few operations. One operand depends on the samples and the other does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

from ..pruning import Masks
from .calls import Call, to_array

aten = torch.ops.aten
# By operation: which two arguments are multiplied.
BATCHED = {aten.bmm: (0, 1), aten.baddbmm: (1, 2)}
PLAIN = {
    aten.mm: (0, 1), aten.addmm: (1, 2), aten.mv: (0, 1), aten.addmv: (1, 2), aten.dot: (0, 1),
    aten._sparse_addmm: (1, 2), aten._sparse_mm_reduce_impl: (0, 1),
}  # fmt: skip
MULTIPLY = (
    "_int_mm", "_trilinear", "_scaled_mm", "_grouped_mm", "_weight_int8pack_mm", "_weight_int4pack_mm", "addbmm",
    "quantized_lstm", "quantized_gru", "hspmm", "sspaddmm", "sparse_sampled_addmm",
    "mkldnn_linear", "mkldnn_convolution", "mkldnn_rnn_layer",
)  # fmt: skip
QUANTIZED = ("linear", "conv", "lstm", "gru", "rnn", "matmul")


@dataclass(eq=False)
class Applied:
    """What is applied while samples go through a network.

    ``names``: the parameters and buffers by name, times their ``masks``. ``left``: by name, why an application is no
    layer. ``flipped``: the parameters that are the weight of a layer as they are, and whether they lie as (in, out).
    ``taken``: parameters that are in a layer, as its weight, as part of it or as its bias.
    """

    names: Mapping[str, torch.Tensor]
    batch: int
    masks: Masks = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    flipped: dict[str, bool] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def product(
        self, owner: str, weight: torch.Tensor, inputs: torch.Tensor, origins: frozenset[str], bias: torch.Tensor | None
    ) -> Call | None:
        """Return the layer that multiplies ``inputs``, (..., in), by ``weight``, (out, in); None where it is listed."""
        if reason := unfit(weight, inputs):
            self.leave(owner, reason, origins)
            return None
        rows = to_array(inputs).reshape(prod(inputs.shape[:-1]), weight.shape[1])
        spread = self.batch and len(rows) % self.batch == 0 and len(rows) > self.batch
        return self._call(
            owner, "linear", weight, rows.reshape(self.batch, -1, rows.shape[1]) if spread else rows, origins, bias
        )

    def convolution(self, owner: str, args: tuple[Any, ...], origins: frozenset[str]) -> Call | None:
        """Return the layer of ``args``, those of aten.convolution; None where it is listed."""
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = args
        sides = weight.ndim - 2
        if reason := unfit(weight, inputs):
            self.leave(owner, reason, origins)
            return None
        if transposed or sides not in (1, 2):
            kind = "transposed convolution" if transposed else f"convolution of {sides} dimensions"
            self.leave(owner, f"a {kind} by function", origins)
            return None
        pairs = {"stride": stride, "padding": padding, "dilation": dilation}
        pairs = {key: list(each) * (sides if len(each) == 1 else 1) for key, each in pairs.items()}
        flat = sides == 1
        if flat:
            pairs = {key: [int(key != "padding"), *each] for key, each in pairs.items()}
        return self._call(
            owner,
            "conv2d",
            weight,
            to_array(inputs[:, :, None] if flat else inputs),
            origins,
            bias,
            flat=flat,
            attributes={key: tuple(int(each) for each in pair) for key, pair in pairs.items()} | {"groups": groups},
        )

    def unknown(self, owner: str, func: Any) -> None:
        """List the operation ``func`` where it multiplies by weights that are packed, or not floating-point numbers."""
        name = func.overloadpacket.__name__
        quantized = func.namespace not in ("aten", "prim") and any(word in name for word in QUANTIZED)
        if name in MULTIPLY or (quantized and not name.endswith(("prepack", "unpack"))):
            self.leave(owner, f"{func.namespace}::{name}", frozenset())

    def several(self, owner: str, origins: frozenset[str]) -> None:
        """List a batch of products with as many weights."""
        self.leave(owner, "a batch of products, each with a weight of its own", origins)

    def computed(self, owner: str) -> None:
        """List a convolution whose kernel depends on the samples, or on what changes with them."""
        self.leave(owner, "a convolution whose kernel is computed as the samples go through", frozenset())

    def leave(self, owner: str, reason: str, origins: frozenset[str]) -> None:
        """List the parameter that most of a weight was made of, else the module ``owner``, with the ``reason``."""
        self.left[self._largest(origins) or owner or "network"] = reason

    def _call(
        self,
        owner: str,
        op: str,
        weight: torch.Tensor,
        inputs: np.ndarray,
        origins: frozenset[str],
        bias: torch.Tensor | None,
        **rest: Any,
    ) -> Call:
        name = self._largest(origins)
        lies = _lies(weight, self.names[name]) if name else None
        if lies is not None:  # a parameter that is applied either way lies as (out, in)
            self.flipped[name] = lies == "flipped" and self.flipped.get(name, True)
        self.taken |= origins
        return Call(
            owner=owner,
            layer=name.removesuffix(".weight") or f"{owner}.{op}".removeprefix("."),
            op=op,
            parameter=name,
            weight=to_array(weight[:, :, None] if rest.get("flat") else weight),
            bias=None if bias is None else to_array(bias),
            inputs=inputs,
            alone=True,
            part=lies != "straight",
            kept=None if lies == "straight" else self._kept(name, weight),
            **rest,
        )

    def sources(self, tensor: torch.Tensor, origins: frozenset[str]) -> frozenset[str]:
        """Return those of ``origins``, parameters in the array of ``tensor``, that it lies in: one may hold many."""
        if len(origins) < 2:
            return origins
        return frozenset(name for name in origins if _begins_in(tensor, self.names[name])) or origins

    def _largest(self, origins: frozenset[str]) -> str:
        """Return the parameter or buffer that most of a weight was computed from, "" where there is none.

        A vector is that of a weight that no matrix went into; a number is none.
        """
        found = [name for name in origins if self.names[name].ndim]
        return max(found, key=lambda name: (self.names[name].ndim > 1, self.names[name].numel(), name), default="")

    def _kept(self, name: str, weight: torch.Tensor) -> np.ndarray | None:
        """Return which places of ``weight``, made of the parameter ``name``, its mask left; None where it lost none."""
        mask = self.masks.get(name)
        if mask is None:
            return None
        whole = self.names[name]
        if place_of(weight) == place_of(whole):
            kept = torch.empty_strided(whole.shape, whole.stride(), dtype=torch.bool).copy_(torch.from_numpy(mask))
            first = weight.storage_offset() - whole.storage_offset()
            found: np.ndarray = kept.as_strided(weight.shape, weight.stride(), first).numpy().copy()
            return found
        found = to_array(weight) != 0
        return found if found.mean() <= mask.mean() else None  # a kernel that is centred, say, is dense again


def sole(weight: torch.Tensor, computed: bool = False) -> torch.Tensor | None:
    """Return the matrix that all of a batch share, None where they have one each.

    ``computed``: as many copies of a matrix, equal to the bit, are one: else it would hang on the batch what it is.
    """
    if len(weight) == 1 or (len(weight) and weight.stride(0) == 0):
        return weight[0]
    return weight[0] if computed and len(weight) and all(torch.equal(weight[0], each) for each in weight[1:]) else None


def unfit(*operands: torch.Tensor) -> str:
    """Return why a product of these is none that a layer can hold, "" where it is."""
    for each in operands:
        if each.layout != torch.strided or each.is_nested:
            kind = "nested" if each.is_nested else str(each.layout).removeprefix("torch.")
            return f"a product with a tensor of layout {kind}"
        if not each.is_floating_point():
            return f"a product of {str(each.dtype).removeprefix('torch.')}"
    return ""


def _lies(weight: torch.Tensor, whole: torch.Tensor) -> str | None:
    """Return whether ``weight`` is the array ``whole`` "straight" or "flipped", None where it is only made of it."""
    if place_of(weight) != place_of(whole) or weight.storage_offset() != whole.storage_offset():
        return None
    if (weight.shape, weight.stride()) == (whole.shape, whole.stride()):
        return "straight"
    turned = weight.ndim == 2 and (weight.T.shape, weight.T.stride()) == (whole.shape, whole.stride())
    return "flipped" if turned else None


def _begins_in(tensor: torch.Tensor, whole: torch.Tensor) -> bool:
    """Tell whether ``tensor``, in the same array as ``whole``, begins where numbers of that lie."""
    if storage_of(tensor) is None:
        return True
    span = sum((side - 1) * step for side, step in zip(whole.shape, whole.stride(), strict=True))
    return 0 <= tensor.storage_offset() - whole.storage_offset() <= span


def place_of(tensor: torch.Tensor) -> int:
    """Return where the numbers of ``tensor`` lie: views of one array share it. One that has no array is a place."""
    storage = storage_of(tensor)
    return -id(tensor) if storage is None else storage.data_ptr()


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """Return the array of ``tensor``, None where it has none: it is sparse, opaque, without elements or a wrapper."""
    try:
        storage = tensor.untyped_storage()
        return storage if storage.data_ptr() else None
    except (NotImplementedError, RuntimeError):
        return None
