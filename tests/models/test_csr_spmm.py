"""CSR SpMM on a GPU: the two engines against each other, the account by hand, imbalance and its repair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import csr_spmm, load_machine
from gossamer.models.csr_spmm import spmm_cost
from gossamer.models.parts.csr_spmm.config import choose
from gossamer.models.parts.csr_spmm.rows import measure_work, split_rows
from gossamer.models.parts.csr_spmm.timing import CAUSES
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.simulate import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import Layer, Trace, load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth import gemm_layer

from .agreement import agree, assert_units_add_up

TINY = {
    "sm_count": 2, "kernel": "fixed", "tile_columns": 8, "tile_depth": 8, "subwarp_threads": 4, "block_rows": 8,
    "sparse_vector": 2, "dense_vector": 2, "residue_unroll": 2, "loads_in_flight": 8, "max_blocks_per_sm": 2,
    "launch_s": 1e-8,
}  # fmt: skip


def tiny(**changes):
    """A GPU of two SMs and small tiles, so that a few numbers make many blocks and steps."""
    return load_machine("a100-sputnik", **(TINY | changes))


def linear(weight, columns=5, seed=0, **more):
    rng = np.random.default_rng(seed)
    weight = np.asarray(weight, np.float32)
    inputs = rng.standard_normal((columns, weight.shape[1])).astype(np.float32)
    return Layer(name="fc", op="linear", weight=weight, inputs=inputs, **more)


def by_lengths(lengths, depth, seed=0):
    """Return a weight whose rows have so many nonzeros, at random places."""
    rng = np.random.default_rng(seed)
    rank = rng.random((len(lengths), depth)).argsort(axis=1).argsort(axis=1)
    weight = np.where(rank < np.asarray(lengths)[:, None], rng.standard_normal((len(lengths), depth)), 0)
    return np.where((rank < np.asarray(lengths)[:, None]) & (weight == 0), 1, weight).astype(np.float32)


def both(machine, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything."""
    fast = agree(csr_spmm, machine, layer, timeline)
    assert_units_add_up(fast)
    assert list(fast.cycles_by_cause["sm"]) == list(CAUSES)
    assert fast.theoretical_cycles <= fast.cycles and 0 <= fast.utilization <= 1 and 0 <= fast.load_balance <= 1
    counts = fast.counts
    assert counts["multiplications"] == counts["macs"] + counts["padding_multiplications"]
    assert counts["dense_row_misses"] <= counts["dense_rows"]
    return fast


KERNELS = [
    {},
    {"order": "identity"},
    {"subwarp_threads": 32, "block_rows": 3, "tile_columns": 32, "sparse_vector": 1, "dense_vector": 1,
     "tile_depth": 32, "residue_unroll": 1, "loads_in_flight": 1},
    {"subwarp_threads": 1, "block_rows": 64, "tile_columns": 4, "dense_vector": 4, "sparse_vector": 8},
    {"dtype": "fp16", "index_bits": 16, "energy": ""},
    {"kernel": "heuristic"},
    {"kernel": "heuristic", "dtype": "fp16", "energy": "", "order": "identity"},
    {"kernel_efficiency": 0.7, "l1_bytes": 64, "l2_bytes": 256},
    {"fma_per_clk": 3, "l2_bytes_per_clk": 7.0, "hbm_bytes_per_s": 1e9},
    {"l1_bytes_per_clk": 1.5, "nonzero_instructions": 40},
    {"l1_latency_cycles": 0, "smem_latency_cycles": 0, "l2_latency_cycles": 0},
]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 24),
    depth=st.integers(1, 40),
    columns=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    sigma=st.sampled_from([0.0, 1.0]),
    kernel=st.sampled_from(KERNELS),
    seed=st.integers(0, 99),
)
def test_the_engines_agree_on_random_matrices(rows, depth, columns, density, sigma, kernel, seed):
    rng = np.random.default_rng(seed)
    chance = np.clip(density * rng.lognormal(0, sigma, rows), 0, 1)[:, None]
    weight = np.where(rng.random((rows, depth)) < chance, rng.standard_normal((rows, depth)), 0)
    layer = linear(weight, columns, seed, bias=rng.standard_normal(rows).astype(np.float32))
    result = both(tiny(**kernel), layer)
    assert result.macs == np.count_nonzero(layer.weight) * columns


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    groups=st.integers(1, 2),
    outputs=st.integers(1, 6),
    channels=st.integers(1, 3),
    side=st.integers(3, 6),
    kernel=st.sampled_from(KERNELS),
    seed=st.integers(0, 99),
)
def test_the_engines_agree_on_convolutions(groups, outputs, channels, side, kernel, seed):
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((groups * outputs, channels, 3, 3)) < 0.4, rng.standard_normal(9).reshape(3, 3), 0)
    layer = Layer(
        name="conv", op="conv2d", weight=weight.astype(np.float32), attributes={"groups": groups},
        inputs=rng.standard_normal((2, groups * channels, side, side)).astype(np.float32),
    )  # fmt: skip
    both(tiny(**kernel), layer)


