"""A state dict alone as a trace: weights under the names they have in the module, activations drawn.

What a tensor is for is read from its name and shape, as torch.nn names its parameters. A state dict does not tell
strides and paddings: every convolution has stride 1 and no padding. What is no layer is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.container import one_line
from ..files.drawn import Draw
from ..files.masked import OF_QUANTIZERS, PACKED, ROLES, layers_by_name
from ..files.npy import read_npz
from ..files.numbers import to_float32, without_negative_zeros
from ..files.streamed import STREAMED_FROM, naming
from ..streamed import StreamedLayers
from ..trace import Layer, Trace
from .masks import Masked, find_masks, pattern_of
from .tensors import INDEX, Info, Tensors, open_state_dict

RECURRENT = re.compile(r"(?P<module>.*?)\.?weight_(?P<kind>ih|hh)(?P<place>_l\d+(_reverse)?)?")
OF_MODULES = re.compile(
    r"_orig$|_mma_mask$|(^|\.)parametrizations\.|_proj_weight$|(^|\.)weight_(ih|hh)|running_mean$|num_batches_tracked$"
    f"|{OF_QUANTIZERS.pattern}"
)
TURNED = "a transposed convolution, by its bias"
TABLE = re.compile(
    r"embed(?!_out)|(^|[._])(emb|wte|wpe)([._]|$)|(^|\.)shared\.weight$|relative_attention_bias", re.IGNORECASE
)
LONGEST_KERNEL = 511  # places of a convolution of one dimension; what has more is matrices, stacked


def trace_of_state_dict(path: str | Path, *, draw: Draw | None = None) -> Trace:
    """Return the trace of the state dict in ``path``: .safetensors, .npz, or .pt, .pth, .ckpt, .bin without code in it.

    A .safetensors.index.json stands for the shards it names. Layers of what comes to 256 MiB or more in float32 stay in
    the files, each to be read when it is asked for. Inputs are drawn as ``draw`` says. The provenance lists, as
    ``not_simulated``, each tensor that is no layer, with the reason. Raises InputError naming file, rule and value.
    """
    path = Path(path)
    tensors = open_state_dict(path)
    with naming(path):
        return _trace(tensors, path, draw or Draw())


def is_state_dict(source: str) -> bool:
    """Tell whether ``source`` holds a whole module's state, and not masked weights or a trace: .safetensors and .npz.

    An index of shards does. Another file does where a name is one that only modules and pruning tools give, or a tensor
    is of no layer; never where inputs or packed weights are among the tensors. False for what cannot be read.
    """
    path = Path(source)
    if path.name.lower().endswith(INDEX):
        return path.is_file()
    shapes = _shapes(path) if path.suffix.lower() in (".safetensors", ".npz") and path.is_file() else {}
    last = {name.rpartition(".")[2] for name in shapes}
    if any(ROLES.get(each) == "inputs" for each in last) or any(name.endswith(PACKED) for name in shapes):
        return False
    if any(OF_MODULES.search(name) or TABLE.search(name) for name in shapes):
        return True
    try:
        layers_by_name(shapes, path.stem)
    except InputError:
        return any(shape.ndim in (2, 3, 4) for shape in shapes.values())
    return False


def _shapes(path: Path) -> dict[str, Info]:
    """Return what is known of the tensors in ``path``; none of what is a file of this package, or cannot be read."""
    if path.suffix.lower() == ".npz":
        try:
            return {name: Info(array.shape, array.dtype.name) for name, array in read_npz(path).items()}
        except InputError:
            return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if any(key.startswith("gossamer.") for key in file.metadata() or {}):
                return {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: Info(tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}
    except (SafetensorError, OSError, ValueError):
        return {}


def _trace(tensors: Tensors, path: Path, draw: Draw) -> Trace:
    found = find_masks(tensors.infos)
    parts, left = _parts(found, tensors.infos)
    left |= tensors.left
    if not parts:
        met = "; ".join(f"{name}, {why}" for name, why in list(left.items())[:3]) or "it holds nothing"
        raise InputError(f"a state dict must hold a weight of a linear, convolution or recurrent layer: {met}")
    names = list(parts)
    draw.check_needed(names)

    def load(index: int) -> Layer:
        name = names[index]
        where, part = f"layer {one_line(name)}", parts[name]
        with naming(path):
            weight, mask = (part.cut(array) for array in found.read(part.weight, tensors.read))
            assert weight is not None
            weight = without_negative_zeros(to_float32(weight, f"{where}: tensor weight"))
            bias = None if part.bias is None else found.read(part.bias, tensors.read)[0][part.bias_rows]
            return Layer(
                name=name,
                op="linear" if weight.ndim == 2 else "conv2d",
                weight=weight,
                bias=None if bias is None else to_float32(bias, f"{where}: tensor bias"),
                mask=mask,
                inputs=_inputs(index, weight.shape, draw, name),
                pattern=pattern_of(weight if mask is None else mask),
            )

    notes: dict[str, Any] = {"not_simulated": left} if left else {}
    turned = [name for name, part in parts.items() if part.turned]
    if turned:
        notes["turned"] = turned
    if found.unmasked:
        notes["unmasked"] = found.unmasked
    drawn = {"layers": names} | draw.provenance()
    provenance = {"source": f"state dict in {path.name}", "drawn_inputs": drawn} | notes
    layers = StreamedLayers(names, load)
    name = path.name.removesuffix(INDEX) if path.name.endswith(INDEX) else path.stem
    stay = sum(prod(info.shape) for info in tensors.infos.values()) >= STREAMED_FROM
    return Trace(name=name, layers=layers if stay else tuple(layers), provenance=provenance)


@dataclass(frozen=True, slots=True)
class Part:
    """A layer's part of a module: the parameter that holds its weight, which rows, and the one that holds its bias.

    ``flat``: the weight is that of a convolution of one dimension, which has a height of 1. ``turned``: it is a matrix
    that is stored (in, out).
    """

    weight: str
    rows: slice
    bias: str | None
    bias_rows: slice
    flat: bool
    turned: bool = False

    def cut(self, array: np.ndarray | None) -> np.ndarray | None:
        """Return the layer's own of the parameter or its mask."""
        if array is None:
            return None
        if self.rows != slice(None):
            array = array[self.rows].copy()  # not a view, which would keep the whole
        if self.turned:
            array = np.ascontiguousarray(array.T)
        return array[:, :, None] if self.flat else array


