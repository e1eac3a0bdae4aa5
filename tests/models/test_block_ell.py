"""Block-ELLPACK on tensor cores: the two engines against each other, blocks by hand, what is multiplied in vain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import block_ell, load_machine, tensorcore
from gossamer.models.block_ell import OWN_CAUSES
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Timeline
from gossamer.workloads import Layer, load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern

from .agreement import agree, assert_units_add_up
from .bounds import assert_bounded, assert_tells, far_layers


def tiny(**changes):
    """A chip of two SMs and small tiles, so that a few numbers make many tiles and steps."""
    small = {
        "sm_count": 2, "cta_columns": 16, "cta_depth": 16, "warp_columns": 8, "fill_cycles": 30, "launch_s": 1e-8,
        "block": 8, "ctas_per_sm": 1,
    }  # fmt: skip
    return load_machine("a100-block-ell", **(small | changes))


def blocked(kept, block, rows=None, depth=None, columns=20, seed=0):
    """Return a linear layer whose blocks are those of ``kept``, cut to ``rows`` x ``depth``."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(np.repeat(np.asarray(kept, bool), block, axis=0), block, axis=1)[:rows, :depth]
    weight = np.where(mask, rng.uniform(0.5, 1, mask.shape), 0).astype(np.float32)
    inputs = rng.standard_normal((columns, mask.shape[1])).astype(np.float32)
    bias = rng.standard_normal(len(mask)).astype(np.float32)
    return Layer(
        name="fc", op="linear", weight=weight, inputs=inputs, bias=bias, pattern=Pattern("block", block=(block, block))
    )


