"""The dual-side sparse core: published cycles, and both engines on random products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import dstc, load_machine
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads import Layer, load_trace
from gossamer.workloads.errors import InputError

from .agreement import agree
from .bounds import assert_bounded, assert_tells, far_layers

PUBLISHED = {1.0: 4600, 0.9: 4160, 0.7: 3300, 0.5: 2690, 0.3: 1930}  # weight density: cycles, dense activations


def machine(**changes):
    return load_machine("dstc-a100", **({"launch_s": 0.0} | changes))


def linear(rows, depth, columns, weights=1.0, activations=1.0, seed=0, bias=True):
    rng = np.random.default_rng(seed)

    def drawn(density, *shape):
        return ((rng.random(shape) < density) * rng.standard_normal(shape)).astype(np.float32)

    return Layer(
        name="fc",
        op="linear",
        weight=drawn(weights, rows, depth),
        bias=drawn(1.0, rows) if bias else None,
        inputs=drawn(activations, columns, depth),
    )


def both(built, layer, timeline=None):
    """Return the result of `fast`, having checked that the cores agree with it in everything."""
    fast = agree(dstc, built, layer, timeline)
    assert sum(fast.cycles_by_cause["core"].values()) == built.config.core_count * fast.cycles
    return fast


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_cores_and_formula_agree_on_any_product(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    built = machine(
        core_count=number(1, 5),
        tile_rows=number(1, 12),
        tile_columns=number(1, 12),
        quantum_rows=number(1, 5),
        quantum_columns=number(1, 5),
        quanta_per_clk=number(1, 3),
        hbm_bytes_per_s=data.draw(st.sampled_from([1555e9, 1e9])),
        launch_s=data.draw(st.sampled_from([0.0, 1e-8])),
        functional=data.draw(st.booleans()),
    )
    densities = [data.draw(st.sampled_from([0.0, 0.2, 1.0])) for _ in range(2)]
    layer = linear(number(1, 30), number(1, 12), number(1, 30), *densities, seed=number(0, 99), bias=number(0, 1) == 1)
    result = both(built, layer)
    expected = int(((layer.weight != 0).sum(axis=0) * (layer.inputs != 0).sum(axis=0)).sum())
    assert result.macs == expected


def test_both_engines_agree_on_a_grouped_convolution():
    rng = np.random.default_rng(0)
    layer = Layer(
        name="conv",
        op="conv2d",
        weight=((rng.random((12, 2, 3, 3)) < 0.4) * rng.standard_normal((12, 2, 3, 3))).astype(np.float32),
        inputs=np.maximum(rng.standard_normal((2, 4, 6, 5)), 0).astype(np.float32),
        attributes={"groups": 2, "padding": (1, 1)},
    )
    both(machine(core_count=3, tile_rows=4, tile_columns=8, quantum_rows=2, quantum_columns=4), layer)


@pytest.mark.parametrize("density", [0.9, 0.7, 0.5, 0.3])
def test_sparse_weights_take_the_published_share_of_dense_cycles_within_12_percent(density):
    built = machine(functional=False, hbm_bytes_per_s=1e15)  # published are the cores' cycles
    dense, sparse = (dstc.fast(built, linear(1024, 512, 1024, d), Memo()).cycles for d in (1.0, density))
    assert sparse / dense == pytest.approx(PUBLISHED[density] / PUBLISHED[1.0], rel=0.12)


def test_quanta_of_random_operands_are_what_the_binomial_expects():
    from scipy.stats import binom

    def share(density, quantum):
        found = np.arange(33)
        return float((np.ceil(found / quantum) * binom.pmf(found, 32, density)).sum() / (32 / quantum))

    result = dstc.fast(machine(functional=False), linear(512, 1024, 512, 0.4, 0.3), Memo())
    dense = 16 * 16 * 1024 * 8
    assert result.counts["quanta"] / dense == pytest.approx(share(0.4, 8) * share(0.3, 16), rel=0.02)


def test_a_tile_of_few_nonzeros_by_hand():
    weight = np.zeros((32, 3), np.float32)
    weight[:9, 0] = 1  # two quanta of rows
    weight[0, 1] = 1
    inputs = np.zeros((32, 3), np.float32)
    inputs[:17, 0] = 2  # two quanta of columns
    inputs[:, 2] = 1  # meets no weight
    layer = Layer(name="fc", op="linear", weight=weight, inputs=inputs)
    timeline = Timeline()
    result = both(machine(core_count=1, quanta_per_clk=3, hbm_bytes_per_s=1e15), layer, timeline)
    assert result.counts["quanta"] == 4 and result.cycles == 2
    assert result.macs == result.counts["multiplications"] == 9 * 17
    assert result.storage_bits == {"values": 16 * 10, "bitmap": 96}
    assert result.traffic_bytes == {"hbm": (16 * 10 + 96 + 16 * 49 + 96) // 8 + 2 * 32 * 32}
    assert timeline.intervals == [Interval("hbm", "move", 0, 1), Interval("core0", "tile 0,0", 0, 2)]
    assert result.output[0, 0] == 2.0 and result.output[17:].sum() == 0


def test_both_operands_sparse_gain_more_than_one():
    built = machine(functional=False, hbm_bytes_per_s=1e15)
    one, other, each = (
        dstc.fast(built, linear(1024, 512, 1024, *d), Memo()).cycles for d in ((0.25, 1), (1, 0.25), (0.25, 0.25))
    )
    assert each < one < other  # rows come in finer quanta than columns


def test_a_core_whose_tile_is_empty_takes_the_next_at_once():
    weight = np.zeros((3, 2), np.float32)
    weight[1:] = 1
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((1, 2), np.float32))
    result = both(machine(core_count=3, tile_rows=1, quanta_per_clk=1), layer)
    assert result.cycles_per_unit["core"]["multiply"] == [2, 2, 0]


def test_hbm_bounds_what_is_almost_empty():
    result = both(machine(core_count=2, hbm_bytes_per_s=1e9), linear(40, 16, 40, 0.1, 0.1))
    moved = result.traffic_bytes["hbm"]
    assert result.cycles == int(np.ceil(moved * 1410e6 / 0.85e9))
    assert result.cycles_by_cause["core"]["hbm"] > 0
    assert result.roofline["achieved_macs_per_s"] <= result.roofline["bound_macs_per_s"] * (1 + 1e-9)


def test_a_bundled_trace_agrees_with_numpy():
    assert all(found.passed for found in check(machine(), load_trace("lenet-digits-imp")))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"core_count": 0}, "core_count must be at least 1, not 0"),
        ({"tile_rows": 65537}, "tile_rows must be at most 65536, not 65537"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0 and finite, not 0.0"),
        ({"launch_s": -1.0}, "launch_s must be at least 0 and finite, not -1.0"),
        ({"hbm_efficiency": 1.5}, "hbm_efficiency must be above 0 and at most 1, not 1.5"),
    ],
)
def test_a_bad_configuration_is_refused_with_rule_and_value(change, rule):
    with pytest.raises(InputError) as error:
        machine(**change)
    assert str(error.value) == f"dstc-a100: {rule}"


def test_a_table_for_other_words_gives_no_energy(tmp_path):
    path = tmp_path / "wide.toml"
    path.write_text(
        'name = "wide"\nmode = "event"\nword_bits = 32\n'
        'per_event = [{part = "Hbm", count = "hbm_read_bytes", pj = 1.0, source = "assumed"}]\n'
    )
    result = dstc.fast(machine(energy=str(path)), linear(4, 4, 4), Memo())
    assert result.energy_j is None
    assert result.warnings == ["energy table wide is for words of 32 bits, not 16: no energy given"]


SMALL = {"core_count": 2, "tile_rows": 6, "tile_columns": 4, "quantum_rows": 3, "quantum_columns": 2}


@settings(max_examples=80, deadline=None)
@given(layer=far_layers())
def test_outputs_are_within_the_bound_whatever_the_numbers(layer):
    assert_bounded(dstc, machine(**SMALL), layer)


def test_the_bound_of_ordinary_numbers_is_near_their_errors():
    layer = linear(40, 48, 20)
    found = dstc.fast(machine(), layer, Memo()).arithmetic["max_abs_error"]
    assert found < dstc.error_bound(machine(), layer).max() < 30 * found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), row=st.integers(0, 11), column=st.integers(0, 15), density=st.sampled_from([0.4, 1.0]))
def test_a_weight_that_is_off_by_more_than_the_bound_is_told(seed, row, column, density):
    assert_tells(dstc, machine(**SMALL), linear(12, 16, 5, density, 0.7, seed), row, column)
