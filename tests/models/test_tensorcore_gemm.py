"""Products on tensor cores: the published sizes, both engines on random products, and causes by hand."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine
from gossamer.models.parts.tensorcore.gemm import CAUSES
from gossamer.models.parts.tensorcore.plan import plan
from gossamer.models.parts.tensorcore.tiles import measure
from gossamer.models.parts.ticks import TICKS
from gossamer.models.tensorcore import gemm_cost
from gossamer.workloads import Layer
from gossamer.workloads.gemm import Gemm

from .tensorcore_layers import A100, MUXES, both, linear, matmul, tiny

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