def both(machine, layer, timeline=None):
    """Return the result of `fast`, having checked that the units agree with it in everything."""
    fast = agree(block_ell, machine, layer, timeline)
    assert_units_add_up(fast)
    assert list(fast.cycles_by_cause["sm"]) == list(OWN_CAUSES)
    assert 0 <= fast.utilization <= 1 and fast.theoretical_cycles <= fast.cycles
    return fast


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    block=st.sampled_from([1, 3, 8, 16, 32]),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    changes=st.sampled_from([{}, {"ctas_per_sm": 2}, {"dtype": "int8", "accumulate": "int32", "energy": ""},
                             {"accumulate": "fp16"}, {"kernel_efficiency": 0.6}]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_engines_agree_on_random_blocks(block, sides, density, changes, seed):
    rows, depth, columns = sides
    kept = np.random.default_rng(seed).random((-(-rows // block), -(-depth // block))) < density
    layer = blocked(kept, block, rows, depth, columns, seed)
    result = both(tiny(block=block, **changes), layer)
    assert result.counts["blocks"] == kept.sum()
    width = max(1, kept.sum(axis=1).max())
    assert result.counts["padding_blocks"] == kept.shape[0] * width - kept.sum()
    assert result.load_balance == kept.sum() / (kept.shape[0] * width)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(groups=st.integers(1, 2), outputs=st.integers(1, 12), channels=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_engines_agree_on_convolutions(groups, outputs, channels, seed):
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((groups * outputs, channels, 3, 3)) < 0.1, 1, 0).astype(np.float32)
    inputs = rng.standard_normal((2, groups * channels, 5, 5)).astype(np.float32)
    layer = Layer(name="conv", op="conv2d", weight=weight, inputs=inputs, attributes={"groups": groups})
    machine = tiny(block=4)
    result = both(machine, layer)
    assert (np.abs(result.output) <= 1e3).all()


def test_a_product_of_activations_is_kept_whole():
    rng = np.random.default_rng(0)
    layer = Layer(
        name="attention", op="matmul", weight=np.eye(16, dtype=np.float32)[None].repeat(2, axis=0),
        inputs=rng.standard_normal((2, 4, 16)).astype(np.float32), attributes={"samples": 1},
    )  # fmt: skip
    result = both(tiny(), layer)
    assert (result.counts["blocks"], result.counts["padding_blocks"]) == (2 * 4, 0)


def test_blocks_by_hand():
    kept = [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    result = both(tiny(), blocked(kept, 8))
    assert result.tiling == {"cta_rows": 8, "cta_columns": 16, "width": 2}
    counts = result.counts
    assert (counts["blocks"], counts["padding_blocks"], counts["fill_weights"]) == (3, 3, 0)
    assert counts["macs"] == 3 * 64 * 20
    # 3 block rows, 2 tiles of columns, a step of 16: of m16n8k16, one row of tiles, two columns.
    assert counts["ctas"] == 6 and counts["instructions"] == 6 * 2
    assert result.storage_bits == {"values": 6 * 64 * 16, "columns": 6 * 32}
    causes = result.cycles_by_cause["sm"]
    assert causes["padding_blocks"] > 0 and causes["padding"] >= causes["tensor_core"]  # 8 rows of an instruction's 16


def test_equal_block_rows_need_no_padding_and_unequal_ones_do():
    rng = np.random.default_rng(0)
    even = np.argsort(rng.random((16, 16)), axis=1) < 4
    uneven = np.zeros(256, bool)
    uneven[rng.permutation(256)[:64]] = True
    machine = tiny(functional=False)
    equal, other = (both(machine, blocked(kept, 8, columns=32)) for kept in (even, uneven.reshape(16, 16)))
    assert equal.macs == other.macs and equal.counts["padding_blocks"] == 0 < other.counts["padding_blocks"]
    assert equal.cycles < other.cycles and equal.storage_bits["values"] < other.storage_bits["values"]


def test_a_dense_weight_is_the_dense_product_of_the_tensor_cores():
    """With blocks as tall as the CTA tile of the dense machine."""
    rng = np.random.default_rng(0)
    layer = Layer(
        name="fc", op="linear", weight=rng.uniform(0.5, 1, (64, 96)).astype(np.float32),
        inputs=rng.standard_normal((48, 96)).astype(np.float32), pattern=Pattern("dense"),
    )  # fmt: skip
    cut = {"sm_count": 2, "cta_columns": 16, "cta_depth": 32, "warp_rows": 32, "warp_columns": 8, "cta_rows": 32}
    mine = both(load_machine("a100-block-ell", block=32, ctas_per_sm=1, **cut), layer)
    dense = tensorcore.fast(load_machine("a100-dense", **cut), layer, Memo())
    np.testing.assert_array_equal(mine.output, dense.output)
    for name in ("instructions", "multiplications", "ctas", "smem_read_bytes", "l2_read_bytes"):
        assert mine.counts[name] == dense.counts[name]
    assert mine.cycles == dense.cycles


def test_scattered_weights_keep_almost_every_block_and_say_so():
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((32, 32)) < 0.1, 1, 0).astype(np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((4, 32), np.float32))
    result = both(tiny(), layer)
    assert result.counts["blocks"] == 16
    assert result.counts["fill_weights"] == 16 * 64 - np.count_nonzero(weight)
    assert result.warnings == ["its pattern is unstructured: every block of 8 x 8 with a nonzero is kept whole"]


def test_blocks_that_do_not_divide_are_warned_of():
    result = block_ell.fast(tiny(block=16), blocked([[1, 0], [0, 1]], 8), Memo())
    assert result.warnings == ["its blocks of 8 x 8 do not divide into 16 x 16: more is kept than they are"]
    assert not block_ell.fast(tiny(block=8), blocked([[1, 0], [0, 1]], 16), Memo()).warnings


def test_larger_blocks_reach_more_of_the_peak():
    rng = np.random.default_rng(0)
    shares = []
    for block in (8, 16, 32, 64):
        count = 1024 // block
        kept = np.argsort(rng.random((count, count)), axis=1) < count // 4
        machine = load_machine("a100-block-ell", block=block, functional=False, sm_count=8)
        shares.append(block_ell.fast(machine, blocked(kept, block, columns=1024), Memo()).utilization)
    assert shares == sorted(shares) and shares[3] > 2 * shares[0]


def test_a_bundled_trace_passes_its_check():
    checks = check(load_machine("a100-block-ell", sm_count=2, block=16), load_trace("lenet-digits-imp"))
    assert len(checks) == 3 and all(found.passed for found in checks)


def test_a_timeline_shows_cores_and_loads():
    timeline = Timeline()
    result = both(tiny(), blocked([[1, 1], [0, 1]], 8), timeline)
    tracks = {interval.track for interval in timeline.intervals}
    assert {"chip", "sm0 tensor_core", "sm1 l2"} <= tracks and timeline.offset == result.cycles


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": 0}, "a100-block-ell: block must be at least 1, not 0"),
        ({"block": 1025}, "a100-block-ell: block must be at most 1024, not 1025"),
        ({"index_bits": 33}, "a100-block-ell: index_bits must be at most 32, not 33"),
        ({"sparsity": "2:4"}, "a100-block-ell: sparsity must be dense where blocks are multiplied whole, not 2:4"),
        ({"tiling": "auto"}, "a100-block-ell: tiling must be fixed where blocks are multiplied whole, not auto"),
        ({"split_k": 2}, "a100-block-ell: split_k must be 1 where blocks are multiplied whole, not 2"),
        ({"dtype": "b1", "accumulate": "int32"},
         "a100-block-ell: dtype must be one that a trace has numbers of, not 'b1'"),
        ({"sm_count": 0}, "a100-block-ell: sm_count must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_what_is_no_machine_is_said(changes, message):
    with pytest.raises(InputError) as error:
        load_machine("a100-block-ell", **changes)
    assert str(error.value) == message


def test_rows_that_fill_up_the_last_block_are_not_written_to_hbm():
    weight = np.ones((3, 8), np.float32)
    layer = Layer(name="fc", op="linear", weight=weight, inputs=np.ones((5, 8), np.float32))
    for block in (1, 3, 64):
        machine = load_machine("a100-block-ell", block=block, dtype="fp16")
        assert block_ell.fast(machine, layer, Memo()).counts["hbm_write_bytes"] == 3 * 5 * 2


@pytest.mark.parametrize(
    ("field", "value"), [("smem_bytes_per_clk", 2e-10), ("l2_bytes_per_clk", 2e-12), ("hbm_bytes_per_s", 1e-9)]
)
def test_times_that_leave_64_bits_are_refused(field, value):
    layer = Layer(name="fc", op="linear", weight=np.ones((64, 64), np.float32), inputs=np.ones((64, 64), np.float32))
    machine = load_machine("a100-block-ell", functional=False, **{field: value})
    with pytest.raises(
        InputError, match=rf"counted in 64 bits, and could come to \S+ with {field} = {value:g}.*; choose nearer ones$"
    ):
        block_ell.fast(machine, layer, Memo())


FORMATS = [{}, {"accumulate": "fp16"}, {"dtype": "bf16", "energy": ""},
           {"dtype": "int8", "accumulate": "int32", "energy": ""}]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(layer=far_layers(), block=st.sampled_from([3, 8, 16]), changes=st.sampled_from(FORMATS))
def test_outputs_are_within_the_bound_whatever_the_numbers(layer, block, changes):
    assert_bounded(block_ell, tiny(block=block, **changes), layer)


@pytest.mark.parametrize("changes", FORMATS)
def test_the_bound_of_ordinary_numbers_is_near_their_errors(changes):
    layer, machine = blocked(np.ones((4, 6)), 8), tiny(**changes)
    found = block_ell.fast(machine, layer, Memo()).arithmetic["max_abs_error"]
    assert found < block_ell.error_bound(machine, layer).max() < 30 * found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), row=st.integers(0, 15), column=st.integers(0, 15), changes=st.sampled_from(FORMATS))
def test_a_weight_that_is_off_by_more_than_the_bound_is_told(seed, row, column, changes):
    assert_tells(block_ell, tiny(**changes), blocked(np.ones((2, 2)), 8, columns=5, seed=seed), row, column)
