"""Plain masked weights, as any framework saves them: one .npz or .safetensors file with an array a name.

A 2-D array called ``X``, ``X.weight`` or ``X.w`` is the linear layer X, a 4-D one a conv2d with stride 1 and no
padding; ``X.bias``, ``X.mask`` and ``X.inputs`` (or ``X.input``, ``X.activations``) belong to it. ``X.weight.packed``
with ``X.weight.meta`` is a 2:4 weight as PyTorch's SparseSemiStructuredTensor holds it for CUTLASS, with
``X.weight.metadata`` the same with its metadata in the order of the weight. A file of one layer may leave the ``X.``
out: the layer is then named after the file. What fits nowhere is an error, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..trace import Layer, Trace
from .container import Container, one_line
from .drawn import Draw
from .numbers import NARROW, bfloat16_to_float32, narrow_to_float32, read_only, to_float32

ROLES = {
    "weight": "weight",
    "w": "weight",
    "bias": "bias",
    "mask": "mask",
    "inputs": "inputs",
    "input": "inputs",
    "activations": "inputs",
}
OPS = {2: "linear", 4: "conv2d"}
PACKED = ".packed"
METADATA = {".meta": True, ".metadata": False}  # whether its words are in CUTLASS's order
OF_TOOLS = re.compile(r"_orig$|_mma_(mask|pruned_p)$|(^|\.)parametrizations\.")  # see importers.masks
OF_QUANTIZERS = re.compile(r"(^|\.)(qweight|qzeros|g_idx)$")  # as GPTQ and AWQ store a weight


class HasShape(Protocol):
    """An array, or what is known of one that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the lengths of the sides."""

    @property
    def ndim(self) -> int:
        """Count the dimensions."""


Shaped = TypeVar("Shaped", bound=HasShape)


def trace_of_container_weights(container: Container, path: Path, draw: Draw) -> Trace:
    """Return the trace of the masked weights in a .safetensors file, layers ordered by name, numbers by value."""
    arrays = {name: array_of_tensor(name, *container.tensors[name]) for name in sorted(container.tensors, key=natural)}
    return trace_of_arrays(arrays, path, draw)


def array_of_tensor(name: str, dtype: str, array: np.ndarray) -> np.ndarray:
    """Return the values of the tensor ``name`` of a container, whose ``dtype`` numpy may not have."""
    if dtype in NARROW and not name.endswith(PACKED):  # what is packed is unpacked first
        return read_only(narrow_to_float32(array, dtype))
    return read_only(array != 0) if dtype == "BOOL" else array


def trace_of_arrays(arrays: Mapping[str, np.ndarray], path: Path, draw: Draw) -> Trace:
    """Return the trace named after ``path`` of the ``arrays`` it holds, layers in their order.

    Absent activations are drawn as ``draw`` says.

    Raises InputError naming file, layer, tensor, rule and value.
    """
    try:
        arrays, patterns = _unpacked(arrays)
        layers, drawn = [], []
        for index, (name, parts) in enumerate(layers_by_name(arrays, path.stem).items()):
            pattern = next((pattern for weight, pattern in patterns.items() if parts["weight"] is arrays[weight]), None)
            layers.append(_make_layer(index, name, parts, pattern or Pattern(), draw))
            if "inputs" not in parts:
                drawn.append(name)
        draw.check_needed(drawn)
        provenance: dict[str, object] = {"source": f"masked weights in {path.name}"}
        if drawn:
            provenance["drawn_inputs"] = {"layers": drawn} | draw.provenance()
        return Trace(name=path.stem, layers=tuple(layers), provenance=provenance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _unpacked(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Pattern]]:
    """Return the arrays with every packed weight as a dense one under its own name, and the patterns of these."""
    bases = {name.removesuffix(PACKED) for name in arrays if name.endswith(PACKED)}
    if not bases:
        return dict(arrays), {}
    from ..formats.nm import decode  # numba
    from ..formats.nm_torch import from_torch

    found, patterns = {}, {}
    for name, array in arrays.items():
        base = name.removesuffix(PACKED)
        if name == base:
            owner, dot, last = name.rpartition(".")
            if owner not in bases or dot + last not in METADATA:
                found[name] = array
            continue
        beside = [base + suffix for suffix in ("", *METADATA) if base + suffix in arrays]
        if base in beside or len(beside) > 1:
            raise InputError(
                f"{one_line(name)} must come with metadata alone, in one order, and comes with "
                f"{one_line(', '.join(beside))}; leave out all but one of these"
            )
        words = arrays[beside[0]] if beside else None
        reordered = bool(beside) and METADATA[beside[0].removeprefix(base)]
        nm = from_torch(array, words, reordered=reordered, where=f"tensor {one_line(name)}")
        weight = decode(nm)
        if array.dtype in (np.int16, np.uint16):  # words of bfloat16, which numpy has not
            weight = bfloat16_to_float32(weight.view(np.uint16))
        found[base] = read_only(weight)
        patterns[base] = Pattern("n:m", n=nm.n, m=nm.m, axis=1)
    return found, patterns


def layer_of_arrays(index: int, arrays: Mapping[str, np.ndarray], stem: str, draw: Draw) -> Layer:
    """Return the one layer, the file's ``index``-th, that ``arrays`` are of. Raises InputError."""
    arrays, patterns = _unpacked(arrays)
    ((name, parts),) = layers_by_name(arrays, stem).items()
    pattern = next((pattern for weight, pattern in patterns.items() if parts["weight"] is arrays[weight]), None)
    return _make_layer(index, name, parts, pattern or Pattern(), draw)