def test_a_product_of_activations_is_stored_whole():
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((2, 5, 9)) < 0.3, 1, 0).astype(np.float32)
    layer = Layer(
        name="attention", op="matmul", weight=weight, attributes={"samples": 1},
        inputs=rng.standard_normal((2, 4, 9)).astype(np.float32),
    )  # fmt: skip
    result = both(tiny(), layer)
    assert result.macs == 2 * 5 * 9 * 4 and result.counts["multiplications"] >= result.macs


# What rows become.


def test_rows_by_hand():
    config = tiny().config  # steps of 8, loads of 2, residues by 2
    rows = split_rows(config, np.array([3, 12, 0, 9]))
    assert rows.order.tolist() == [1, 3, 0, 2]
    assert rows.nonzeros.tolist() == [12, 9, 3, 0]
    # Row 1 starts at entry 3 and is read from 2 on; row 3 starts at 15 and is read from 14 on; row 0 is no full step.
    assert rows.masked.tolist() == [1, 1, 0, 0]
    assert rows.steps.tolist() == [1, 1, 0, 0]
    assert rows.residue.tolist() == [5, 2, 3, 0]
    assert rows.unrolled.tolist() == [6, 2, 4, 0]


def test_a_warp_goes_as_far_as_its_longest_row():
    kept = by_lengths([3, 12, 0, 9], 16)[None]
    work = measure_work(tiny(subwarp_threads=8, block_rows=4, tile_columns=16, sparse_vector=1).config, kept)
    warps = work.warps
    assert (warps.steps.tolist(), warps.unrolled.tolist()) == ([1], [4])
    assert warps.slots.tolist() == [4 * 12]
    assert warps.computed.tolist() == [12 + 10 + 4]
    assert warps.distinct.tolist() == [np.count_nonzero(kept[0].any(axis=0))]


def test_equal_rows_leave_no_lane_idle_and_one_long_row_does():
    even = both(tiny(), linear(by_lengths([16] * 16, 64), 16))
    uneven = both(tiny(), linear(by_lengths([16] * 15 + [64], 64), 16))
    assert even.counts["idle_multiplications"] == 0 == even.cycles_by_cause["sm"]["subwarp_idle"]
    assert uneven.counts["idle_multiplications"] > 0 < uneven.cycles_by_cause["sm"]["subwarp_idle"]
    assert uneven.load_balance < even.load_balance


