import dataclasses
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, tensorcore
from gossamer.models.tensorcore import gemm_cost
from gossamer.models.tensorcore_gemm import CAUSES, TICKS, measure
from gossamer.models.tensorcore_mux import select_and_multiply
from gossamer.models.tensorcore_plan import plan
from gossamer.models.tensorcore_values import round_to
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.simulate import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import Layer, Trace, load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.formats import nm
from gossamer.workloads.gemm import Gemm
from gossamer.workloads.patterns import Pattern

A100 = load_machine("a100-sparse")
MUXES = load_machine("a100-muxes")


def tiny(**changes):
    """A chip of two SMs and small tiles, so that a few numbers make many tiles and steps."""
    small = {
        "sm_count": 2, "cta_rows": 32, "cta_columns": 16, "cta_depth": 16, "warp_rows": 16, "warp_columns": 8,
        "fill_cycles": 30, "launch_s": 1e-8,
    }  # fmt: skip
    return load_machine("a100-sparse", **(small | changes))


def sparse_weight(rng, rows, depth, n, m):
    weight = rng.standard_normal((rows, depth)).astype(np.float32)
    padded = np.abs(np.pad(weight, ((0, 0), (0, -depth % m)))).reshape(rows, -1, m)
    rank = np.argsort(np.argsort(-padded, axis=2), axis=2)
    return np.where((rank < n).reshape(rows, -1)[:, :depth], weight, 0).astype(np.float32)


