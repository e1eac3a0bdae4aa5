"""Check: the two engines against each other, and their numbers against numpy, on a user's own trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ..workloads.errors import InputError
from ..workloads.lowering import join, lower, reduction_axis
from ..workloads.lstm import run_lstm
from ..workloads.points.point_op import point_op
from ..workloads.points.sparse_conv import exact_convolution
from ..workloads.streamed import StreamedLayers
from ..workloads.trace import Layer, Trace
from .machine import Machine
from .memo import Memo
from .result import LayerResult
from .simulate import choose_layers

FLOAT32_STEP = float(np.finfo(np.float32).eps)
FLOAT32_LEAST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class LayerCheck:
    """What was found on one layer.

    ``differences``: the figures in which the engines differ, as "name: fast value, event value". ``max_abs_error`` and
    ``max_abs_reference``: the machine's output against numpy's in float64. ``numbers_agree``: every output is as near
    to numpy's as the machine's number formats allow, and the error is the one that the machine reports. ``saturated``:
    numbers that left the range of their format; where there are any, the formats bound nothing.
    """

    name: str
    cycles: int
    differences: list[str]
    max_abs_error: float
    max_abs_reference: float
    same_argmax: float
    numbers_agree: bool
    saturated: int = 0

    @property
    def passed(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.differences and self.numbers_agree


def check(
    machine: Machine, trace: Trace, *, layers: str | None = None, progress: Callable[[str], None] | None = None
) -> list[LayerCheck]:
    """Return what both engines and numpy make of each layer of ``trace``.

    Errors are those of `simulate`, and InputError for a machine that computes no values.
    """
    memo = Memo.for_trace(trace)
    checks = []
    chosen = choose_layers(trace, layers)
    for layer in chosen:
        if progress is not None:
            progress(layer.name)
        if layer.op == "sparse_conv3d" and layer.inputs is None:
            raise InputError(
                f"layer {layer.name}: a check compares values, and the layer has only its geometry; export it with "
                "--features"
            )
        fast, event = (machine.run(layer, engine, memo) for engine in ("fast", "event"))
        if fast.output is None:
            raise InputError(f"{machine.name}: a check compares values, and functional is false; set functional=true")
        bound = getattr(machine.engines, "error_bound", None)
        checks.append(_check(layer, fast, event, None if bound is None else bound(machine, layer)))
        if isinstance(chosen, StreamedLayers):
            memo.clear()  # nobody will see this layer again, but one that was read anew
        del layer  # or it would be in memory together with the next
    return checks


def _check(layer: Layer, fast: LayerResult, event: LayerResult, bound: np.ndarray | None) -> LayerCheck:
    mine, other = msgspec.to_builtins(fast), msgspec.to_builtins(event)
    differences = [_first_difference(name, mine[name], other[name]) for name in mine if mine[name] != other[name]]
    reference, magnitude = _numpy_output(layer)
    assert fast.output is not None and event.output is not None
    finite = np.isfinite(fast.output)
    error = float(np.abs(fast.output - reference).max(initial=0.0, where=finite))
    largest = float(np.abs(reference).max(initial=0.0))
    rounding = 1e-12 * magnitude  # of the float64 sums themselves
    saturated = 0
    if bound is None:
        # Sums of float32 products err by at most a step a term of the sum of magnitudes; near 0, of the least number.
        terms = int(np.prod(layer.shape[reduction_axis(layer) :]))
        bound = (terms + 1) * (FLOAT32_STEP * magnitude + FLOAT32_LEAST)
        same_output = bool((np.abs(fast.output - event.output) <= 2 * bound).all())
    else:
        same_output = np.array_equal(fast.output, event.output, equal_nan=True)
    agree = bool((np.abs(fast.output - reference) <= bound + rounding).all())
    if fast.arithmetic is not None:
        saturated = int(fast.arithmetic["saturated"])
        as_stated = abs(error - fast.arithmetic["max_abs_error"]) <= float(rounding.max(initial=0.0)) + 1e-300
        agree = as_stated and (agree or saturated > 0)
    if not same_output:
        differences.append(f"output: largest difference {np.abs(fast.output - event.output).max()}")
    same = float(np.mean(fast.output.argmax(axis=1) == reference.argmax(axis=1)))
    return LayerCheck(layer.name, fast.cycles, differences, error, largest, same, agree, saturated)


def _first_difference(name: str, mine: Any, other: Any) -> str:
    """Return where in the figure ``name`` the two first differ, and what each has there."""
    if isinstance(mine, dict) and isinstance(other, dict) and mine.keys() == other.keys():
        found = next(key for key in mine if mine[key] != other[key])
        return _first_difference(f"{name}.{found}", mine[found], other[found])
    if isinstance(mine, list | tuple) and isinstance(other, list | tuple) and len(mine) == len(other):
        place = next(i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1])
        return _first_difference(f"{name}[{place}]", mine[place], other[place])
    return f"{name}: {mine}, {other}"


def _numpy_output(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer's output in float64, (vectors, out), and the sum of magnitudes behind each value.

    What a point_op finds are whole numbers, behind which there is no sum; an LSTM's states lie within +-1 for each cell
    that is summed up.
    """
    if layer.op == "lstm":
        hidden = run_lstm(layer).hidden.reshape(-1, layer.shape[1] - layer.inputs.shape[2])
        if layer.projection is None:
            return hidden, np.ones(hidden.shape)
        return hidden, np.broadcast_to(np.abs(layer.projection.astype(np.float64)).sum(axis=1), hidden.shape)
    if layer.op == "sparse_conv3d":
        return exact_convolution(layer)
    if layer.op == "point_op":
        found = point_op(layer).astype(np.float64)
        return found, np.zeros(found.shape)
    outputs, magnitudes = [], []
    for product in lower(layer):
        weight, vectors = product.weight.astype(np.float64), product.vectors.astype(np.float64)
        bias = 0.0 if product.bias_values is None else product.bias_values.astype(np.float64)
        outputs.append(vectors @ weight.T + bias)
        magnitudes.append(np.abs(vectors) @ np.abs(weight).T + np.abs(bias))
    return join(layer, outputs), join(layer, magnitudes)
