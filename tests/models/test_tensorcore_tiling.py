"""The choice of a CTA tile, and reductions that are split among CTAs."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, vary
from gossamer.models.tensorcore import gemm_cost
from gossamer.simulator.check import check
from gossamer.simulator.simulate import simulate
from gossamer.workloads import Trace, load_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.gemm import Gemm
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.synth import gemm_layer

from . import tensorcore_layers
from .tensorcore_layers import both

SMALL = "16x8/16x8 32x16/16x8 48x8/16x8"


def tiny(**changes):
    """A chip of three SMs and small tiles, of which it has several."""
    return tensorcore_layers.tiny(**({"sm_count": 3, "cta_tiles": SMALL} | changes))


def layer(rows=40, depth=200, columns=20, density=1.0, seed=0):
    return tensorcore_layers.linear(rows, depth, columns, density=density, seed=seed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_units_and_recurrences_agree_on_any_tile_and_any_split(data):
    def one_of(*choices):
        return data.draw(st.sampled_from(choices))

    dtype, accumulate = one_of(("fp16", "fp32"), ("fp16", "fp16"), ("int8", "int32"))
    machine = tiny(
        tiling=one_of("fixed", "auto"), split_k=one_of(1, 2, 3, 8), sparsity=one_of("dense", "2:4"),
        pipeline_stages=one_of(2, 3), l2_bytes_per_clk=one_of(5120.0, 9.7), hbm_bytes_per_s=one_of(1555e9, 3e9),
        ctas_per_sm=one_of(1, 2), kernel_efficiency=one_of(1.0, 0.65), dtype=dtype, accumulate=accumulate,
    )  # fmt: skip
    sizes = [data.draw(st.integers(1, most)) for most in (70, 150, 40)]
    both(machine, layer(*sizes, density=one_of(0.05, 0.4, 1.0), seed=sizes[1]))


@pytest.mark.parametrize("split", [2, 3, 7, 64])
def test_a_split_reduction_gives_the_same_products_in_another_order(split):
    whole, parts = both(tiny(), layer()), both(tiny(split_k=split), layer())
    slices = -(-13 // -(-13 // split))  # 13 steps of 16
    assert parts.tiling == {"cta_rows": 32, "cta_columns": 16, "split_k": slices}
    assert parts.counts["ctas"] == slices * whole.counts["ctas"]
    for name in ("macs", "instructions", "smem_read_bytes", "hbm_read_bytes", "hbm_write_bytes"):
        assert parts.counts[name] == whole.counts[name]
    partial = slices * 40 * 20 * 4
    assert parts.counts["l2_read_bytes"] - whole.counts["l2_read_bytes"] == partial
    assert parts.counts["l2_write_bytes"] - whole.counts["l2_write_bytes"] == partial
    np.testing.assert_allclose(parts.output, whole.output, rtol=1e-4, atol=1e-4)
    (found,) = check(tiny(split_k=split), Trace(name="t", layers=(layer(),)))
    assert found.passed


def test_the_second_kernel_of_a_split_reduction_by_hand():
    # 64 steps of 32 in two CTAs of 128 x 256; sums of 4 bytes to and from L2, outputs of 2 bytes to HBM.
    gemm = Gemm(128, 2048, 256)
    machine = load_machine("a100-sparse", split_k=2)
    found, whole = gemm_cost(machine, gemm), gemm_cost(load_machine("a100-sparse"), gemm)
    outputs, hbm = 128 * 256, 0.85 * 1555e9 / 1410e6
    halves = whole.cycles_by_cause["tensor_core"]
    added = 4230 + max(2 * outputs * 4 / 5120, outputs * 2 / hbm)
    expected = 4230 + 1200 + halves / 2 + 2 * outputs * 4 / 5120 + added
    assert found.cycles == pytest.approx(expected, abs=2)
    assert found.cycles_by_cause["split_k"] == pytest.approx(108 * added, abs=108)


def test_partial_sums_that_exceed_the_l2_are_told():
    machine = tiny(split_k=2, l2_bytes=40 * 20 * 4 * 2 - 1)
    assert "partial sums of the split reduction take 6400 bytes of 6399 in L2" in both(machine, layer()).warnings


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 3000),
    depth=st.integers(1, 3000),
    columns=st.integers(1, 3000),
    pattern=st.sampled_from([(1, 1), (2, 4)]),
)
def test_auto_takes_the_fewest_cycles_of_all_tiles_and_splits(rows, depth, columns, pattern):
    gemm = Gemm(rows, depth, columns, pattern=pattern)
    machine = load_machine("a100-sparse")
    found = gemm_cost(vary(machine, tiling="auto", split_k=4), gemm)
    every = []
    for tile, split in itertools.product(machine.config.cta_tiles.split(), (1, 2, 4)):
        (bm, bn), (wm, wn) = (map(int, side.split("x")) for side in tile.split("/"))
        fixed = vary(machine, cta_rows=bm, cta_columns=bn, warp_rows=wm, warp_columns=wn, split_k=split)
        every.append(gemm_cost(fixed, gemm))
    least = min(cost.cycles for cost in every)
    assert found.cycles == least <= gemm_cost(machine, gemm).cycles
    chosen = next(cost for cost in every if cost.tiling == found.tiling)
    assert dataclasses.asdict(chosen) == dataclasses.asdict(found)


def test_a_compressed_weight_wants_a_tall_tile_and_a_short_product_many_ctas():
    machine = load_machine("a100-sparse", tiling="auto", split_k=16)
    tall = gemm_cost(machine, Gemm(4096, 4096, 4096, pattern=(2, 4))).tiling
    assert tall == {"cta_rows": 256, "cta_columns": 128, "split_k": 1}
    small = gemm_cost(machine, Gemm(64, 65536, 64)).tiling
    assert small == {"cta_rows": 64, "cta_columns": 64, "split_k": 16}


def test_tiles_whose_steps_do_not_fit_are_not_chosen():
    machine = tiny(tiling="auto", cta_tiles="16x8/16x8 96x80/48x40", smem_bytes=2 * 2 * 16 * 24)
    assert both(machine, layer(96, 64, 80)).tiling["cta_rows"] == 16


def test_a_bundled_trace_takes_less_with_tiles_of_its_size():
    trace = load_trace("vit-digits-srste-2-4")
    fixed, auto = (simulate(load_machine("a100-sparse", tiling=tiling), trace) for tiling in ("fixed", "auto"))
    assert all(mine.cycles <= other.cycles for mine, other in zip(auto.layers, fixed.layers, strict=True))
    assert auto.total.cycles < fixed.total.cycles
    assert {layer.tiling["cta_rows"] for layer in fixed.layers} == {128}


def test_the_tile_is_chosen_once_for_the_cost_and_the_values_of_a_trace():
    trace = gemm_layer(300, 500, 200, "2:4")
    machine = load_machine("a100-sparse", tiling="auto", split_k=4)
    result = simulate(machine, trace).layers[0]
    cost = gemm_cost(machine, Gemm(300, 500, 200, pattern=(2, 4)))
    assert (result.cycles, result.tiling) == (cost.cycles, cost.tiling)
    assert trace.layers[0].pattern == Pattern("n:m", n=2, m=4, axis=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiling": "best"}, "tiling must be fixed or auto, not 'best'"),
        ({"split_k": 0}, "split_k must be at least 1, not 0"),
        ({"cta_tiles": ""}, "cta_tiles must list 1 to 64 tiles, not 0"),
        (
            {"cta_tiles": "128x0/64x64"},
            "cta_tiles must be tiles like 128x256/64x64, with sides up to 65536, not '128x0/64x64'",
        ),
        ({"cta_tiles": "128x128/64x64 9x9/2x3"}, "warp tiles must fill the CTA tile of 9 x 9, and 2 x 3 do not"),
    ],
)
def test_tilings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError) as error:
        load_machine("a100-sparse", **changes)
    assert str(error.value) == f"a100-sparse: {message}"
