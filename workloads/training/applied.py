"""Weights that a network applies by itself, past torch's layers: each use taken for the layer that it is.

`F.linear(x, w)`, `x @ w`, an einsum, a convolution whose kernel is standardized first, an embedding's table as the last
matrix: torch computes all of them by a few operations. One operand depends on the samples and the other does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .calls import Call, to_array

aten = torch.ops.aten
# By operation: which two arguments are multiplied.
BATCHED = {aten.bmm: (0, 1), aten.baddbmm: (1, 2)}
PLAIN = {aten.mm: (0, 1), aten.addmm: (1, 2), aten.mv: (0, 1), aten.addmv: (1, 2), aten.dot: (0, 1)}
MULTIPLY = (
    "_int_mm", "_scaled_mm", "_grouped_mm", "_weight_int8pack_mm", "_weight_int4pack_mm", "addbmm",
    "quantized_lstm", "quantized_gru",
)  # fmt: skip
QUANTIZED = ("linear", "conv", "lstm", "gru", "rnn", "matmul")


@dataclass(eq=False)
class Applied:
    """What is applied while samples go through a network.

    ``names``: the parameters and buffers by name. ``left``: by name, why an application is no layer. ``flipped``: the
    parameters that are the weight of a layer as they are, and whether they lie as (in, out). ``taken``: parameters that
    are in a layer, as its weight, as part of it or as its bias.
    """

    names: Mapping[str, torch.Tensor]
    batch: int
    left: dict[str, str] = field(default_factory=dict)
    flipped: dict[str, bool] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    _weights: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def product(
        self, owner: str, weight: torch.Tensor, inputs: torch.Tensor, origins: frozenset[str], bias: torch.Tensor | None
    ) -> Call | None:
        """Return the layer that multiplies ``inputs``, (..., in), by ``weight``, (out, in); None where it is listed."""
        if reason := _unfit(weight, inputs):
            self._leave(owner, reason, origins)
            return None
        rows = to_array(inputs).reshape(-1, weight.shape[1])
        spread = self.batch and len(rows) % self.batch == 0 and len(rows) > self.batch
        return self._call(
            owner, "linear", weight, rows.reshape(self.batch, -1, rows.shape[1]) if spread else rows, origins, bias
        )

    def convolution(self, owner: str, args: tuple[Any, ...], origins: frozenset[str]) -> Call | None:
        """Return the layer of ``args``, those of aten.convolution; None where it is listed."""
        inputs, weight, bias, stride, padding, dilation, transposed, _, groups = args
        sides = weight.ndim - 2
        if reason := _unfit(weight, inputs):
            self._leave(owner, reason, origins)
            return None
        if transposed or sides not in (1, 2):
            kind = "transposed convolution" if transposed else f"convolution of {sides} dimensions"
            self._leave(owner, f"a {kind} by function", origins)
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
            self._leave(owner, f"{func.namespace}::{name}", frozenset())

    def several(self, owner: str, origins: frozenset[str]) -> None:
        """List a batch of products with as many weights."""
        self._leave(owner, "a batch of products, each with a weight of its own", origins)

    def computed(self, owner: str) -> None:
        """List a convolution whose kernel depends on the samples, or on what changes with them."""
        self._leave(owner, "a convolution whose kernel is computed as the samples go through", frozenset())

    def _leave(self, owner: str, reason: str, origins: frozenset[str]) -> None:
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
        layer = name.removesuffix("weight").removesuffix(".") or name or (f"{owner}.{op}".removeprefix("."))
        layer = {"": op, "weight": "linear" if op == "linear" else "conv"}.get(layer, layer)
        array = to_array(weight[:, :, None] if rest.get("flat") else weight)
        lies = _lies(weight, self.names[name]) if name else None
        if lies is not None:
            self.flipped[name] = lies == "flipped"
        self.taken |= origins | self._named(bias)
        return Call(
            owner=owner,
            layer=self._unique(layer, array),
            op=op,
            parameter="" if lies is None else name,
            weight=array,
            bias=None if bias is None else to_array(bias),
            inputs=inputs,
            flipped=lies == "flipped",
            alone=True,
            **rest,
        )

    def _largest(self, origins: frozenset[str]) -> str:
        """Return the parameter or buffer that most of a weight was computed from, "" where there is none."""
        found = [name for name in origins if self.names[name].ndim > 1]
        return max(found, key=lambda name: (self.names[name].numel(), name), default="")

    def _named(self, bias: torch.Tensor | None) -> set[str]:
        place = None if bias is None else place_of(bias)
        return {name for name, each in self.names.items() if place_of(each) == place}

    def _unique(self, name: str, weight: np.ndarray) -> str:
        """Return ``name``, with a number where another weight has it: what is computed or cut out has none itself."""
        known = self._weights.setdefault(name, [])
        number = next((i for i, each in enumerate(known) if np.array_equal(each, weight)), len(known))
        if number == len(known):
            known.append(weight)
        return f"{name} [{number + 1}]" if number else name


def sole(weight: torch.Tensor) -> torch.Tensor | None:
    """Return the matrix that all of a batch share, None where they have one each."""
    return weight[0] if len(weight) == 1 or (len(weight) and weight.stride(0) == 0) else None


def _unfit(weight: torch.Tensor, inputs: torch.Tensor) -> str:
    for each in (weight, inputs):
        if each.layout != torch.strided:
            return f"a product with a tensor of layout {str(each.layout).removeprefix('torch.')}"
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


def place_of(tensor: torch.Tensor) -> int:
    """Return where the numbers of ``tensor`` lie: views of one array share it."""
    return tensor.untyped_storage().data_ptr()