def _parts(found: Masked, infos: Mapping[str, Info]) -> tuple[dict[str, Part], dict[str, str]]:
    """Return what makes up each layer, and by tensor why it is of none."""
    parts: dict[str, Part] = {}
    left = dict(found.left)
    biases: set[str] = set()
    for name, tensor in found.values.items():
        info = infos[tensor]
        own_bias = found.values.get(f"{name.rpartition('.')[0]}.bias".lstrip("."))
        reason = _no_kernel(name, info, None if own_bias is None else infos[own_bias].shape)
        if reason:
            left.setdefault(name, reason)
            continue
        for layer, rows, bias_name, bias_rows in _matrices(name, info.shape[0]):
            layer = layer or "weight"
            if layer in parts:
                left[name] = f"a second weight of {layer}"
                continue
            shape = infos[found.values[bias_name]].shape if bias_name in found.values else ()
            fits = len(shape) == 1 and (shape[0] >= bias_rows.stop if bias_rows.stop else shape[0] == info.shape[0])
            turned = not fits and bias_rows == slice(None) and shape == info.shape[1:2]
            if turned and info.ndim > 2:
                left[name], left[bias_name] = TURNED, f"the bias of {TURNED}"
                continue
            bias = bias_name if fits or turned else None
            parts[layer] = Part(name, rows, bias, bias_rows, info.ndim == 3, turned)
            if fits or turned:
                biases.add(bias_name)
    shapes = {layer: infos[found.values[part.weight]].shape for layer, part in parts.items()}
    return _squares_turned(parts, shapes), {name: why for name, why in left.items() if name not in biases}


