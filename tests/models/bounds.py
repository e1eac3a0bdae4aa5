"""What the tests of a machine's ``error_bound`` share: numbers of any size, the exact output, what a bound must do."""

import sys
from dataclasses import replace
from types import ModuleType

import msgspec
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gossamer.models.parts.accuracy import accuracy
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.workloads import Layer, Trace

from .agreement import agree

# Of two: around 1, at the ends of fp16 and of float32, and near the largest that a layer may have, 2**48. Of products
# of the small ones nothing or a denormal is left.
EXPONENTS = (0, -1, -3, 4, 8, -12, -15, -23, -25, -30, -50, -63, -75, -90, -110, -127, -140, -149, 14, 15, 20, 46)
ROUNDING = 1e-12  # of the float64 sums themselves, as `gossamer check` allows them


@st.composite
def far_numbers(draw, *shape, least=0.0):
    """Return float32 numbers of ``shape``, all of a size or of several far from each other, some of them 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    exponents = draw(st.lists(st.sampled_from(EXPONENTS), min_size=1, max_size=3))
    density = draw(st.sampled_from([0.3, 1.0, 1.0]))
    signs = rng.choice([-1, 1], shape) if least < 0 else 1
    sizes = np.ldexp(rng.uniform(1, 2, shape), rng.choice(exponents, shape))
    return (signs * sizes * (rng.random(shape) < density)).astype(np.float32)


@st.composite
def far_layers(draw):
    """Return a small linear layer, or the products of a matmul, of numbers of any size."""
    rows, depth, columns = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        weight, inputs = draw(far_numbers(2, rows, depth, least=-1)), draw(far_numbers(2, columns, depth, least=-1))
        return Layer(name="qk", op="matmul", weight=weight, inputs=inputs, attributes={"samples": 1})
    weight, inputs = draw(far_numbers(rows, depth, least=-1)), draw(far_numbers(columns, depth, least=-1))
    bias = draw(far_numbers(rows, least=-1)) if draw(st.booleans()) else None
    return Layer(name="fc", op="linear", weight=weight, inputs=inputs, bias=bias)


def exact(layer):
    """Return the output of a linear layer or matmul in float64, (vectors, out), and the sum of magnitudes behind it."""
    weight, inputs = layer.weight.astype(np.float64), layer.inputs.astype(np.float64)
    bias = 0.0 if layer.bias is None else layer.bias.astype(np.float64)
    output = inputs @ np.swapaxes(weight, -1, -2) + bias
    magnitude = np.abs(inputs) @ np.swapaxes(np.abs(weight), -1, -2) + np.abs(bias)
    return output.reshape(-1, output.shape[-1]), magnitude.reshape(-1, output.shape[-1])


def assert_bounded(model, machine, layer):
    """Hold both engines' outputs to ``error_bound``; where it is no number, the machine says that some were lost."""
    result, bound = agree(model, machine, layer), model.error_bound(machine, layer)
    reference, magnitude = exact(layer)
    assert bound.shape == result.output.shape == reference.shape
    saturated = 0 if result.arithmetic is None else result.arithmetic["saturated"]
    known = np.isfinite(bound) & (np.isfinite(result.output) if saturated else True)
    assert saturated or known.all()
    error = np.abs(np.subtract(result.output, reference, where=known, out=np.zeros_like(reference)))
    wrong = known & (error > bound + ROUNDING * magnitude)
    assert not wrong.any(), f"{error[wrong]} above {bound[wrong]}"
    (found,) = check(machine, Trace(name="far", layers=[layer]))
    assert found.passed
    return result


def assert_tells(model, machine, layer, row, column):
    """Hold `gossamer check` to fail where a weight, of the first of several products, is off by more than the bound."""
    inputs = np.abs(layer.inputs.reshape(-1, *layer.inputs.shape[-2:])[0, :, column].astype(np.float64))
    vector = int(inputs.argmax())
    weight = layer.weight.copy()
    first = weight.reshape(-1, *weight.shape[-2:])[0]
    assume(inputs[vector] and first[row, column])  # near 0, the machine's format may not have what it is off by
    off = 2.5 * model.error_bound(machine, layer)[vector, row] / inputs[vector]
    first[row, column] += np.copysign(off, first[row, column])
    assert not _passes(model, machine, layer, replace(layer, weight=weight))
    assert _passes(model, machine, layer, layer)


def _passes(model, machine, layer, computed):
    """Tell whether ``layer`` passes its check on a machine that takes ``computed`` for it."""
    reference, _ = exact(layer)

    def judged(result):
        arithmetic = None if result.arithmetic is None else accuracy(result.output, reference) | {"saturated": 0.0}
        return msgspec.structs.replace(result, arithmetic=arithmetic).with_output(result.output)

    misled = ModuleType("misled")
    misled.OPS = getattr(model, "OPS", ("linear", "conv2d"))
    misled.error_bound = model.error_bound
    misled.fast = lambda given, _, memo: judged(model.fast(given, computed, Memo()))
    misled.events = lambda given, _, timeline: judged(model.events(given, computed, None))
    sys.modules[misled.__name__] = misled  # a machine names its module, and what is there is not read again
    try:
        (found,) = check(replace(machine, module=misled.__name__), Trace(name="off", layers=[layer]))
    finally:
        del sys.modules[misled.__name__]
    assert found.differences == []
    return found.passed
