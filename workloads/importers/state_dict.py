"""A state dict alone as a trace: weights under the names they have in the module, activations drawn.

What a tensor is for is read from its name and shape, as torch.nn names its parameters. A state dict does not tell
strides and paddings: every convolution has stride 1 and no padding. What is no layer is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import one_line, read_container
from ..files.drawn import Draw
from ..files.masked import PACKED, ROLES, array_of_tensor, layers_by_name, natural
from ..files.npy import read_npz
from ..files.numbers import to_float32
from ..limits import ELEMENTS_LIMIT
from ..trace import Layer, Trace
from .masks import Masked, pattern_of, put_on

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", ".npz", *PICKLED)
UNDER = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params", "ema",
)  # fmt: skip
FOREIGN = re.compile(r"GLOBAL (?P<name>[\w.]*\w)")
RECURRENT = re.compile(r"(?P<module>.*?)\.?weight_(?P<kind>ih|hh)(?P<place>_l\d+(_reverse)?)?")
OF_MODULES = re.compile(
    r"_orig$|_mma_mask$|(^|\.)parametrizations\.|_proj_weight$|(^|\.)weight_(ih|hh)|running_mean$|num_batches_tracked$"
)
TABLE = re.compile(r"embed|(^|\.)(wte|wpe|shared)(\.|$)|relative_attention_bias", re.IGNORECASE)


def trace_of_state_dict(path: str | Path, *, draw: Draw | None = None) -> Trace:
    """Return the trace of the state dict in ``path``: .safetensors, .npz, or .pt, .pth, .ckpt, .bin without code in it.

    Inputs of every layer are drawn as ``draw`` says. The provenance lists, as ``not_simulated``, each tensor that is no
    layer, with the reason. Raises InputError naming file, rule and value.
    """
    path = Path(path)
    tensors = read_state_dict(path)
    try:
        return _trace(put_on(tensors), path, draw or Draw())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def is_state_dict(source: str) -> bool:
    """Tell whether ``source`` holds a whole module's state, and not masked weights or a trace: .safetensors and .npz.

    It does where a name is one that only modules and pruning tools give, or a tensor is of no layer; never where inputs
    or packed weights are among the tensors. False for what cannot be read.
    """
    path = Path(source)
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


def _shapes(path: Path) -> dict[str, _Shape]:
    """Return the shapes of the tensors in ``path``; none of what is a file of this package, or cannot be read."""
    if path.suffix.lower() == ".npz":
        try:
            return {name: _Shape(array.shape) for name, array in read_npz(path).items()}
        except InputError:
            return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if any(key.startswith("gossamer.") for key in file.metadata() or {}):
                return {}
            return {name: _Shape(tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        return {}


@dataclass(frozen=True, slots=True)
class _Shape:
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the state dict in ``path`` by name, numbers in names by value. Raises InputError."""
    match path.suffix.lower():
        case ".safetensors":
            container = read_container(path, "a state dict")
            found = {name: array_of_tensor(name, *tensor) for name, tensor in container.tensors.items()}
            return {name: found[name] for name in sorted(found, key=natural)}
        case ".npz":
            return read_npz(path)
        case suffix if suffix in PICKLED:
            return _unpickled(path)
        case suffix:
            raise InputError(f"{path}: the name of a state dict must end in {', '.join(SUFFIXES)}, not {suffix!r}")