def layers_by_name(arrays: Mapping[str, Shaped], stem: str) -> dict[str, dict[str, Shaped]]:
    """Return the arrays of each layer by role; raises InputError listing the names that have no place."""
    layers: dict[str, dict[str, Shaped]] = {}
    spare = []
    for name in arrays:
        if OF_TOOLS.search(name):
            raise InputError(
                f"{one_line(name)!r} is one of a pruning tool's parts of a weight, not a whole one; "
                "gossamer export puts such parts together"
            )
        if OF_QUANTIZERS.search(name):
            raise InputError(
                f"{one_line(name)!r} is one of a quantizer's packed parts of a weight, not a whole one; "
                "save the weights as floats, or export the module"
            )
    for name, array in arrays.items():
        layer, _, last = name.rpartition(".")
        role = ROLES.get(last)
        if role is None:
            layer, role = name, "weight"
        layer = layer or stem
        if role == "weight" and array.ndim not in OPS:
            spare.append(name)
            continue
        parts = layers.setdefault(layer, {})
        if role in parts:
            raise InputError(f"layer {layer} must have one {role}, and {name!r} is a second; remove one")
        parts[role] = array
    headless = {layer for layer, parts in layers.items() if "weight" not in parts}
    spare += [name for name in arrays if (name.rpartition(".")[0] or stem) in headless and name not in spare]
    if spare:
        met = ", ".join(f"{name} {arrays[name].shape}" for name in sorted(spare, key=natural))
        raise InputError(
            "every array must be a weight of 2 or 4 dimensions, or the bias, inputs or mask of one, "
            f"and these are not: {one_line(met)}; remove or rename them, "
            "or give a model's file to gossamer export, which names what is no layer"
        )
    if not layers:
        raise InputError("at least one weight of 2 or 4 dimensions is needed, and there is none")
    return layers


def _make_layer(index: int, name: str, parts: dict[str, np.ndarray], pattern: Pattern, draw: Draw) -> Layer:
    where = f"layer {one_line(name)}"
    weight = to_float32(parts["weight"], f"{where}: tensor weight")
    op = OPS[weight.ndim]
    inputs = parts.get("inputs")
    if inputs is None:
        inputs = _draw_inputs(index, op, weight.shape, draw, where)
    else:
        inputs = to_float32(inputs, f"{where}: tensor inputs")
        if inputs.ndim == weight.ndim - 1:
            inputs = inputs[np.newaxis]  # one sample without its batch
    bias = parts.get("bias")
    attributes = {}
    # Channels that are a multiple of the weight's can only be those of a grouped convolution.
    if (
        op == "conv2d"
        and inputs.ndim == 4
        and inputs.shape[1]
        and weight.shape[1]
        and not inputs.shape[1] % weight.shape[1]
    ):
        attributes["groups"] = inputs.shape[1] // weight.shape[1]
    return Layer(
        name=name,
        op=op,
        weight=weight,
        bias=None if bias is None else to_float32(bias, f"{where}: tensor bias"),
        mask=_to_mask(parts.get("mask"), where),
        inputs=inputs,
        pattern=pattern,
        attributes=attributes,
    )


def _draw_inputs(index: int, op: str, shape: tuple[int, ...], draw: Draw, where: str) -> np.ndarray:
    if draw.act_density is None:
        raise InputError(f"{where}: inputs are needed, and there are none; add them, or give act_density to draw some")
    if op == "linear":
        return draw.activations(index, shape[1:])
    if draw.input_size is None:
        raise InputError(f"{where}: drawing the inputs of a conv2d needs input_size (height, width); give it")
    return draw.activations(index, (shape[1], *draw.input_size))


def _to_mask(mask: np.ndarray | None, where: str) -> np.ndarray | None:
    if mask is None or mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iuf" or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"{where}: tensor mask must hold only 0 and 1, and its dtype is {mask.dtype}; write it as bool"
        )
    return np.asarray(mask != 0)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts fc2 before fc10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]
