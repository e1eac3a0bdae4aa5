import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import Layer
from gossamer.workloads.errors import InputError
from gossamer.workloads.gemm import Gemm, by_channel, lower_gemm, operands, vectors
from gossamer.workloads.lowering import join, lower
from gossamer.workloads.patterns import Pattern

from .refusals import message

RNG = np.random.default_rng(5)


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(groups=1, stride=(1, 1), padding=(0, 0), dilation=(1, 1), kernel=(3, 2)):
    return Layer(
        name="conv",
        op="conv2d",
        weight=numbers(6, 4 // groups, *kernel),
        bias=numbers(6),
        inputs=numbers(2, 4, 9, 8),
        attributes={"groups": groups, "stride": stride, "padding": padding, "dilation": dilation},
    )


def test_linear_layer_is_one_product_of_all_its_vectors():
    layer = Layer(name="query", op="linear", weight=numbers(6, 8), inputs=numbers(2, 5, 8))
    assert lower_gemm(layer) == Gemm(rows=6, channels=8, columns=10, input_words=80, pattern=None)


def test_convolution_has_a_column_for_each_position_of_each_sample():
    gemm = lower_gemm(conv(padding=(1, 1)))
    assert (gemm.rows, gemm.channels, gemm.cells, gemm.columns, gemm.count) == (6, 4, 6, 2 * 9 * 9, 1)
    assert gemm.reduction == 24
    assert gemm.input_words == 2 * 4 * 9 * 8  # the input itself, not the patches


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    groups=st.sampled_from([1, 2]),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_sizes_are_those_of_the_products_that_are_made(groups, stride, padding, dilation, kernel):
    layer = conv(groups, stride, padding, dilation, kernel)
    gemm, products, made = lower_gemm(layer), lower(layer), operands(layer)
    assert gemm.count == len(products) == len(made)
    for product, values in zip(products, made, strict=True):
        assert values.weight.shape == (gemm.rows, gemm.reduction) == product.kept.shape
        assert values.vectors.shape == (gemm.columns, gemm.reduction)
        expected = product.vectors @ product.weight.T + product.bias_values
        np.testing.assert_allclose(values.vectors @ values.weight.T + values.bias, expected, rtol=1e-4, atol=1e-4)


def test_reduction_of_a_convolution_runs_over_cells_then_channels():
    layer = conv()
    (product,) = operands(layer)
    kept = by_channel(layer)  # (outputs, channels, cells)
    assert kept.base is not None and kept.shape == (6, 4, 6)
    for cell in range(6):
        assert (product.weight[:, cell * 4 : cell * 4 + 4] == kept[:, :, cell]).all()


def test_groups_do_not_reach_over_cells():
    gemm = Gemm(rows=1, channels=6, columns=1, cells=3)
    assert gemm.groups(4) == 6  # a short one at the end of each cell
    assert gemm.bounds(4, 1) == [0, 4, 6, 10, 12, 16, 18]
    assert gemm.bounds(4, 4) == [0, 12, 18]


@pytest.mark.parametrize(
    ("pattern", "promise"),
    [
        (Pattern("n:m", n=2, m=4, axis=1), (2, 4)),
        (Pattern("n:m", n=2, m=4, axis=0), None),
        (Pattern("dense"), (1, 1)),
        (Pattern(), None),
    ],
)
def test_only_a_pattern_along_the_inputs_is_a_promise(pattern, promise):
    weight = np.zeros((4, 8), np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=numbers(1, 8), pattern=pattern)
    assert lower_gemm(layer).pattern == promise


def matmul(weight, inputs, samples=1, pattern=None):
    kind = Pattern() if pattern is None else pattern
    attributes = {"samples": samples}
    return Layer(name="qk", op="matmul", weight=weight, inputs=inputs, pattern=kind, attributes=attributes)


def test_matmul_is_one_product_a_pair_of_activations():
    weight, inputs = numbers(6, 5, 8), numbers(6, 7, 8)
    layer = matmul(weight, inputs, samples=2)
    gemm = lower_gemm(layer)
    assert (gemm.count, gemm.rows, gemm.reduction, gemm.columns) == (6, 5, 8, 7)
    assert (gemm.macs, gemm.input_words, vectors(layer, gemm)) == (6 * 5 * 8 * 7, inputs.size, 42)
    assert by_channel(layer).shape == (30, 8, 1)
    found = join(layer, [product.vectors @ product.weight.T for product in operands(layer)])
    np.testing.assert_allclose(found, (inputs @ weight.transpose(0, 2, 1)).reshape(42, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pattern", "promise"),
    [
        (Pattern("n:m", n=2, m=4, axis=2), (2, 4)),
        (Pattern("n:m", n=2, m=4, axis=1), (1, 1)),
        (Pattern("dense"), (1, 1)),
        (Pattern(), (1, 1)),
    ],
)
def test_an_activation_without_a_promise_along_the_reduction_is_dense(pattern, promise):
    layer = matmul(np.zeros((2, 4, 8), np.float32), numbers(2, 3, 8), pattern=pattern)
    assert lower_gemm(layer).pattern == promise


def test_sizes_of_a_product_are_at_least_one():
    with pytest.raises(InputError, match=r"^columns of a product must be at least 1, not 0$"):
        Gemm(1, 1, 0)
    with pytest.raises(InputError, match=r"^pattern of a product must have 0 < n <= m, not 3:2$"):
        Gemm(1, 1, 1, pattern=(3, 2))


@pytest.mark.parametrize("act", [lower, lower_gemm])
def test_a_layer_that_no_product_computes_is_refused(act):
    points = Layer(name="near", op="point_op", inputs=numbers(4, 3), attributes={"kind": "knn", "k": 2})
    gates = Layer(name="gates", op="lstm", weight=numbers(4, 3), inputs=numbers(1, 1, 2))
    for layer in (points, gates):
        assert message(act, layer) == (
            f"layer {layer.name}: op must be one of linear, conv2d, matmul to be multiplied, not {layer.op}"
        )
