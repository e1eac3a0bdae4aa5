"""Patterns that tensor cores take and those that they do not: N:M, V:N:M, unstructured in passes."""

import numpy as np
import pytest

from gossamer.models import load_machine, tensorcore
from gossamer.models.parts.tensorcore.plan import plan
from gossamer.models.tensorcore import gemm_cost
from gossamer.simulator.memo import Memo
from gossamer.workloads import Layer
from gossamer.workloads.gemm import Gemm
from gossamer.workloads.patterns import Pattern

from .tensorcore_layers import A100, MUXES, both, linear, tiny


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
