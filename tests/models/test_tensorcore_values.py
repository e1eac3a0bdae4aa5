"""The numbers that tensor cores give: rounding, ranges and the muxes' own products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import tensorcore
from gossamer.models.parts.tensorcore.mux import select_and_multiply
from gossamer.models.parts.tensorcore.values import round_to
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.workloads import Layer, Trace
from gossamer.workloads.formats import nm

from .bounds import assert_bounded, assert_tells, far_layers
from .tensorcore_layers import both, linear, tiny

FORMATS = [("fp16", "fp32"), ("fp16", "fp16"), ("bf16", "fp32"), ("tf32", "fp32"), ("int8", "int32"), ("int4", "int32")]


@pytest.mark.parametrize(
    ("dtype", "accumulate"), [("fp16", "fp32"), ("fp16", "fp16"), ("bf16", "fp32"), ("tf32", "fp32")]
)
def test_values_are_those_of_the_muxes(dtype, accumulate):
    n, m = (1, 2) if dtype == "tf32" else (2, 4)
    layer = linear(24, 32, 10, (n, m))
    bare = Layer(name="fc", op="linear", weight=layer.weight, inputs=layer.inputs, pattern=layer.pattern)
    result = both(tiny(dtype=dtype, accumulate=accumulate), bare)
    packed = nm.encode(layer.weight, n, m, axis=1)
    expected = select_and_multiply(packed, layer.inputs.T, dtype, accumulate)
    np.testing.assert_array_equal(result.output, expected.T.astype(np.float32))
    assert result.arithmetic["max_abs_error"] > 0 and result.arithmetic["saturated"] == 0


def test_integers_are_scaled_to_the_largest():
    weight = np.array([[1.0, -0.5], [0.25, 0.0]], np.float32)
    inputs = np.array([[2.0, -4.0]], np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=inputs)
    result = both(tiny(dtype="int8", accumulate="int32"), layer)
    whole = np.array([[127, -64], [32, 0]]) @ np.array([64, -127])
    np.testing.assert_array_equal(result.output, [(whole * (1 / 127) * (4 / 127)).astype(np.float32)])


@given(st.floats(width=32, min_value=-60000, max_value=60000))
def test_rounding_to_fp16_is_numpys_and_to_bf16_and_tf32_to_nearest(value):
    array = np.array([value], np.float32)
    assert round_to(array, "fp16")[0] == np.float32(np.float16(value))
    for dtype, bits in (("bf16", 8), ("tf32", 11)):
        held = float(round_to(array, dtype)[0])
        assert abs(held - float(array[0])) <= abs(float(array[0])) * 2.0**-bits + 2.0**-140


def test_what_fp16_cannot_hold_is_infinite_counted_and_told():
    layer = Layer(
        name="fc", op="linear", weight=np.ones((1, 1), np.float32), inputs=np.array([[1e6], [-1e6], [1]], np.float32)
    )
    result = both(tiny(), layer)
    assert result.output.tolist() == [[np.inf], [-np.inf], [1.0]]
    assert result.arithmetic["saturated"] == 4 and result.arithmetic["max_abs_error"] == 0
    assert result.warnings == ["4 operands and outputs are infinite or NaN: beyond the range of fp16 cores"]
    assert both(tiny(dtype="bf16"), layer).warnings == []
    (found,) = check(tiny(), Trace(name="far", layers=(layer,)))
    assert found.passed and found.saturated == 4


def test_sums_that_leave_the_range_of_fp16_accumulators_are_infinite():
    weight = np.array([[60000, 60000], [60000, -60000]], np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((1, 2), np.float32))
    assert both(tiny(accumulate="fp16"), layer).output.tolist() == [[np.inf, 0.0]]
    assert both(tiny(), layer).output.tolist() == [[120000.0, 0.0]]


def test_a_zero_that_meets_an_infinite_weight_is_no_number():
    layer = Layer(
        name="fc", op="linear", weight=np.array([[1e6, 1]], np.float32), inputs=np.array([[0, 1]], np.float32)
    )
    assert np.isnan(both(tiny(), layer).output).all()


def test_without_values_the_cost_is_the_same():
    layer = linear(pattern=(2, 4))
    full, bare = both(tiny(), layer), both(tiny(functional=False), layer)
    assert bare.output is None and bare.arithmetic is None
    assert (bare.cycles, bare.counts, bare.cycles_per_unit) == (full.cycles, full.counts, full.cycles_per_unit)


@settings(max_examples=150, deadline=None)
@given(layer=far_layers(), formats=st.sampled_from(FORMATS), split_k=st.sampled_from([1, 1, 2, 3]))
def test_outputs_are_within_the_bound_whatever_the_numbers(layer, formats, split_k):
    dtype, accumulate = formats
    result = assert_bounded(tensorcore, tiny(dtype=dtype, accumulate=accumulate, split_k=split_k), layer)
    assert dtype == "fp16" or result.arithmetic["saturated"] == 0


@pytest.mark.parametrize(("dtype", "accumulate"), FORMATS)
def test_the_bound_of_ordinary_numbers_is_near_their_errors(dtype, accumulate):
    machine, layer = tiny(dtype=dtype, accumulate=accumulate), linear(40, 48, 20)
    found = tensorcore.fast(machine, layer, Memo()).arithmetic["max_abs_error"]
    assert found < tensorcore.error_bound(machine, layer).max() < 30 * found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99), row=st.integers(0, 11), column=st.integers(0, 15), formats=st.sampled_from(FORMATS),
)  # fmt: skip
def test_a_weight_that_is_off_by_more_than_the_bound_is_told(seed, row, column, formats):
    dtype, accumulate = formats
    assert_tells(tensorcore, tiny(dtype=dtype, accumulate=accumulate), linear(12, 16, 5, seed=seed), row, column)
