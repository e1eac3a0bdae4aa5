"""The dual-side sparse core where tiles are empty: both engines give the same bytes, core by core."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.workloads import Layer

from .engine_bytes import assert_same_bytes, holed

MACHINES = st.fixed_dictionaries(
    {
        "core_count": st.sampled_from([1, 2, 3, 5, 8, 40]),  # fewer than there are tiles, and more
        "tile_rows": st.sampled_from([1, 2, 3, 8]),
        "tile_columns": st.sampled_from([1, 2, 5, 32]),
        "quantum_rows": st.sampled_from([1, 2, 8]),
        "quantum_columns": st.sampled_from([1, 3, 16]),
        "quanta_per_clk": st.sampled_from([1, 2, 3]),
        "launch_s": st.sampled_from([0.0, 1e-8]),
        "hbm_bytes_per_s": st.sampled_from([1555e9, 1e15]),
        "functional": st.sampled_from([True, True, False]),
    }
)
ROWS, DENSITIES = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), st.sampled_from([0.1, 0.5, 1.0, 1.0])


@st.composite
def layers(draw, op):
    """Return a layer with many rows of weights, and of inputs, that are all 0; of one row or column now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def number(greatest):
        return draw(st.integers(1, greatest))

    def numbers(*shape):
        return holed(rng, *shape, rows=draw(ROWS), density=draw(DENSITIES))

    def bias(rows):
        return numbers(rows) if draw(st.booleans()) else None

    if op == "linear":
        rows, depth = number(24), number(6)
        return Layer(name="fc", op=op, weight=numbers(rows, depth), bias=bias(rows), inputs=numbers(number(12), depth))
    if op == "matmul":
        products, rows, depth, columns = number(4), number(10), number(6), number(10)
        weight, inputs = numbers(products * rows, depth), numbers(products * columns, depth)
        return Layer(
            name="qk", op=op, weight=weight.reshape(products, rows, depth), attributes={"samples": 1},
            inputs=inputs.reshape(products, columns, depth),
        )  # fmt: skip
    groups = number(8)
    filters, channels = (groups, 1) if op == "depthwise" else (groups * number(4), number(3))
    side, padding = draw(st.sampled_from([(1, 0), (1, 1), (3, 1), (3, 0)]))
    return Layer(
        name="conv", op="conv2d", weight=numbers(filters, channels, side, side), bias=bias(filters),
        inputs=numbers(number(2) * groups * channels * 16).reshape(-1, groups * channels, 4, 4),
        attributes={"groups": groups, "padding": (padding, padding)},
    )  # fmt: skip


@pytest.mark.parametrize("op", ["linear", "depthwise", "grouped", "matmul"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_engines_give_the_same_bytes_where_tiles_are_empty(op, data):
    built, layer = load_machine("dstc-a100", **data.draw(MACHINES)), data.draw(layers(op))
    result = assert_same_bytes(built, layer)
    assert sum(result.cycles_by_cause["core"].values()) == built.config.core_count * result.cycles


def test_one_nonzero_among_empty_tiles_is_multiplied_by_the_first_core():
    weight = np.zeros((130, 1), np.float32)
    weight[64] = 1
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((1, 1), np.float32))
    result = assert_same_bytes(load_machine("dstc-a100"), layer)
    assert result.cycles_per_unit["core"]["multiply"] == [1] + [0] * 431


@pytest.mark.parametrize("seed", range(3))
def test_a_pruned_depthwise_convolution_gives_the_same_bytes_on_the_preset(seed):
    rng = np.random.default_rng(seed)
    layer = Layer(
        name="conv", op="conv2d", weight=holed(rng, 16, 1, 3, 3, rows=0.6, density=0.2),
        inputs=rng.standard_normal((1, 16, 8, 8)).astype(np.float32), attributes={"groups": 16, "padding": (1, 1)},
    )  # fmt: skip
    assert_same_bytes(load_machine("dstc-a100"), layer)
