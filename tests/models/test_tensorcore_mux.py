"""Select and multiply: the muxes' sums against the dense product of the decoded matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models.parts.tensorcore.mux import select_and_multiply
from gossamer.models.parts.tensorcore.values import round_to
from gossamer.workloads import InputError
from gossamer.workloads.formats import nm

KINDS = [(2, 4, 1), (1, 2, 1), (4, 8, 2), (1, 8, 1), (2, 6, 1), (1, 32, 1)]


def operands(kind, rows, groups, columns, dtype, seed):
    """Return an N:M weight, some of its groups not full, the matrix it stores, and a B."""
    n, m, width = kind
    rng = np.random.default_rng(seed)
    if dtype.startswith("int"):
        bound = {"int8": 128, "int4": 8}[dtype]
        weight = rng.integers(-bound, bound, (rows, groups * m)).astype(np.int8)
        b = rng.integers(-bound, bound, (groups * m, columns)).astype(np.int8)
    else:
        weight = rng.standard_normal((rows, groups * m)).astype(np.float16)
        b = rng.standard_normal((groups * m, columns)).astype(np.float16)
    chosen = rng.random((rows, groups, m // width)).argsort(axis=2) < n // width
    weight = np.where(np.repeat(chosen, width, axis=2).reshape(weight.shape), weight, 0).astype(weight.dtype)
    weight[rng.random(weight.shape) < 0.2] = 0
    return nm.encode(weight, n, m, width=width), weight, b


def in_order(a, b, dtype):
    """Return A @ B added over k one by one, one rounding an addition: a dense core in the muxes' order."""
    out = np.zeros((len(a), b.shape[1]), dtype)
    for k in range(a.shape[1]):
        out = (out + (a[:, k, None].astype(dtype) * b[None, k].astype(dtype))).astype(dtype)
    return out


shapes = {"rows": st.integers(1, 9), "groups": st.integers(0, 6), "columns": st.integers(1, 5)}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 999), **shapes)
def test_fp16_products_summed_in_fp32_equal_the_dense_ones_bit_for_bit(kind, seed, rows, groups, columns):
    a, weight, b = operands(kind, rows, groups, columns, "fp16", seed)
    found = select_and_multiply(a, b, "fp16", "fp32")
    assert found.dtype == np.float32
    assert found.tobytes() == in_order(weight, b, np.float32).tobytes()
    exact = weight.astype(np.float64) @ b.astype(np.float64)
    magnitude = np.abs(weight.astype(np.float64)) @ np.abs(b.astype(np.float64))
    kept = groups * kind[0]
    assert (np.abs(found - exact) <= kept * 2.0**-24 * magnitude).all()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), dtype=st.sampled_from(["int8", "int4"]), seed=st.integers(0, 999), **shapes)
def test_integer_products_are_exact(kind, dtype, seed, rows, groups, columns):
    a, weight, b = operands(kind, rows, groups, columns, dtype, seed)
    found = select_and_multiply(a, b, dtype)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, weight.astype(np.int64) @ b.astype(np.int64))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 999), **shapes)
def test_fp16_sums_are_rounded_after_each_addition(kind, seed, rows, groups, columns):
    a, weight, b = operands(kind, rows, groups, columns, "fp16", seed)
    found = select_and_multiply(a, b, "fp16", "fp16")
    expected = np.zeros(found.shape, np.float16)
    for k in range(weight.shape[1]):
        product = weight[:, k, None].astype(np.float32) * b[None, k].astype(np.float32)
        expected = (expected.astype(np.float32) + product).astype(np.float16)
    assert found.tobytes() == expected.tobytes()


def test_each_row_selects_its_own_rows_of_b():
    a = nm.encode(np.array([[0, 2, 0, 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 5, 0]], np.float16), 2, 4)
    b = np.arange(16, dtype=np.float16).reshape(8, 2)
    assert select_and_multiply(a, b).tolist() == [[2 * 2 + 3 * 6, 2 * 3 + 3 * 7], [0 + 5 * 12, 1 + 5 * 13]]


def test_order_of_addition_shows_in_fp32():
    # 2^24 + 1 + 1 is 2^24 in this order of single precision; exactly it is 2 more.
    a = nm.encode(np.array([[4096, 1, 0, 0, 1, 0, 0, 0]], np.float16), 2, 4)
    b = np.array([[4096], [1], [0], [0], [1], [0], [0], [0]], np.float16)
    assert select_and_multiply(a, b).tolist() == [[2.0**24]]


def test_integer_sums_wrap_as_the_instruction_does():
    groups = 1 << 17
    a = nm.Nm(1, 1, 1, 1, (1, groups), np.full((1, groups, 1), -128, np.int8), np.zeros((1, groups, 1), np.uint8))
    assert select_and_multiply(a, np.full((groups, 1), -128, np.int8), "int8").tolist() == [[-(2**31)]]


def test_operands_are_rounded_to_nearest():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-7, -1 - 2**-8, 3e38, np.inf, 0.0], np.float32)
    assert round_to(values, "bf16").tolist()[:4] == [1.0, 1 + 2**-6, 1 + 2**-7, -1.0]
    assert round_to(values, "bf16")[5] == np.inf
    assert np.isnan(round_to(np.array([np.nan], np.float32), "bf16")).all()
    ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11], np.float32)
    assert round_to(ties, "tf32").tolist() == [1 + 2**-10, 1 + 2**-9, -1 - 2**-10]  # away from zero
    beyond = np.array([65519.0, 65520.0, -1e5], np.float32)
    assert round_to(beyond, "fp16").tolist() == [65504, np.inf, -np.inf]
    largest = float(np.finfo(np.float32).max)
    assert round_to(np.array([largest, -largest], np.float32), "bf16").tolist() == [np.inf, -np.inf]
    assert round_to(np.array([largest], np.float32), "tf32").tolist() == [np.inf]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "b1"}, "dtype of a sparse product must be one of fp16, bf16, tf32, int8, int4, not 'b1'"),
        ({"accumulate": "int32"}, "accumulate of fp16 must be fp32 or fp16, not 'int32'"),
        ({"dtype": "int8"}, "A: int8 takes whole numbers from -128 to 127; quantize the values first"),
        (
            {"b": np.zeros((3, 2))},
            "A must be grouped along its last axis and B have its 4 rows, not axis 1 of 2 and B of shape (3, 2)",
        ),
    ],
)
def test_what_cannot_be_multiplied_is_refused(changes, message):
    a = nm.encode(np.array([[0.5, 0, 0, 0]], np.float32), 2, 4)
    with pytest.raises(InputError) as caught:
        select_and_multiply(a, **({"b": np.zeros((4, 2))} | changes))
    assert str(caught.value) == message