def _squares_turned(parts: dict[str, Part], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Part]:
    """Return ``parts``, each square matrix, of which the bias tells nothing, stored as most of its neighbours are.

    Those are the matrices that are not square, under the innermost of the modules around it that has any.
    """
    matrices = [
        name for name, part in parts.items() if part.bias and part.rows == slice(None) and len(shapes[name]) == 2
    ]
    told: dict[str, list[int]] = {}  # by module: matrices that are stored (in, out), and all
    for name in matrices:
        if shapes[name][0] != shapes[name][1]:
            for module in _around(name):
                counts = told.setdefault(module, [0, 0])
                counts[0] += parts[name].turned
                counts[1] += 1
    turned = {}
    for name in matrices:
        nearest = next((told[module] for module in _around(name) if module in told), (0, 0))
        if shapes[name][0] == shapes[name][1] and 2 * nearest[0] > nearest[1]:
            turned[name] = replace(parts[name], turned=True)
    return parts | turned


def _around(name: str) -> list[str]:
    """Return the modules around the layer ``name``, the innermost first, and "" last."""
    words = name.split(".")[:-1]
    return [".".join(words[:end]) for end in range(len(words), -1, -1)]


def _no_kernel(name: str, array: Info, bias: tuple[int, ...] | None) -> str:
    """Return why the tensor is no matrix or kernel, "" where it is one; ``bias``: the shape of the one beside it."""
    last = name.rpartition(".")[2]
    if OF_QUANTIZERS.search(name):
        return "packed by a quantizer: export the module instead"
    if not array.dtype.startswith("float"):
        return f"{array.dtype} is no weight"
    if array.ndim < 2:
        return "one value a channel, as of a norm or a bias" if array.ndim else "a single number"
    if array.ndim > 4:
        return f"a weight of {array.ndim} dimensions"
    if TABLE.search(name) and array.ndim == 2 and bias is None:
        return "an embedding, by its name"
    if bias == array.shape:
        return "one value an element, as of a norm"
    if array.ndim == 3 and bias is None and array.shape[2] > LONGEST_KERNEL:
        return "matrices, stacked, as of experts"
    if RECURRENT.fullmatch(name) or last in ("weight", "w", "in_proj_weight") or last.endswith("_proj_weight"):
        return "" if 0 not in array.shape else f"empty, {array.shape}"
    return f"a parameter called {last}, not weight"


def _matrices(name: str, height: int) -> list[tuple[str, slice, str, slice]]:
    """Return what the parameter ``name`` of ``height`` rows holds: layer, rows, and the bias and its rows, of each."""
    owner, dot, last = name.rpartition(".")
    every = slice(None)
    recurrent = RECURRENT.fullmatch(name)
    if recurrent:
        layer = f"{owner}{dot}{recurrent['kind']}{recurrent['place'] or ''}"
        return [(layer, every, f"{owner}{dot}{last.replace('weight', 'bias', 1)}", every)]
    thirds = {part: slice(i * height, (i + 1) * height) for i, part in enumerate(("q", "k", "v"))}
    if last == "in_proj_weight" and height % 3 == 0:
        thirds = {part: slice(i * (height // 3), (i + 1) * (height // 3)) for i, part in enumerate(thirds)}
        return [(f"{owner}{dot}{part}_proj", rows, f"{owner}{dot}in_proj_bias", rows) for part, rows in thirds.items()]
    part = last.removesuffix("_proj_weight")
    if part in thirds:  # an attention whose keys or values have a width of their own
        return [(f"{owner}{dot}{part}_proj", every, f"{owner}{dot}in_proj_bias", thirds[part])]
    if last.endswith("_proj_weight"):
        return [(f"{owner}{dot}{part}_proj", every, f"{owner}{dot}{last[:-6]}bias", every)]
    return [(owner, every, f"{owner}{dot}bias", every)]


def _inputs(index: int, shape: tuple[int, ...], draw: Draw, name: str) -> np.ndarray:
    where = f"layer {one_line(name)}"
    if draw.act_density is None:
        raise InputError(f"{where}: inputs are needed, and a state dict has none; give act_density to draw some")
    if len(shape) == 2:
        return draw.activations(index, shape[1:])
    if draw.input_size is None:
        raise InputError(f"{where}: drawing the inputs of a convolution needs input_size (height, width); give it")
    return draw.activations(index, (shape[1], *draw.input_size))