def linear(rows=40, depth=48, columns=20, pattern=None, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    if pattern is None:
        weight = (rng.random((rows, depth)) < density) * rng.standard_normal((rows, depth))
        kind = Pattern()
    else:
        weight, kind = sparse_weight(rng, rows, depth, *pattern), Pattern("n:m", n=pattern[0], m=pattern[1], axis=1)
    return Layer(
        name="fc",
        op="linear",
        weight=weight.astype(np.float32),
        bias=rng.standard_normal(rows).astype(np.float32),
        inputs=rng.standard_normal((columns, depth)).astype(np.float32),
        pattern=kind,
    )


def both(machine, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything."""
    fast, event = tensorcore.fast(machine, layer, Memo()), tensorcore.events(machine, layer, timeline)
    assert msgspec.to_builtins(event) == msgspec.to_builtins(fast)
    if fast.output is not None:
        np.testing.assert_array_equal(event.output, fast.output)
    sms, cycles = machine.config.sm_count, fast.cycles
    assert sum(fast.cycles_by_cause["sm"].values()) == sms * cycles
    for unit, causes in fast.cycles_per_unit.items():
        units = np.array(list(causes.values()))
        assert (units.sum(axis=0) == cycles).all() and (units >= 0).all(), unit
    assert fast.theoretical_cycles <= cycles and 0 <= fast.utilization <= 1
    assert fast.roofline["achieved_macs_per_s"] <= fast.roofline["bound_macs_per_s"] * (1 + 1e-12)
    return fast


# Section by section: the published sizes, both engines, and what the numbers mean.


@pytest.mark.parametrize(("reduction", "gain"), [(256, 1.27), (1024, 1.55), (4096, 1.73), (16384, 1.79)])
def test_sparse_gains_what_was_derived_for_the_length_of_the_reduction(reduction, gain):
    dense, sparse = (gemm_cost(A100, Gemm(10240, reduction, 10240, pattern=p)) for p in ((1, 1), (2, 4)))
    assert round(dense.cycles / sparse.cycles, 2) == gain


@pytest.mark.parametrize(("n", "m", "gain"), [(2, 4, 1.72), (1, 4, 2.00), (1, 8, 2.17), (1, 32, 2.33)])
def test_bandwidth_limits_what_sparser_patterns_gain(n, m, gain):
    dense, sparse = (gemm_cost(MUXES, Gemm(4096, 4096, 4096, pattern=p)) for p in ((1, 1), (n, m)))
    assert sparse.kind == f"{n}:{m}"
    assert round(dense.cycles / sparse.cycles, 2) == gain


@pytest.mark.parametrize(("columns", "cap", "bytes_per_clk"), [(128, 1.70, 150), (256, 1.82, 141)])
def test_shared_memory_caps_the_gain_at_twice_the_rate(columns, cap, bytes_per_clk):
    machine = load_machine("a100-sparse", cta_columns=columns)
    times = {
        p: measure(machine.config, gemm, plan(machine.config, gemm, None))
        for p in ((1, 1), (2, 4))
        for gemm in [Gemm(4096, 4096, 4096, pattern=p)]
    }
    dense, sparse = times[1, 1], times[2, 4]
    assert dense.tensor_core[0, 0] > dense.shared_memory[0, 0]
    assert dense.tensor_core[0, 0] / sparse.shared_memory[0, 0] == pytest.approx(cap, abs=0.01)
    assert 128 * sparse.shared_memory[0, 0] / sparse.tensor_core[0, 0] == pytest.approx(bytes_per_clk, abs=0.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 400),
    depth=st.integers(1, 900),
    columns=st.integers(1, 400),
    kind=st.sampled_from([(1, 1), (2, 4), (1, 8)]),
    sm_count=st.integers(1, 7),
)
def test_a_product_takes_its_closed_form(rows, depth, columns, kind, sm_count):
    machine = load_machine("a100-muxes", sm_count=sm_count)
    config = machine.config
    gemm = Gemm(rows, depth, columns, pattern=kind)
    planned = plan(config, gemm, None)
    times = measure(config, gemm, planned)
    core, memory, l2 = (int(array[0, 0]) for array in (times.tensor_core, times.shared_memory, times.l2))
    tile = max(times.fill, l2) + (planned.steps - 1) * max(core, memory, l2) + max(core, memory) + times.epilogue
    waves = -(-(times.row_tiles * times.column_tiles) // sm_count)
    total = times.launch + max(waves * tile, times.hbm)
    assert gemm_cost(machine, gemm).cycles == -(-total // TICKS)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_units_and_recurrences_agree_on_any_product(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    def one_of(*choices):
        return data.draw(st.sampled_from(choices))

    dtype, accumulate = one_of(("fp16", "fp32"), ("fp16", "fp16"), ("tf32", "fp32"), ("int8", "int32"))
    machine = tiny(
        sm_count=number(1, 4),
        cta_rows=16 * number(1, 3),
        cta_columns=8 * number(1, 3),
        warp_rows=16,
        cta_depth=number(1, 40),
        pipeline_stages=number(2, 4),
        ctas_per_sm=number(1, 3),
        lockstep_rows=number(1, 40),
        sparsity=one_of("dense", "2:4", "n:m", "wide-fetch", "v:n:m"),
        largest_m=one_of(4, 8),
        fetch_width=number(1, 3),
        vector_rows=number(1, 20),
        smem_bytes_per_clk=one_of(128.0, 17.3, 1e4),
        l2_bytes_per_clk=one_of(5120.0, 9.7),
        hbm_bytes_per_s=one_of(1555e9, 3e9),
        fill_cycles=number(0, 300),
        launch_s=one_of(0.0, 1e-8),
        kernel_efficiency=one_of(1.0, 0.65),
        dtype=dtype,
        accumulate=accumulate,
        functional=data.draw(st.booleans()),
    )
    pattern = one_of(None, (2, 4), (1, 4), (1, 8), (3, 7))
    density = one_of(0.0, 0.05, 0.4, 1.0)
    both(machine, linear(number(1, 70), number(1, 70), number(1, 40), pattern, density, number(0, 99)))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    groups=st.sampled_from([1, 2]),
    channels=st.sampled_from([3, 4]),
    density=st.sampled_from([0.1, 0.5]),
    sparsity=st.sampled_from(["2:4", "dense"]),
)
def test_units_and_recurrences_agree_on_convolutions(groups, channels, density, sparsity):
    rng = np.random.default_rng(7)
    shape = (20 * groups, channels, 3, 2)
    layer = Layer(
        name="conv",
        op="conv2d",
        weight=((rng.random(shape) < density) * rng.standard_normal(shape)).astype(np.float32),
        inputs=rng.standard_normal((2, channels * groups, 5, 6)).astype(np.float32),
        attributes={"groups": groups, "padding": (1, 0)},
    )
    result = both(tiny(sparsity=sparsity), layer)
    assert result.vectors == 2 * 5 * 5 and result.counts["ctas"] == groups * 1 * 4


def matmul(products, out, rows, depth, samples=1, pattern=None, seed=3):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((products, out, depth)).astype(np.float32)
    kind = Pattern()
    if pattern is not None:
        weight = sparse_weight(rng, products * out, depth, *pattern).reshape(weight.shape)
        kind = Pattern("n:m", n=pattern[0], m=pattern[1], axis=2)
    inputs = rng.standard_normal((products, rows, depth)).astype(np.float32)
    attributes = {"samples": samples}
    return Layer(name="qk", op="matmul", weight=weight, inputs=inputs, pattern=kind, attributes=attributes)


def test_heads_of_a_matmul_share_one_launch():
    layer = matmul(6, 32, 16, 16, samples=2)
    result = both(tiny(launch_s=1e-6), layer)
    assert (result.counts["ctas"], result.counts["waves"]) == (6, 3)
    assert result.cycles_per_unit["sm"]["launch"] == [1410, 1410]
    assert (result.samples, result.vectors, result.macs) == (2, 96, 6 * 32 * 16 * 16)
    assert result.output.shape == (96, 32)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, 40)] * 3),
    samples=st.integers(1, 2),
    heads=st.integers(1, 3),
    pattern=st.sampled_from([None, (2, 4), (1, 4)]),
    sparsity=st.sampled_from(["dense", "2:4", "n:m", "v:n:m"]),
    dtype=st.sampled_from(["fp16", "bf16", "int8"]),
)
def test_units_and_recurrences_agree_on_products_of_activations(sizes, samples, heads, pattern, sparsity, dtype):
    accumulate = "int32" if dtype == "int8" else "fp32"
    layer = matmul(samples * heads, *sizes, samples=samples, pattern=pattern)
    result = both(tiny(sparsity=sparsity, dtype=dtype, accumulate=accumulate), layer)
    exact = np.concatenate([x @ w.T for x, w in zip(layer.inputs, layer.weight, strict=True)])
    assert np.abs(result.output - exact).max() <= {"fp16": 0.05, "bf16": 0.3, "int8": 1.0}[dtype]


def test_an_activation_that_promises_nothing_runs_dense_whatever_its_zeros():
    sparse = matmul(2, 32, 16, 32, pattern=(2, 4))
    bare = Layer(name="qk", op="matmul", weight=sparse.weight, inputs=sparse.inputs, attributes={"samples": 1})
    promised, plain = both(tiny(), sparse), both(tiny(), bare)
    assert plain.counts["multiplications"] == 2 * promised.counts["multiplications"]
    assert plain.macs == 2 * promised.macs
    np.testing.assert_array_equal(plain.output, promised.output)


def test_causes_of_a_product_by_hand():
    # Two SMs, three tiles of 32 x 16 x 16; dense fp16: 4 instructions a step, of 2048 of 1024 a cycle: 8 cycles.
    machine = tiny(launch_s=0.0, functional=False, energy="")
    result = both(machine, linear(96, 32, 16))
    config = machine.config
    # A step reads (4 warps x (16 + 8) x 16) and writes (32 + 16) x 16 words of two bytes, 128 bytes a cycle.
    memory = 2 * 16 * (4 * 24 + 48) / 128
    epilogue = 32 * 16 * 2 * 2 / (0.85 * 1555e9 / 1410e6)
    tile = 30 + 2 * memory + epilogue
    assert memory == 36 and config.warps_per_cta == 4
    assert result.cycles == int(np.ceil(2 * tile))
    assert result.cycles_per_unit["sm"]["tensor_core"] == [32, 16]
    assert result.cycles_per_unit["sm"]["shared_memory"] == [2 * 2 * (36 - 8), 2 * (36 - 8)]
    assert result.cycles_per_unit["sm"]["fill"] == [60, 30]
    assert result.cycles_per_unit["sm"]["idle"][0] == 0
    assert result.cycles_per_unit["sm"]["idle"][1] == pytest.approx(tile, abs=1)
    assert result.cycles_per_unit["tensor_core"]["busy"] == [32, 16]
    assert result.counts == {
        "macs": 96 * 32 * 16,
        "instructions": 3 * 2 * 4,
        "multiplications": 3 * 2 * 4 * 2048,
        "ctas": 3,
        "waves": 2,
        "repeated_groups": 0,
        "metadata_bytes": 0,
        "smem_read_bytes": 3 * 2 * 2 * 16 * 96,
        "smem_write_bytes": 3 * 2 * 2 * 16 * 48,
        "l2_read_bytes": 3 * 2 * 2 * 16 * 48,
        "l2_write_bytes": 2 * 96 * 16,
        "hbm_read_bytes": 2 * (96 * 32 + 32 * 16),
        "hbm_write_bytes": 2 * 96 * 16,
    }
    assert result.storage_bits == {"values": 16 * 96 * 32, "positions": 0}
    assert result.energy_j is None and result.warnings == []


def test_an_edge_tile_costs_a_whole_one():
    machine = tiny(functional=False, sparsity="dense")
    whole, edge = both(machine, linear(32, 32, 16)), both(machine, linear(17, 17, 9))
    assert edge.cycles == whole.cycles
    assert whole.cycles_by_cause["sm"]["padding"] == 0
    # 17 x 9 of 32 x 16 outputs, 17 of 32 along the reduction; rounded to whole cycles.
    share = 17 * 9 * 17 / (32 * 16 * 32)
    assert edge.cycles_by_cause["sm"]["tensor_core"] == pytest.approx(16 * share, abs=1)
    assert edge.cycles_by_cause["sm"]["padding"] == pytest.approx(16 * (1 - share), abs=1)


def test_hbm_bounds_a_product_that_multiplies_little():
    machine = tiny(hbm_bytes_per_s=1e9, functional=False, fill_cycles=0)
    result = both(machine, linear(64, 16, 8))
    moved = 2 * (64 * 16 + 16 * 8 + 64 * 8)
    assert result.traffic_bytes["hbm"] == moved
    assert result.cycles >= moved / 0.85e9 * 1410e6
    assert result.cycles_by_cause["sm"]["hbm"] > result.cycles / 2
    roof = result.roofline
    assert roof["macs_per_byte"] == result.macs / moved < roof["ridge_macs_per_byte"]
    assert roof["bound_macs_per_s"] == pytest.approx(result.macs / moved * 0.85e9)


def test_a_kernel_of_65_percent_takes_longer_by_that_much():
    gemm = Gemm(512, 512, 512)
    bound, real = (gemm_cost(load_machine("a100-sparse", kernel_efficiency=e), gemm) for e in (1.0, 0.65))
    assert real.cycles == pytest.approx(bound.cycles / 0.65, abs=1)
    assert real.cycles_by_cause["kernel"] == pytest.approx(108 * (real.cycles - bound.cycles), abs=108)


def test_sparsity_dense_is_the_baseline_of_the_same_chip():
    layer = linear(64, 64, 32, (2, 4))
    sparse, dense = both(tiny(), layer), both(tiny(sparsity="dense"), layer)
    assert dense.cycles > sparse.cycles
    assert dense.counts["multiplications"] == 2 * sparse.counts["multiplications"]
    assert dense.macs == 2 * sparse.macs == 64 * 64 * 32
    np.testing.assert_array_equal(dense.output, sparse.output)


# Values.


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


# Patterns that cores take, and those that they do not.


def test_sparser_patterns_gain_nothing_on_plain_2_4_cores():
    assert gemm_cost(A100, Gemm(4096, 4096, 4096, pattern=(1, 8))).kind == "2:4"
    layers = [linear(64, 64, 32, pattern) for pattern in ((2, 4), (1, 4), (1, 8))]
    results = [both(tiny(), layer) for layer in layers]
    assert len({result.cycles for result in results}) == 1
    assert results[2].macs == results[0].macs / 4


def test_a_wider_pattern_than_the_muxes_is_run_as_2_4_and_told():
    result = both(tiny(sparsity="n:m", largest_m=4), linear(32, 64, 16, (1, 8)))
    assert result.warnings == ["1:8 needs muxes of 8, and largest_m is 4: run as 2:4"]
    assert result.cycles == both(tiny(), linear(32, 64, 16, (2, 4))).cycles


def test_wider_fetch_goes_further_than_muxes_alone():
    gemm = Gemm(4096, 4096, 4096, pattern=(1, 8))
    wide = load_machine("a100-wide-fetch")
    assert gemm_cost(wide, gemm).cycles < gemm_cost(MUXES, gemm).cycles
    assert gemm_cost(wide, gemm).counts["smem_read_bytes"] == gemm_cost(MUXES, gemm).counts["smem_read_bytes"]


def shared_weight(rng, rows, depth, block, m):
    """A weight whose blocks of rows share four of ``m`` inputs, of which each row keeps two."""
    weight = np.zeros((rows, depth), np.float32)
    for first in range(0, rows, block):
        for group in range(0, depth, m):
            four = group + rng.permutation(m)[:4]
            for row in range(first, min(rows, first + block)):
                weight[row, rng.permutation(four)[:2]] = rng.standard_normal(2) + 3
    return weight


def test_rows_that_choose_together_fetch_only_what_they_chose():
    rng = np.random.default_rng(0)
    weight = shared_weight(rng, 32, 64, 16, 16)
    layer = Layer(
        name="fc",
        op="linear",
        weight=weight,
        inputs=rng.standard_normal((16, 64)).astype(np.float32),
        pattern=Pattern("n:m", n=2, m=16, axis=1),
    )
    result = both(tiny(sparsity="v:n:m", largest_m=16, vector_rows=16, cta_rows=16), layer)
    assert result.warnings == []
    groups, tiles = 4, 2
    assert result.counts["multiplications"] == 32 * 16 * groups * 2
    values, positions, columns = 32 * groups * 2 * 16, 32 * groups * 2 * 2, 2 * groups * 4 * 4
    assert result.storage_bits == {"values": values, "positions": positions, "columns": columns}
    from_b = 16 * groups * 4 * 16  # bits of four of sixteen rows of B, 16 columns
    assert result.counts["l2_read_bytes"] == (values + positions + columns + tiles * from_b) // 8
    muxes = both(tiny(sparsity="n:m", largest_m=16, cta_rows=16), layer)
    assert result.counts["l2_read_bytes"] < muxes.counts["l2_read_bytes"]
    assert result.cycles < muxes.cycles
    np.testing.assert_array_equal(result.output, muxes.output)


def test_rows_that_do_not_choose_together_run_as_2_4():
    result = both(tiny(sparsity="v:n:m", largest_m=16, vector_rows=16), linear(32, 64, 16, (2, 16)))
    assert result.warnings == [
        "blocks of 16 rows must share 4 of 16 inputs and keep 2 each, and that of row 0 does not: run as 2:4"
    ]
    assert result.cycles == both(tiny(), linear(32, 64, 16, (2, 4))).cycles


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5])
def test_overflowing_groups_of_a_random_weight_follow_the_binomial(density):
    weight = np.random.default_rng(1).random((512, 1024)) < density
    gemm = Gemm(512, 1024, 64, pattern=None)
    config = load_machine("a100-sparse", lockstep_rows=1, cta_rows=1, warp_rows=1).config
    found = plan(config, gemm, weight.reshape(512, 1024, 1))
    expected = 4 * density**3 * (1 - density) + density**4
    if found.kind.is_dense:
        pytest.fail("a sparse weight should be issued in passes")
    groups = 512 * 256
    deviation = (expected * (1 - expected) / groups) ** 0.5
    assert found.overflowing / groups == pytest.approx(expected, abs=4 * deviation)
    assert found.repeats == found.overflowing  # each row for itself: a second pass for each


def test_rows_in_lockstep_wait_for_the_one_that_needs_most_passes():
    density, rows = 0.15, 16
    weight = np.random.default_rng(2).random((1024, 2048)) < density
    gemm = Gemm(1024, 2048, 64, pattern=None)
    config = load_machine("a100-sparse", lockstep_rows=rows, cta_rows=rows, warp_rows=rows).config
    found = plan(config, gemm, weight.reshape(1024, 2048, 1))
    alone = 4 * density**3 * (1 - density) + density**4
    together = 1 - (1 - alone) ** rows
    slices = 1024 // rows * 512
    deviation = (together * (1 - together) / slices) ** 0.5
    assert found.repeats / slices == pytest.approx(together, abs=4 * deviation)


def test_unstructured_weights_take_passes_between_2_4_and_dense():
    machine = load_machine("a100-sparse", functional=False)

    def cycles(density, **changes):
        rng = np.random.default_rng(0)
        weight = ((rng.random((1024, 2048)) < density) * rng.standard_normal((1024, 2048))).astype(np.float32)
        layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((2048, 2048), np.float32))
        result = tensorcore.fast(load_machine("a100-sparse", functional=False, **changes), layer, Memo())
        return result.cycles, result.cycles_by_cause["sm"]["passes"]

    two_four = gemm_cost(machine, Gemm(1024, 2048, 2048, pattern=(2, 4))).cycles
    dense = gemm_cost(machine, Gemm(1024, 2048, 2048)).cycles
    assert cycles(0.005)[0] == pytest.approx(two_four, rel=0.01)
    sparse, repeated = cycles(0.05)
    assert two_four < sparse < dense and repeated > 0
    assert cycles(0.5) == (dense, 0)  # as many passes as dense instructions: issued dense
    # Few rows a lock-step wait less, though a CTA still waits for the slice that needs most.
    assert cycles(0.15, cta_depth=128, lockstep_rows=1)[0] < cycles(0.15, cta_depth=128, lockstep_rows=64)[0]


def test_passes_of_different_rows_are_dealt_to_sms_that_are_free():
    rng = np.random.default_rng(4)
    weight = np.zeros((160, 256), np.float32)
    weight[:32, ::5] = 1.0  # one of five: never three in a group of four
    weight[64:96, :48] = rng.standard_normal((32, 48))
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((16, 256), np.float32))
    result = both(tiny(), layer)
    assert result.counts["repeated_groups"] == 12
    assert result.cycles_by_cause["sm"]["passes"] > 0


# What users see.


@pytest.mark.parametrize(
    "name",
    ["a100-sparse", "a100-dense", "a100-muxes", "a100-wide-fetch", "a100-vnm", "rtx3070ti-sparse", "h100-sparse"],
)
def test_every_preset_runs_a_bundled_trace_in_both_engines(name):
    checks = check(load_machine(name), load_trace("lenet-digits-imp"))
    assert len(checks) == 3 and all(found.passed for found in checks)


def test_a_check_needs_the_values():
    with pytest.raises(InputError) as error:
        check(load_machine("a100-sparse", functional=False), load_trace("lenet-digits-imp"))
    assert str(error.value) == "a100-sparse: a check compares values, and functional is false; set functional=true"


def test_timeline_shows_loads_beside_multiplications():
    timeline = Timeline()
    both(tiny(sm_count=1, launch_s=0.0), linear(32, 48, 16), timeline)
    tracks = {interval.track for interval in timeline.intervals}
    assert tracks == {"sm0", "sm0 l2", "sm0 tensor_core", "sm0 shared_memory", "hbm"}
    loads = [interval for interval in timeline.intervals if interval.track == "sm0 l2"]
    feeds = [interval for interval in timeline.intervals if interval.track == "sm0 shared_memory"]
    assert loads[0].end == feeds[0].start == 30
    assert loads[0].name == "load 0" and len(feeds) == 3


def test_energy_is_that_of_the_counts():
    result = both(tiny(), linear(64, 64, 16, (2, 4)))
    counts = result.counts
    parts = {
        "TensorCore": 1.7 * counts["multiplications"],
        "Instruction": 30 * counts["instructions"],
        "SharedMemory": 2.5 * (counts["smem_read_bytes"] + counts["smem_write_bytes"]),
        "L2": 12.5 * (counts["l2_read_bytes"] + counts["l2_write_bytes"]),
        "Hbm": 31.36 * (counts["hbm_read_bytes"] + counts["hbm_write_bytes"]),
    }
    assert result.energy_j.by_part == pytest.approx({part: pj * 1e-12 for part, pj in parts.items()})
    eight = both(tiny(dtype="int8", accumulate="int32"), linear())
    assert eight.energy_j is None
    assert eight.warnings == ["energy table tensorcore-event is for words of 16 bits, not 8: no energy given"]


def test_steps_that_exceed_the_shared_memory_are_told():
    result = both(tiny(smem_bytes=3071), linear(32, 32, 16))
    assert result.warnings == ["the steps in flight take 3072 bytes of 3071 in the shared memory of an SM"]
    assert both(tiny(smem_bytes=3072), linear(32, 32, 16)).warnings == []


def test_operands_that_both_exceed_the_l2_are_told():
    result = both(tiny(l2_bytes=1023), linear(32, 32, 16))
    assert result.warnings == [
        "the smaller operand takes 1024 bytes of 1023 in L2: that HBM moves each once is optimistic"
    ]
    assert both(tiny(l2_bytes=1024), linear(32, 32, 16)).warnings == []


def test_train_1_8_or_2_4_depends_on_the_machine():
    traces = [Trace(name=f"{n}-{m}", layers=(linear(512, 1024, 512, (n, m)),)) for n, m in ((2, 4), (1, 8))]

    def gain(name):
        machine = load_machine(name, functional=False)
        two_four, one_eight = (simulate(machine, trace).total.cycles for trace in traces)
        return two_four / one_eight

    assert gain("a100-sparse") == gain("a100-dense") == 1.0
    assert gain("a100-wide-fetch") > gain("a100-muxes") > 1.05


def test_bits_are_not_multiplied_for_a_trace():
    with pytest.raises(InputError) as error:
        tensorcore.fast(load_machine("a100-sparse", dtype="b1", accumulate="int32"), linear(), Memo())
    assert str(error.value) == (
        "layer fc: dtype b1 multiplies bits, and a trace has numbers; choose another, or simulate instructions alone"
    )


def test_cost_of_sizes_is_the_cost_of_a_layer_of_these_sizes():
    layer = linear(200, 300, 100, (2, 4))
    gemm = Gemm(200, 300, 100, pattern=(2, 4))
    machine = load_machine("a100-sparse", sm_count=3, cta_rows=64, functional=False)
    result, fast, event = both(machine, layer), gemm_cost(machine, gemm), gemm_cost(machine, gemm, "event")
    assert dataclasses.asdict(fast) == dataclasses.asdict(event)
    assert (fast.cycles, fast.counts) == (result.cycles, result.counts)
    assert fast.cycles_by_cause == result.cycles_by_cause["sm"] and tuple(fast.cycles_by_cause) == CAUSES


def fastest(act, times=5):
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
    return best


def test_a_large_product_takes_no_longer_than_5_ms():
    gemm = Gemm(4096, 4096, 4096, pattern=(2, 4))
    gemm_cost(A100, gemm)  # compiles
    assert fastest(lambda: gemm_cost(A100, gemm)) < 5e-3