def _unpickled(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of what torch.save wrote, no code of it run."""
    need("train", "torch")
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on formats it will give up
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = one_line(error.strerror or error)
        raise InputError(f"{path}: a state dict must be a readable file, and {reason}; check the path") from None
    except Exception as error:  # the unpickler and zip raise whatever the damage leads them into
        raise InputError(
            f"{path}: the file must hold tensors alone to be read without running code of it, and does not "
            f"({_obstacle(error):.120}); save model.state_dict(), best as .safetensors"
        ) from None
    state = _state_in(loaded)
    if state is None:
        met = f"the keys {', '.join(map(str, loaded))}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise InputError(f"{path}: the file must hold a state dict, and has {met:.200}; save model.state_dict()")
    return {name: _array(tensor, path, name) for name, tensor in state.items()}


def _obstacle(error: Exception) -> str:
    """Return what stands in the way of reading a pickle without code, as torch tells it."""
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is a program"
    found = FOREIGN.search(str(error))
    return f"it needs {found['name']}" if found else one_line(error).partition(". ")[0]


def _state_in(loaded: object) -> dict[str, Any] | None:
    """Return the tensors by name in ``loaded``, a state dict or a checkpoint that holds one."""
    import torch

    if not isinstance(loaded, Mapping):
        return None
    if loaded and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()):
        return dict(loaded)
    named = next((state for key in UNDER if key in loaded and (state := _state_in(loaded[key])) is not None), None)
    if named is not None:
        return named
    within = [value for value in loaded.values() if isinstance(value, Mapping) and _state_in(value) is not None]
    if len(within) == 1:  # under a name of the user's own
        return _state_in(within[0])
    # A state dict may hold what is no tensor beside its tensors, as numbers that a module keeps there.
    tensors = {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    plain = not within and any("." in str(key) for key in tensors)
    return tensors if plain and all(isinstance(key, str) for key in loaded) else None


def _array(tensor: Any, path: Path, name: str) -> np.ndarray:
    import torch

    where = f"{path}: tensor {one_line(name)}"
    if tensor.numel() > ELEMENTS_LIMIT:
        raise InputError(f"{where}: a tensor must have at most {ELEMENTS_LIMIT} elements, not {tuple(tensor.shape)}")
    try:
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.to(torch.float32)  # bfloat16 and narrower, which numpy has not
        found: np.ndarray = tensor.detach().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"{where}: must be a plain tensor of numbers, and is not: {one_line(error):.120}") from None
    return found


def _trace(found: Masked, path: Path, draw: Draw) -> Trace:
    parts, left = _parts(found)
    if not parts:
        met = "; ".join(f"{name}, {why}" for name, why in list(left.items())[:3]) or "it holds nothing"
        raise InputError(f"a state dict must hold a weight of a linear, convolution or recurrent layer: {met}")
    draw.check_needed(list(parts))
    layers = []
    for index, (name, (weight, bias, mask)) in enumerate(parts.items()):
        weight = to_float32(weight, f"layer {one_line(name)}: tensor weight") + np.float32(0)  # no negative zeros
        layers.append(
            Layer(
                name=name,
                op="linear" if weight.ndim == 2 else "conv2d",
                weight=weight,
                bias=None if bias is None else to_float32(bias, f"layer {one_line(name)}: tensor bias"),
                mask=mask,
                inputs=_inputs(index, weight.shape, draw, name),
                pattern=pattern_of(weight != 0 if mask is None else mask),
            )
        )
    notes: dict[str, Any] = {"not_simulated": left} if left else {}
    if found.unmasked:
        notes["unmasked"] = found.unmasked
    drawn = {"layers": list(parts)} | draw.provenance()
    provenance = {"source": f"state dict in {path.name}", "drawn_inputs": drawn} | notes
    return Trace(name=path.stem, layers=tuple(layers), provenance=provenance)


Part = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def _parts(found: Masked) -> tuple[dict[str, Part], dict[str, str]]:
    """Return weight, bias and mask by layer, and by tensor why it is of none."""
    parts: dict[str, Part] = {}
    left = dict(found.left)
    biases: set[str] = set()
    for name, weight in found.tensors.items():
        reason = _no_kernel(name, weight)
        if reason:
            left[name] = reason
            continue
        mask = found.masks.get(name)
        for layer, rows, bias_name in _matrices(name, len(weight)):
            bias = found.tensors.get(bias_name)
            if bias is not None and (bias.ndim != 1 or (rows.stop is not None and len(bias) < rows.stop)):
                bias = None
            bias = None if bias is None else bias[rows]
            if bias is not None and len(bias) == len(weight[rows]):
                biases.add(bias_name)
            else:
                bias = None
            layer = layer or "weight"
            if layer in parts:
                left[name] = f"a second weight of {layer}"
                continue
            flat = weight.ndim == 3
            cut, kept = weight[rows], None if mask is None else mask[rows]
            if flat:  # a convolution of one dimension has a height of 1
                cut, kept = cut[:, :, None], None if kept is None else kept[:, :, None]
            parts[layer] = (cut, bias, kept)
    return parts, {name: why for name, why in left.items() if name not in biases}


def _no_kernel(name: str, array: np.ndarray) -> str:
    """Return why the tensor is no matrix or kernel, "" where it is one."""
    last = name.rpartition(".")[2]
    if array.dtype.kind != "f":
        return f"{array.dtype} is no weight"
    if array.ndim < 2:
        return "one value a channel, as of a norm" if array.ndim else "a single number"
    if array.ndim > 4:
        return f"a weight of {array.ndim} dimensions"
    if TABLE.search(name):
        return "an embedding, by its name"
    if RECURRENT.fullmatch(name) or last in ("weight", "w", "in_proj_weight") or last.endswith("_proj_weight"):
        return "" if 0 not in array.shape else f"empty, {array.shape}"
    return f"a parameter called {last}, not weight"


def _matrices(name: str, height: int) -> list[tuple[str, slice, str]]:
    """Return layer, rows and name of the bias of each matrix that the parameter ``name`` of ``height`` rows holds."""
    owner, dot, last = name.rpartition(".")
    recurrent = RECURRENT.fullmatch(name)
    if recurrent:
        layer = f"{owner}{dot}{recurrent['kind']}{recurrent['place'] or ''}"
        return [(layer, slice(None), f"{owner}{dot}{last.replace('weight', 'bias', 1)}")]
    if last == "in_proj_weight" and height % 3 == 0:
        width = height // 3
        bias = f"{owner}{dot}in_proj_bias"
        return [
            (f"{owner}{dot}{part}_proj", slice(i * width, (i + 1) * width), bias)
            for i, part in enumerate(("q", "k", "v"))
        ]
    if last.endswith("_proj_weight"):
        return [(f"{owner}{dot}{last.removesuffix('_weight')}", slice(None), f"{owner}{dot}{last[:-6]}bias")]
    return [(owner, slice(None), f"{owner}{dot}bias")]


def _inputs(index: int, shape: tuple[int, ...], draw: Draw, name: str) -> np.ndarray:
    where = f"layer {one_line(name)}"
    if draw.act_density is None:
        raise InputError(f"{where}: inputs are needed, and a state dict has none; give act_density to draw some")
    if len(shape) == 2:
        return draw.activations(index, shape[1:])
    if draw.input_size is None:
        raise InputError(f"{where}: drawing the inputs of a convolution needs input_size (height, width); give it")
    return draw.activations(index, (shape[1], *draw.input_size))
