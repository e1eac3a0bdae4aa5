"""Other inputs through a network that is a plain chain: the trace itself tells what lies between its layers.

Between one layer and the next there may be ReLU, GELU or nothing, then a flattening, or a mean over the positions. It
is what turns the recorded outputs of the one into the recorded inputs of the other; where nothing does, the network
is no such chain and only its own program can run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..lowering import output_sides
from ..trace import Layer, Trace
from .layers import changed, output_of, renamed

Act = Callable[[np.ndarray], np.ndarray]
ERROR = 1e-4  # how far, of the largest, a value worked out may lie from the recorded one


def _nothing(values: np.ndarray) -> np.ndarray:
    return values


def _relu(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(values, 0))


def _gelu(values: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    gelu: np.ndarray = values * 0.5 * (1 + erf(values / math.sqrt(2)))
    return gelu


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _mean(values: np.ndarray) -> np.ndarray:
    mean: np.ndarray = values.mean(axis=tuple(range(2, values.ndim))) if values.ndim > 2 else values
    return mean


ACTIVATIONS: tuple[Act, ...] = (_relu, _nothing, _gelu)
SHAPES: tuple[Act, ...] = (_nothing, _flat, _mean)


def feed(trace: Trace, inputs: np.ndarray) -> Trace:
    """Return ``trace`` fed with ``inputs`` (batch, ...) in place of its own: every layer's are worked out anew.

    Raises InputError where the inputs are of another size than the first layer's, or the network is no chain.
    """
    first = trace.layers[0]
    if inputs.shape[1:] != first.inputs.shape[1:]:
        raise InputError(
            f"{trace.name}: inputs must be (batch, {', '.join(map(str, first.inputs.shape[1:]))}), as those of "
            f"{first.name} are, not {inputs.shape}"
        )
    between = [_between(trace, one, other) for one, other in zip(trace.layers, trace.layers[1:], strict=False)]
    layers = [changed(first, inputs=inputs.astype(np.float32))]
    for act, layer in zip(between, trace.layers[1:], strict=True):
        layers.append(changed(layer, inputs=act(_pictures(layers[-1])).astype(np.float32)))
    return renamed(trace, "fed", layers, {"transform": "feed", "samples": len(inputs)}, same_values=False)


def _between(trace: Trace, one: Layer, other: Layer) -> Act:
    """Return what turns the outputs of ``one`` into the inputs of ``other``."""
    if {one.op, other.op} <= {"linear", "conv2d"}:
        outputs = _pictures(one)
        for activation in ACTIVATIONS:
            values = activation(outputs)
            for shape in SHAPES:
                made = shape(values)
                if made.shape == other.inputs.shape and _alike(made, other.inputs):
                    return _one_after_other(activation, shape)
    raise InputError(
        f"{trace.name}: to be fed with other inputs, {other.name} must take what {one.name} puts out, through ReLU, "
        "GELU or nothing, flat or its mean, and it takes something else; export the network with these inputs instead"
    )


def _one_after_other(first: Act, second: Act) -> Act:
    return lambda values: second(first(values))


def _pictures(layer: Layer) -> np.ndarray:
    """Return the outputs of ``layer`` as the next one sees them: (batch, ..., out), or (batch, out, height, width)."""
    outputs = output_of(layer)
    if layer.op == "linear":
        return outputs.reshape(*layer.inputs.shape[:-1], -1)
    return outputs.reshape(len(layer.inputs), *output_sides(layer), layer.shape[0]).transpose(0, 3, 1, 2)


def _alike(made: np.ndarray, recorded: np.ndarray) -> bool:
    return bool(np.abs(made - recorded).max(initial=0.0) <= ERROR * max(np.abs(recorded).max(initial=0.0), 1e-30))