def lognormal_lengths(rows, mean, cov, depth, seed=0):
    """Return row lengths of this mean and coefficient of variation, at most ``depth``; equal ones for 0."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log(1 + cov**2))
    lengths = mean * rng.lognormal(-(sigma**2) / 2, sigma, rows)
    return np.clip(np.rint(lengths), 0, depth).astype(int)


def test_row_swizzle_repairs_uneven_rows_and_gains_nothing_on_even_ones():
    """More blocks than places: four in a place here."""
    changes = {"functional": False, "sm_count": 10}
    sorted_rows, as_they_are = (load_machine("v100-sputnik", order=o, **changes) for o in ("sorted", "identity"))
    gains, balances = [], []
    for cov in (0.0, 0.25, 0.5, 1.0):
        layer = linear(by_lengths(lognormal_lengths(2048, 128, cov, 1024), 1024), 64)
        with_it, without = (csr_spmm.fast(machine, layer, Memo()) for machine in (sorted_rows, as_they_are))
        gains.append(without.cycles / with_it.cycles)
        balances.append((without.load_balance, with_it.load_balance))
        if cov:
            assert with_it.cycles_by_cause["sm"]["subwarp_idle"] < 0.2 * without.cycles_by_cause["sm"]["subwarp_idle"]
    assert gains[0] == 1 and balances[0][0] == balances[0][1]
    assert gains == sorted(gains) and gains[3] > 1.2
    assert all(after > before for before, after in balances[1:])


def test_vector_loads_and_sub_warps_need_fewer_lines_of_l1():
    layer = linear(by_lengths([32] * 64, 256), 64)
    vectors, scalars = (
        csr_spmm.fast(load_machine("v100-sputnik", kernel="fixed", functional=False, dense_vector=v), layer, Memo())
        for v in (4, 1)
    )
    assert vectors.counts["multiplications"] == scalars.counts["multiplications"]
    assert vectors.counts["instructions"] < scalars.counts["instructions"]
    assert vectors.counts["l1_read_bytes"] < scalars.counts["l1_read_bytes"]


def test_vector_loads_of_nonzeros_need_fewer_instructions():
    layer = linear(by_lengths([32] * 16, 64), 8)  # whole steps, all of them aligned
    vectors, scalars = both(tiny(), layer), both(tiny(sparse_vector=1), layer)
    # Of each of 2 warps, 4 steps: a load and a store of values and of columns less.
    assert scalars.counts["instructions"] - vectors.counts["instructions"] == 2 * 4 * 4
    assert vectors.counts["masked_nonzeros"] == 0


def test_what_aligns_loads_is_read_and_masked():
    layer = linear(by_lengths([33] * 16, 64), 8)
    aligned = both(tiny(), layer)
    scalar = both(tiny(sparse_vector=1), layer)
    assert scalar.counts["masked_nonzeros"] == 0
    assert aligned.counts["masked_nonzeros"] == 8  # every other row starts at an odd entry
    assert aligned.counts["padding_multiplications"] == scalar.counts["padding_multiplications"]


def test_a_slice_that_l1_holds_is_read_from_l2_once_an_sm():
    layer = linear(by_lengths([20] * 64, 40), 8)
    held, lost = both(tiny(), layer), both(tiny(l1_bytes=32), layer)
    assert held.counts["dense_rows"] == lost.counts["dense_rows"]
    assert held.counts["dense_row_misses"] < lost.counts["dense_row_misses"]
    assert held.cycles <= lost.cycles


def test_a_slice_beyond_l2_comes_from_hbm_again():
    layer = linear(by_lengths([20] * 16, 40), 20)
    fits, streams = both(tiny(), layer), both(tiny(l2_bytes=64), layer)
    assert streams.counts["hbm_read_bytes"] > fits.counts["hbm_read_bytes"]
    assert any("in L2" in warning for warning in streams.warnings) and not fits.warnings


# Kernels.


@pytest.mark.parametrize(
    ("columns", "tile"),
    [(1, (1, 32, 1, 1)), (4, (4, 8, 4, 1)), (8, (4, 8, 4, 1)), (10, (2, 32, 2, 2)), (16, (4, 16, 4, 2)),
     (32, (4, 32, 4, 4)), (63, (1, 32, 1, 1)), (64, (4, 64, 4, 4)), (100, (4, 32, 4, 4)), (128, (4, 64, 4, 4))],
)  # fmt: skip
def test_the_heuristic_chooses_as_the_library_does(columns, tile):
    config = choose(load_machine("v100-sputnik").config, columns)
    assert (config.block_rows, config.tile_columns, config.sparse_vector, config.dense_vector) == tile


def test_registers_bound_the_blocks_of_an_sm():
    wide = choose(load_machine("v100-sputnik").config, 64)
    assert (wide.registers_per_thread, wide.blocks_per_sm) == (255, 8)  # Sputnik asks its compiler for 8 here
    assert choose(load_machine("v100-sputnik").config, 32).blocks_per_sm == 11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sm_count": 0}, "a100-sputnik: sm_count must be at least 1, not 0"),
        ({"subwarp_threads": 12}, "a100-sputnik: subwarp_threads must divide a warp of 32 threads, not 12"),
        ({"sparse_vector": 3}, "a100-sputnik: sparse_vector must be 1, 2, 4 or 8 values, not 3"),
        ({"block_rows": 6},
         "a100-sputnik: block_rows must fill warps of 4 rows, and 6 do not; change it or subwarp_threads"),
        ({"tile_depth": 20},
         "a100-sputnik: tile_depth must be a multiple of subwarp_threads x sparse_vector, 32, not 20"),
        ({"tile_columns": 40},
         "a100-sputnik: tile_columns must be a multiple of subwarp_threads x dense_vector, 32, not 40"),
        ({"residue_unroll": 3}, "a100-sputnik: residue_unroll must divide tile_depth, 32, not 3"),
        ({"order": "random"}, "a100-sputnik: order must be identity or sorted, not 'random'"),
        ({"l2_efficiency": 0.0}, "a100-sputnik: l2_efficiency must be above 0 and at most 1, not 0.0"),
        ({"launch_s": -1.0}, "a100-sputnik: launch_s must be at least 0 and finite, not -1.0"),
        ({"clock_hz": float("inf")}, "a100-sputnik: clock_hz must be above 0 and finite, not inf"),
        ({"registers_per_sm": 100},
         "a100-sputnik: a thread block of 1 warps and 176 registers a thread must fit in an SM, and does not; "
         "shrink the tile"),
    ],
)  # fmt: skip
def test_what_is_no_gpu_is_said(changes, message):
    with pytest.raises(InputError) as error:
        load_machine("a100-sputnik", **changes)
    assert str(error.value) == message


# Values, timelines, whole traces.


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_outputs_are_within_the_rounding_of_the_format(dtype):
    layer = linear(by_lengths([40] * 20, 100), 12, bias=np.arange(20, dtype=np.float32))
    machine = tiny(dtype=dtype, energy="")
    result = both(machine, layer)
    exact = layer.inputs.astype(np.float64) @ layer.weight.T.astype(np.float64) + layer.bias
    assert (np.abs(result.output - exact) <= csr_spmm.error_bound(machine, layer)).all()
    assert 0 < result.arithmetic["max_abs_error"] < (1e-5 if dtype == "fp32" else 0.1)


def test_a_bundled_trace_passes_its_check():
    checks = check(load_machine("v100-sputnik", sm_count=4), load_trace("lenet-digits-imp"))
    assert len(checks) == 3 and all(found.passed for found in checks)


def test_a_timeline_shows_what_a_warp_asks_of_whom():
    timeline = Timeline()
    result = both(tiny(), linear(by_lengths([10] * 8, 20), 8), timeline)
    tracks = {interval.track for interval in timeline.intervals}
    assert {"chip", "hbm", "sm0.0", "sm0.0 core", "sm0.0 l1", "sm0.0 chain"} <= tracks
    assert max(interval.end for interval in timeline.intervals) <= result.cycles == timeline.offset


def test_fp16_has_no_energies_in_a_table_of_fp32():
    layer = linear(by_lengths([4] * 4, 8), 4)
    result = csr_spmm.fast(tiny(dtype="fp16"), layer, Memo())
    assert result.energy_j is None
    assert result.warnings == ["energy table gpu-event is for words of 32 bits, not 16: no energy given"]


def test_storage_is_csr_and_the_order_of_rows():
    layer = linear(by_lengths([4, 0, 7], 8), 4)
    parts = {"values": 11 * 32, "columns": 11 * 32, "offsets": 4 * 32}
    assert csr_spmm.fast(tiny(order="identity"), layer, Memo()).storage_bits == parts
    assert csr_spmm.fast(tiny(), layer, Memo()).storage_bits == parts | {"row_order": 3 * 32}


def test_dense_weights_of_many_columns_take_the_closed_form():
    """All warps alike and as many blocks as slots: launch, start, and the greatest of what a warp asks."""
    machine = load_machine("a100-sputnik", kernel="fixed", functional=False)
    blocks = machine.config.sm_count * machine.config.blocks_per_sm
    trace = Trace(name="t", layers=(linear(np.ones((4 * blocks, 64), np.float32), 32),))
    layer = simulate(machine, trace).layers[0]
    assert layer.counts["waves"] == 1 and layer.cycles_by_cause["sm"]["idle"] == 0
    # L1: of 11 warps, 2 steps of 32 nonzeros of 4 rows, a line each, and 8 lines of nonzeros, 16 of shared memory.
    lines = 11 * 2 * (32 * 4 + 8 + 16)
    start = 2 * 200
    l2 = layer.cycles_by_cause["sm"]["l2"] / machine.config.sm_count
    launch = 3e-6 * machine.config.clock_hz
    assert layer.cycles >= launch + start + lines
    assert l2 > 0 or layer.cycles == pytest.approx(launch + start + lines, abs=2)


def test_a_cost_without_values_is_that_of_the_layer():
    layer = linear(by_lengths(lognormal_lengths(64, 20, 0.5, 64), 64), 48)
    machine = load_machine("v100-sputnik", functional=False)
    cost, result = spmm_cost(machine, layer.weight, 48), csr_spmm.fast(machine, layer, Memo())
    assert (cost.cycles, cost.latency_s, cost.utilization) == (result.cycles, result.latency_s, result.utilization)
    assert (cost.counts, cost.load_balance) == (result.counts, result.load_balance)
    assert cost.cycles_by_cause == result.cycles_by_cause["sm"]


def test_a_matrix_of_the_deep_learning_matrix_collection_is_simulated(tmp_path):
    path = tmp_path / "magnitude.smtx"
    path.write_text("3, 4, 5\n0 2 2 5\n1 3 0 1 2\n")
    result = simulate(load_machine("v100-sputnik"), load_trace(path, act_density=1.0, samples=6))
    assert (result.total.macs, result.layers[0].vectors) == (5 * 6, 6)


def test_the_fast_engine_reads_the_rows_once_for_all_machines_of_a_sweep():
    memo = Memo()
    layer = gemm_layer(64, 64, 16, "random:0.2").layers[0]
    first = csr_spmm.fast(tiny(), layer, memo)
    again = csr_spmm.fast(tiny(l2_bytes_per_clk=1.0), layer, memo)
    assert again.counts["dense_rows"] == first.counts["dense_rows"] and again.cycles > first.cycles


@pytest.mark.parametrize(
    ("field", "value"),
    [("l2_bytes_per_clk", 1e-12), ("l1_bytes_per_clk", 1e-12), ("hbm_bytes_per_s", 1e-9), ("launch_s", 1e12)],
)
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_times_that_leave_64_bits_are_refused(field, value, engine):
    layer = linear(by_lengths([4, 0, 9, 3], 12))
    with pytest.raises(InputError, match=rf"^layer fc: .* could come to \S+ with {field} = .*; choose nearer ones$"):
        simulate(tiny(**{field: value}), Trace(name="t", layers=(layer,)), engine=engine)


def test_a_slow_l2_takes_in_proportion_longer_up_to_what_is_refused():
    cycles = []
    for rate in (1e-4, 1e-5, 1e-6):
        machine = tiny(l2_bytes_per_clk=rate, hbm_bytes_per_s=1e15)
        cycles.append(simulate(machine, Trace(name="t", layers=(linear(by_lengths([4, 9], 12)),))).total.cycles)
    np.testing.assert_allclose(np.array(cycles) / cycles[0], [1, 10, 100], rtol=1e-3)


def test_a_heuristic_tile_that_does_not_go_with_the_rest_is_refused_by_name():
    machine = load_machine("a100-sputnik", tile_depth=24, sparse_vector=1, residue_unroll=12)
    trace = Trace(name="t", layers=(linear(by_lengths([4], 12), columns=64),))
    with pytest.raises(InputError) as caught:
        simulate(machine, trace)
    assert str(caught.value) == (
        "layer fc: kernel heuristic, 64 columns: residue_unroll must divide tile_depth, 32, not 12"
    )
    with pytest.raises(
        InputError, match=r"^layer fc: kernel heuristic, 64 columns: a thread block of 1 warps and 255 registers"
    ):
        simulate(load_machine("a100-sputnik", registers_per_sm=8000), trace)
