"""Operators that onnx's reference evaluator lacks or gets wrong, in the versions that models in use have.

What differs was found by comparing both with onnxruntime, operator by operator (onnx 1.23): batch norms before version
14 take the batch's own mean, softmax before 13 is not over all later axes, pooling misplaces padding, GlobalMaxPool is
right in two dimensions alone, LRN sums over as many channels as there are samples. ConvTranspose, Erf and with it Gelu
are right, and take much time or memory. Source of what is right: the ONNX operator schemas,
https://onnx.ai/onnx/operators. Needs the extra `onnx`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product as places_of
from math import prod
from typing import Any

import numpy as np

from .onnx_bounds import check_padding

BLOCK = 2**16  # numbers
# From which version the reference evaluator's own operators are right.
COERCED, NORMED, RESIZED, ZEROED = 13, 14, 11, 19


def own_operators(model: Any) -> list[Any]:
    """Return the operators to take instead of the reference evaluator's for ``model``, by its opset."""
    version = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=1)
    plain: dict[str, Callable[..., Any]] = {
        "GlobalMaxPool": lambda x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True),
        "GatherElements": gather_elements,
        "OneHot": one_hot,
        "Erf": erf,
        "Gelu": gelu,
        "LRN": local_response,
    }
    if version < COERCED:
        plain |= {"Softmax": softmax, "LogSoftmax": log_softmax, "Hardmax": hardmax}
    if version < NORMED:
        plain["BatchNormalization"] = batch_normalization
    if version < RESIZED:
        plain |= {"Upsample": resize, "Resize": resize}
    if version < ZEROED:
        plain["DequantizeLinear"] = dequantize_linear
    made = [_operator(name, act) for name, act in plain.items()]
    partly: dict[str, Callable[..., Any]] = {
        "MaxPool": _max_pool,
        "ConvTranspose": _transposed,
        "LSTM": _lengths,
        "GRU": _lengths,
        "RNN": _lengths,
    }
    return made + [each for name, act in partly.items() if (each := _partly(name, act, version)) is not None]


def _operator(name: str, act: Callable[..., Any]) -> Any:
    from onnx.reference.op_run import OpRun

    def run(self: Any, *inputs: Any, **attributes: Any) -> tuple[Any]:
        stated = {each.name for each in self.onnx_node.attribute}  # defaults would be those of the newest version
        return (act(*inputs, **{name: value for name, value in attributes.items() if name in stated}),)

    return type(name, (OpRun,), {"op_domain": "", "_run": run})


def _partly(name: str, act: Callable[..., Any], version: int) -> Any:
    """Return an operator that does what ``act`` returns, and what the reference evaluator's does where that is None.

    None where the reference evaluator has none of this version.
    """
    from onnx.reference.ops import load_op

    try:
        base = load_op("", name, version)
    except Exception:  # its own, of which kind is not said
        return None

    def run(self: Any, *inputs: Any, **attributes: Any) -> Any:
        found = act(self.onnx_node, *inputs, **attributes)
        return base._run(self, *inputs, **attributes) if found is None else (found,)

    return type(name, (base,), {"op_domain": "", "_run": run})


def batch_normalization(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray, **options: Any
) -> np.ndarray:
    """Return ``x`` normalized by the given mean and variance of each channel, as in use after training."""
    side = (-1, *[1] * (x.ndim - 2))
    scale, bias, mean, var = (each.reshape(side) for each in (scale, bias, mean, var))
    normed: np.ndarray = scale * (x - mean) / np.sqrt(var + options.get("epsilon", 1e-5)) + bias
    return normed.astype(x.dtype)


def softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """Return the softmax over ``axis`` and all axes behind it together, as before version 13."""
    rows = _rows(x, axis)
    raised = np.exp(rows - rows.max(axis=1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return shares.reshape(x.shape).astype(x.dtype)


def log_softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """Return the logarithm of `softmax`."""
    rows = _rows(x, axis)
    rows = rows - rows.max(axis=1, keepdims=True)
    found: np.ndarray = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return found.reshape(x.shape).astype(x.dtype)


def hardmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """Return 1 at the first largest over ``axis`` and all axes behind it together, else 0, as before version 13."""
    rows = _rows(x, axis)
    found = np.zeros(rows.shape, x.dtype)
    found[np.arange(len(rows)), rows.argmax(axis=1)] = 1
    return found.reshape(x.shape)


def _rows(x: np.ndarray, axis: int) -> np.ndarray:
    before = prod(x.shape[: axis + x.ndim if axis < 0 else axis])
    return x.reshape(before, -1)


def gather_elements(data: np.ndarray, indices: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return of ``data`` along ``axis`` what ``indices`` name, which may be shorter along the others."""
    axis %= data.ndim
    cut = tuple(slice(None) if side == axis else slice(size) for side, size in enumerate(indices.shape))
    return np.take_along_axis(data[cut], np.asarray(indices, np.int64), axis)


def one_hot(indices: np.ndarray, depth: np.ndarray, values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return ``values[1]`` where the new ``axis`` is at the index, ``values[0]`` elsewhere."""
    count = int(np.asarray(depth).reshape(-1)[0])
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    found = np.expand_dims(indices, axis) % count == np.arange(count).reshape([-1, *[1] * (indices.ndim - axis)])
    made: np.ndarray = np.where(found, values[1], values[0]).astype(values.dtype)
    return made


def local_response(
    x: np.ndarray, size: int = 1, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> np.ndarray:
    """Return ``x`` divided by a power of what the squares of ``size`` neighbouring channels come to."""
    channels = np.arange(x.shape[1])
    sums = np.concatenate([np.zeros_like(x[:, :1], np.float64), np.cumsum(np.square(x, dtype=np.float64), axis=1)], 1)
    last = np.minimum(channels + size // 2 + 1, len(channels))
    near = sums[:, last] - sums[:, np.maximum(channels - (size - 1) // 2, 0)]
    found: np.ndarray = x / (bias + alpha / size * near) ** beta
    return found.astype(x.dtype)


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of each of ``x``, a block at a time: numbers on the way are objects."""
    act, found = np.vectorize(math.erf, otypes=["d"]), np.empty(x.size, x.dtype)
    rest = x.reshape(-1)
    for first in range(0, x.size, BLOCK):
        found[first : first + BLOCK] = act(rest[first : first + BLOCK])
    return found.reshape(x.shape)


def gelu(x: np.ndarray, approximate: str | bytes = "none") -> np.ndarray:
    """Return x times the share of a normal distribution below it, a block at a time, in float64 on the way."""
    found, rest = np.empty(x.size, x.dtype), x.reshape(-1)
    for first in range(0, x.size, BLOCK):
        part = rest[first : first + BLOCK].astype(np.float64)
        if approximate in ("tanh", b"tanh"):
            share = np.tanh(math.sqrt(2 / math.pi) * (part + 0.044715 * part**3))
        else:
            share = erf(part / math.sqrt(2))
        found[first : first + BLOCK] = 0.5 * part * (1 + share)
    return found.reshape(x.shape)


def dequantize_linear(
    x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None, axis: int = 1, **newer: Any
) -> np.ndarray:
    """Return what the integers ``x`` stand for."""
    side = [1] * x.ndim
    if np.size(scale) > 1:
        side[axis] = -1
    shift = 0 if zero is None else zero.astype(np.float32).reshape(side)
    found: np.ndarray = (x.astype(np.float32) - shift) * scale.reshape(side)
    return found


def resize(x: np.ndarray, scales: Any = None, mode: str | None = None, **options: Any) -> np.ndarray:
    """Return ``x`` with every side times its scale, as before version 11: the first element stays where it is."""
    for side, scale in enumerate(np.asarray(options.get("scales", scales), np.float32).tolist()):
        if scale == 1:
            continue
        size = x.shape[side]
        at = np.arange(int(np.floor(np.float32(size) * np.float32(scale)))) / scale
        low = np.clip((np.ceil(at) if mode != "linear" and scale < 1 else np.floor(at)).astype(int), 0, size - 1)
        taken = np.take(x, low, side)
        if mode == "linear":
            part = np.minimum(at - low, 1).reshape([-1, *[1] * (x.ndim - side - 1)]).astype(np.float32)
            taken = taken * (1 - part) + np.take(x, np.minimum(low + 1, size - 1), side) * part
        x = taken.astype(x.dtype)
    return x


def _max_pool(node: Any, x: np.ndarray, **options: Any) -> np.ndarray | None:
    if len(node.output) > 1 and node.output[1]:
        return None  # where each came from is asked for too
    kernel = options["kernel_shape"]
    sides = len(kernel)
    stride = options.get("strides") or [1] * sides
    spread = options.get("dilations") or [1] * sides
    pads, auto = options.get("pads") or [0] * 2 * sides, options.get("auto_pad") or "NOTSET"
    span = [each * (size - 1) + 1 for each, size in zip(spread, kernel, strict=True)]
    counts, extra = [], []
    for size, step, reach, before, after in zip(x.shape[2:], stride, span, pads[:sides], pads[sides:], strict=True):
        count, first = _windows(size, step, reach, (before, after), auto, bool(options.get("ceil_mode")))
        counts.append(count)
        extra.append((first, max((count - 1) * step + reach - size - first, 0)))
    check_padding(node, x.shape, extra)
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = np.pad(x, [(0, 0), (0, 0), *extra], constant_values=least)
    for side in range(sides):  # a window is a rectangle: one side after the other
        axis, found = side + 2, None
        for place in range(kernel[side]):
            cells = (slice(None),) * axis + tuple(_every([place], [spread[side]], [stride[side]], [counts[side]]))
            found = padded[cells] if found is None else np.maximum(found, padded[cells])
        padded = padded if found is None else found
    return padded


def _windows(size: int, step: int, reach: int, pads: tuple[int, int], auto: str, ceil: bool) -> tuple[int, int]:
    """Return how many windows a side has, and how many cells lie before its first."""
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        count = -(-size // step)
        missing = max((count - 1) * step + reach - size, 0)
        return count, missing // 2 if auto == "SAME_UPPER" else missing - missing // 2
    before, after = (0, 0) if auto == "VALID" else pads
    room = size + before + after - reach
    count = (-(-room // step) if ceil else room // step) + 1
    return count - (ceil and (count - 1) * step >= size + before), before  # no window begins behind the cells


def _every(place: Iterable[int], spread: Sequence[int], stride: Sequence[int], counts: Sequence[int]) -> list[slice]:
    """Return the cells that all windows have at ``place`` of the kernel."""
    firsts = [at * each for at, each in zip(place, spread, strict=True)]
    return [
        slice(first, first + (count - 1) * step + 1, step)
        for first, step, count in zip(firsts, stride, counts, strict=True)
    ]


def _transposed(
    node: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    groups = options.get("group") or 1
    kernel, sides = weight.shape[2:], x.ndim - 2
    stride = options.get("strides") or [1] * sides
    spread = options.get("dilations") or [1] * sides
    behind = options.get("output_padding") or [0] * sides
    pads, auto = list(options.get("pads") or [0] * 2 * sides), options.get("auto_pad") or "NOTSET"
    whole = [
        (size - 1) * step + each * (side - 1) + 1 + more
        for size, step, each, side, more in zip(x.shape[2:], stride, spread, kernel, behind, strict=True)
    ]
    wanted = options.get("output_shape")
    if not wanted and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * step for size, step in zip(x.shape[2:], stride, strict=True)]
    if wanted:
        surplus = [max(size - out, 0) for size, out in zip(whole, wanted, strict=True)]
        small, large = [each // 2 for each in surplus], [each - each // 2 for each in surplus]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    channels = groups * weight.shape[1]
    check_padding(node, (len(x), channels, *whole), [(0, 0)] * sides)
    found = np.zeros((len(x), groups, weight.shape[1], *whole), np.result_type(x, weight))
    cells = x.reshape(len(x), groups, -1, prod(x.shape[2:]))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    for place in places_of(*map(range, kernel)):
        part = np.swapaxes(split[_at(place)], 1, 2) @ cells
        found[_at(_every(place, spread, stride, x.shape[2:]))] += part.reshape(*part.shape[:3], *x.shape[2:])
    found = found.reshape(len(x), channels, *whole)
    cut: np.ndarray = found[_at(slice(pads[i], whole[i] - pads[sides + i]) for i in range(sides))]
    return cut if bias is None else cut + bias.reshape(-1, *[1] * sides)


def _at(sides: Iterable[Any]) -> Any:
    """Return the index of these last sides."""
    return (..., *sides)


def _lengths(node: Any, x: np.ndarray, w: Any, r: Any, b: Any = None, lengths: Any = None, *_: Any, **__: Any) -> None:
    """Raise ValueError for sequences that end before the others: the reference evaluator goes on."""
    if lengths is not None and np.any(np.asarray(lengths) != len(x)):
        raise ValueError("sequences of several lengths are not known to the reference evaluator")
