"""TorchSparse on a GPU: kernels, what they move, and both engines alike."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, torchsparse, vary
from gossamer.models.parts.torchsparse.config import Config
from gossamer.models.parts.torchsparse.groups import EPSILONS, THRESHOLDS
from gossamer.models.parts.torchsparse.plan import Convolution, active_offsets, convolution_of
from gossamer.simulator.memo import Memo
from gossamer.simulator.simulate import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.points import downsample, voxelise
from gossamer.workloads.points.sparse_conv import exact_convolution
from gossamer.workloads.trace import Layer, Trace

from .clouds import clouds

GPU = load_machine("torchsparse-2080ti")
SMALL = vary(GPU, sm_count=3, tile_rows=8, least_tile_columns=8, tile_columns=16, tile_depth=4, threshold=12)


def cloud(count, side=5, seed=0):
    draw = np.random.default_rng(seed)
    return voxelise(draw.integers(-side, side, (count, 3)).astype(float), 1.0)[0]


def convolution(coords, *, out=None, channels=6, width=10, size=3, bias=False, seed=0, values=True, **attributes):
    draw = np.random.default_rng(seed)
    return Layer(
        name="conv",
        op="sparse_conv3d",
        weight=draw.normal(size=(width, channels, size**3)).astype(np.float32),
        bias=draw.normal(size=width).astype(np.float32) if bias else None,
        inputs=draw.normal(size=(len(coords), channels)).astype(np.float32) if values else None,
        coordinates=coords,
        output_coordinates=out,
        attributes={"kernel_size": size, **attributes},
    )


def dense(rows=50, channels=6, width=10, **given):
    draw = np.random.default_rng(1)
    return Layer(
        name="fc", op="linear", weight=draw.normal(size=(width, channels)).astype(np.float32),
        bias=draw.normal(size=width).astype(np.float32),
        inputs=draw.normal(size=(rows, channels)).astype(np.float32), **given,
    )  # fmt: skip


def on(machine, layer, engine="fast"):
    return machine.run(layer, engine, Memo())


def plain(result):
    return msgspec.to_builtins(result)


# Engines.


MACHINES = st.fixed_dictionaries(
    {
        "sm_count": st.integers(1, 5),
        "tile_rows": st.sampled_from([1, 4, 16]),
        "tile_depth": st.sampled_from([1, 4, 32]),
        "fill_cycles": st.sampled_from([0, 7]),
        "launch_s": st.sampled_from([0.0, 1e-7]),
        "l2_bytes": st.sampled_from([0, 500, 10**6]),
        "dram_bytes_per_s": st.sampled_from([1e9, 616e9]),
        "dtype": st.sampled_from(["fp16", "fp32"]),
        "dataflow": st.sampled_from(["gather-gemm-scatter", "fetch-on-demand", "implicit-gemm"]),
        "grouping": st.sampled_from(["adaptive", "tuned", "separate", "batched", "fixed"]),
        "epsilon": st.sampled_from([0.0, 0.3, 1.0]),
        "threshold": st.integers(0, 30),
        "fixed_group": st.integers(1, 5),
        "mask_splits": st.integers(0, 4),
        "fused_movement": st.booleans(),
        "thread_bytes": st.sampled_from([2, 4, 16]),
    }
)
CLOUDS = clouds(-3, 3, least=1, most=25).map(lambda coords: np.unique(coords, axis=0))  # in the order of the keys


@settings(max_examples=60)
@given(
    how=MACHINES,
    coords=CLOUDS,
    kind=st.sampled_from(["submanifold", "down", "up", "one", "even", "strided"]),
    channels=st.integers(1, 9),
    width=st.integers(1, 20),
    bias=st.booleans(),
    builds=st.booleans(),
)
def test_both_engines_agree_on_every_figure_of_a_convolution(how, coords, kind, channels, width, bias, builds):
    coarse = downsample(coords, 2)
    common = {"channels": channels, "width": width, "bias": bias, "builds_map": builds}
    layer = {
        "submanifold": lambda: convolution(coords, **common),
        "even": lambda: convolution(coords, size=2, **common),
        "one": lambda: convolution(coords, size=1, **common),
        "down": lambda: convolution(coords, out=coarse, size=2, stride=2, **common),
        "strided": lambda: convolution(coords, out=coarse, size=3, stride=2, **common),
        "up": lambda: convolution(coarse, out=coords, size=2, stride=2, transposed=True, **common),
    }[kind]()
    machine = vary(GPU, **how)
    fast, event = on(machine, layer), on(machine, layer, "event")
    assert plain(fast) == plain(event)
    reference, magnitude = exact_convolution(layer)
    bound = 1e-5 * (magnitude + 1)
    assert (np.abs(fast.output - reference) <= bound).all()
    assert (np.abs(event.output - reference) <= bound).all()
    assert sum(fast.cycles_by_cause["gpu"].values()) == fast.cycles


@given(how=MACHINES, rows=st.integers(1, 40), channels=st.integers(1, 9), width=st.integers(1, 20))
def test_both_engines_agree_on_dense_layers_and_voxels(how, rows, channels, width):
    machine = vary(GPU, **how)
    gathered = np.zeros(rows, np.int32)
    points = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    for layer in (
        dense(rows, channels, width),
        dense(rows, channels, width, gather=gathered),
        Layer(name="q", op="point_op", inputs=points, attributes={"kind": "quantise", "voxel_size": 0.5}),
    ):
        fast, event = on(machine, layer), on(machine, layer, "event")
        assert plain(fast) == plain(event)
        if layer.op == "linear":
            np.testing.assert_allclose(fast.output, layer.inputs @ layer.weight.T + layer.bias, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(event.output, fast.output, rtol=1e-5, atol=1e-5)
        else:
            assert fast.output.tolist() == event.output.tolist() == voxelise(points, 0.5)[0].tolist()


@pytest.mark.parametrize("dataflow", ["gather-gemm-scatter", "fetch-on-demand", "implicit-gemm"])
def test_clouds_that_do_not_touch_give_zeros_and_take_no_product(dataflow):
    layer = convolution(cloud(20), out=cloud(20) + np.int32(50), builds_map=False)
    machine = vary(SMALL, dataflow=dataflow, mask_splits=0, launch_s=0.0)
    fast, event = on(machine, layer), on(machine, layer, "event")
    assert plain(fast) == plain(event)
    assert not fast.output.any() and not event.output.any()
    assert fast.macs == fast.counts["gemm_rows"] == fast.counts["tile_macs"] == 0 == fast.utilization
    assert (fast.cycles == 0) == (dataflow != "implicit-gemm")  # whose tiles start, find nothing, and write zeros


# What products cost.


def test_a_product_takes_waves_of_tiles_of_fill_and_steps():
    machine = vary(GPU, sm_count=2, launch_s=0.0, dram_bytes_per_s=1e15, l2_bytes_per_clk=1e9, kernel_efficiency=1.0)
    result = on(machine, dense(rows=128 * 5, channels=33, width=64))
    step = 128 * 64 * 32 // 256  # outputs of a tile, deep as a step, over the multiply-adds of a cycle
    assert result.counts["tiles"] == 5
    assert result.cycles == 3 * (1000 + 2 * step) and result.cycles_by_cause["gpu"]["matmul"] == result.cycles
    assert result.counts["tile_macs"] == 5 * 128 * 64 * 64
    assert result.macs == 640 * 33 * 64


@pytest.mark.parametrize(("rows", "waves"), [(128, 1), (256, 1), (257, 2), (512, 2), (513, 3)])
def test_one_row_more_than_the_sms_hold_costs_a_wave(rows, waves):
    machine = vary(GPU, sm_count=2, launch_s=0.0, dram_bytes_per_s=1e15, l2_bytes_per_clk=1e9)
    one = on(machine, dense(rows=1, channels=32, width=32)).cycles
    assert on(machine, dense(rows=rows, channels=32, width=32)).cycles == waves * one


def test_a_product_waits_for_its_bytes_where_these_take_longer():
    slow = vary(GPU, dram_bytes_per_s=1e9, dram_efficiency=1.0, launch_s=0.0, clock_hz=1e9)
    result = on(slow, dense(rows=64, channels=8, width=8))
    moved = 64 * 16 + 64 * 16 + 8 * 8 * 2  # fp16 rows of 8 channels take 16 bytes
    assert result.counts["matmul_dram_bytes"] == result.traffic_bytes["dram"] == moved
    assert result.cycles == moved
    assert result.cycles_by_cause["gpu"]["memory"] == moved - result.cycles_by_cause["gpu"]["matmul"]


def test_rows_of_channels_that_do_not_fill_16_bytes_are_padded():
    config = GPU.config
    assert [config.row_bytes(channels) for channels in (1, 4, 8, 9, 32)] == [16, 16, 16, 32, 64]
    assert vary(GPU, dtype="fp32").config.row_bytes(5) == 32


def test_narrow_products_take_narrow_tiles():
    config = GPU.config
    assert [config.columns_of_tile(columns) for columns in (1, 32, 33, 96, 128, 256)] == [32, 32, 64, 128, 128, 128]


def test_fused_movement_reads_each_input_row_once_and_writes_each_output_row_once():
    coords = cloud(200)
    layer = convolution(coords, channels=8, width=8, builds_map=False)
    conv = convolution_of(layer, Memo())
    pairs = sum(conv.sizes) - len(coords)  # without the centre
    counts = on(vary(GPU, grouping="separate"), layer).counts
    assert counts["gather_dram_bytes"] == 16 * len(coords) + 16 * pairs + 4 * 27 * len(coords)
    assert counts["scatter_dram_bytes"] == counts["gather_dram_bytes"]
    apart = on(vary(GPU, grouping="separate", fused_movement=False), layer).counts
    assert apart["gather_dram_bytes"] == 2 * 16 * pairs + 8 * pairs
    assert apart["scatter_dram_bytes"] == 3 * 16 * pairs + 8 * pairs


def test_threads_that_move_two_bytes_use_half_a_line():
    layer = convolution(cloud(200), channels=8, width=8, builds_map=False)
    machine = vary(GPU, launch_s=0.0)
    halves, whole = (on(vary(machine, thread_bytes=size), layer) for size in (2, 4))
    wide = on(vary(machine, thread_bytes=16), layer)
    assert halves.counts == whole.counts == wide.counts
    assert halves.cycles_by_cause["gpu"]["gather"] in range(
        2 * whole.cycles_by_cause["gpu"]["gather"] - 1, 2 * whole.cycles_by_cause["gpu"]["gather"] + 1
    )
    assert whole.cycles_by_cause == wide.cycles_by_cause


def test_a_layer_whose_map_is_there_spends_nothing_on_mapping():
    coords = cloud(100)
    built, found = (on(GPU, convolution(coords, builds_map=flag)) for flag in (True, False))
    assert built.cycles_by_cause["gpu"]["mapping"] > 0 == found.cycles_by_cause["gpu"]["mapping"]
    assert built.counts["mapping_dram_bytes"] > 0 == found.counts["mapping_dram_bytes"]
    alike = ("macs", "tile_macs", "gemm_rows", "gather_dram_bytes")
    assert [built.counts[name] for name in alike] == [found.counts[name] for name in alike]


def test_batches_have_fewer_kernels_and_more_rows_than_separate_products():
    layer = convolution(cloud(300))
    machine = vary(SMALL, threshold=1000)
    found = {name: on(vary(machine, grouping=name), layer).counts for name in ("separate", "adaptive", "batched")}
    assert found["separate"]["kernels"] > found["adaptive"]["kernels"] > found["batched"]["kernels"]
    assert found["separate"]["padded_rows"] == 0 <= found["adaptive"]["padded_rows"] < found["batched"]["padded_rows"]
    assert found["batched"]["gemm_rows"] == 27 * len(layer.coordinates)
    assert len({counts["macs"] for counts in found.values()}) == 1


# The search.


def test_tuning_finds_the_cheapest_of_the_grid_and_never_loses_to_its_corners():
    layer = convolution(cloud(600, 7), values=False)
    machine = vary(GPU, sm_count=4, tile_rows=16)
    grid = {}
    for epsilon in EPSILONS:
        for threshold in THRESHOLDS:
            how = {"grouping": "adaptive", "epsilon": epsilon, "threshold": threshold}
            grid[epsilon, threshold] = on(vary(machine, **how), layer)
    (tuning,) = torchsparse.tune(machine, Trace(name="t", layers=(layer,)))
    best = min(result.cycles for result in grid.values())
    assert grid[tuning.epsilon, tuning.threshold].cycles == best
    assert on(vary(machine, grouping="tuned"), layer).cycles == best
    assert tuning.cycles <= tuning.separate_cycles
    assert grid[0.0, 0].cycles == on(vary(machine, grouping="separate"), layer).cycles


def test_tuning_leaves_out_layers_without_a_map():
    trace = Trace(name="t", layers=(convolution(cloud(20), size=1), dense()))
    assert torchsparse.tune(GPU, trace) == []


# Implicit GEMM.


def masks_of(coords, size=3, **how):
    config = vary(SMALL, dataflow="implicit-gemm", **how).config
    return active_offsets(config, convolution_of(convolution(coords, size=size), Memo()))


def test_sorted_masks_run_through_fewer_offsets_and_every_split_through_fewer_still():
    coords = cloud(500, 7)
    pairs = sum(convolution_of(convolution(coords), Memo()).sizes)
    work = [sum(int(active.sum()) for active in masks_of(coords, mask_splits=splits)) for splits in (0, 1, 3)]
    assert work[0] > work[1] > work[2] >= pairs / SMALL.config.tile_rows


def test_a_tile_runs_through_the_offsets_that_any_of_its_rows_has():
    line = np.array([(x, 0, 0) for x in range(4)], np.int32)  # ends have 2 neighbours, the others 3
    (active,) = masks_of(line, tile_rows=2, mask_splits=0)
    assert active.tolist() == [3, 3]
    (active,) = masks_of(line, tile_rows=2, mask_splits=1)
    assert active.tolist() == [3, 3]  # rows without the first offset come first: 1 of 4, then it and one of the middle
    (active,) = masks_of(line, tile_rows=1, mask_splits=1)
    assert sorted(active.tolist()) == [2, 2, 3, 3]


def test_masks_that_would_fill_the_memory_are_refused():
    conv = Convolution([(np.zeros(0, int),) * 2] * 29791, 40000, 40000, 1, 1, True, True, False)
    with pytest.raises(InputError) as error:
        active_offsets(vary(GPU, dataflow="implicit-gemm").config, conv)
    assert str(error.value) == (
        "implicit-gemm must have masks of at most 1073741824 bits, and 29791 offsets of 40000 outputs have more; "
        "choose another dataflow"
    )


# The machine.


def test_a_layer_without_features_has_cycles_and_no_values():
    layer, bare = (convolution(cloud(50), values=values) for values in (True, False))
    assert on(GPU, layer).output is not None and on(GPU, bare).output is None
    assert on(vary(GPU, functional=False), layer).output is None
    assert on(GPU, layer).cycles == on(GPU, bare).cycles


def test_a_network_runs_layer_by_layer_and_adds_up():
    coords = cloud(80)
    trace = Trace(name="t", layers=(convolution(coords), dense()))
    result = simulate(GPU, trace)
    assert [layer.op for layer in result.layers] == ["sparse_conv3d", "linear"]
    assert result.total.cycles == sum(layer.cycles for layer in result.layers)
    assert result.total.counts["kernels"] == sum(layer.counts["kernels"] for layer in result.layers)
    assert result.total.area_mm2 is None and result.total.energy_j is None


def test_other_point_operations_are_refused_in_one_line():
    points = np.zeros((4, 3), np.float32)
    layer = Layer(name="sa1.fps", op="point_op", inputs=points, attributes={"kind": "fps", "samples": 2})
    with pytest.raises(InputError) as error:
        on(GPU, layer)
    assert str(error.value) == (
        "layer sa1.fps: of point operations torchsparse-2080ti runs quantise, not fps; choose other layers with "
        "--layer, or another machine"
    )


def test_the_timeline_follows_launches_tiles_and_bytes():
    timeline = Timeline()
    result = SMALL.run(convolution(cloud(60)), "event", Memo(), timeline)
    tracks = {interval.track for interval in timeline.intervals}
    assert {"stream", "dram", "l2", "sm0", "sm1", "sm2"} == tracks
    assert sum(interval.name == "tile" for interval in timeline.intervals) == result.counts["tiles"]
    assert timeline.offset == max(interval.end for interval in timeline.intervals) == result.cycles


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grouping": "best"}, "grouping must be one of adaptive, tuned, separate, batched, fixed, not 'best'"),
        ({"dataflow": "dense"},
         "dataflow must be one of gather-gemm-scatter, fetch-on-demand, implicit-gemm, not 'dense'"),
        ({"dtype": "int8"}, "dtype must be one of fp16, fp32, not 'int8'"),
        ({"epsilon": 1.5}, "epsilon must be from 0 to 1, not 1.5"),
        ({"tile_rows": 0}, "tile_rows must be at least 1, not 0"),
        ({"mask_splits": 33}, "mask_splits must be at most 32, not 33"),
        ({"kernel_efficiency": 0.0}, "kernel_efficiency must be above 0 and at most 1, not 0.0"),
        ({"launch_s": -1.0}, "launch_s must be at least 0 and finite, not -1.0"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0 and finite, not 0.0"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError) as error:
        vary(GPU, **wrong)
    assert str(error.value) == f"torchsparse-2080ti: {message}"


def test_every_value_of_the_preset_says_where_it_comes_from():
    import tomllib
    from importlib import resources

    preset = tomllib.loads((resources.files("gossamer.models") / "configs" / "torchsparse-2080ti.toml").read_text())
    needed = {field.name for field in msgspec.structs.fields(Config)} - {"energy"}
    assert set(preset["sources"]) == needed
    assert "provenance: memory" in preset["description"]


def test_a_table_for_other_words_gives_no_energy(tmp_path):
    path = tmp_path / "wide.toml"
    path.write_text(
        'name = "wide"\nmode = "event"\nword_bits = 32\n'
        'per_event = [{part = "L2", count = "l2_bytes", pj = 1.0, source = "assumed"}]\n'
    )
    half, whole = (on(vary(SMALL, energy=str(path), dtype=dtype), dense()) for dtype in ("fp16", "fp32"))
    assert half.energy_j is None
    assert half.warnings == ["energy table wide is for words of 32 bits, not 16: no energy given"]
    assert whole.energy_j.total > 0 and not whole.warnings
