"""PointAcc as a whole: array, mapping and overlap by hand, and both engines alike on random clouds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import load_machine, pointacc
from gossamer.models.parts.pointacc.matrix import array_cycles
from gossamer.models.parts.pointacc.memory import Schedule
from gossamer.models.parts.pointacc.work import Work
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.simulator.memo import Memo
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads import Layer, Trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.points import downsample, scenes, voxelise
from gossamer.workloads.points.network import build
from gossamer.workloads.points.sparse_conv import exact_convolution

from .pointacc_layers import both, cloud, conv, line, linear, machine, matmul, point_op


def some_machine(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    def one_of(*choices):
        return data.draw(st.sampled_from(choices))

    return machine(
        rows=number(1, 3),
        columns=number(1, 3),
        array_fill=one_of(True, False),
        cache_bytes=number(18, 100),
        cache_block_rows=number(1, 3),
        weight_buffer_bytes=number(1, 400),
        output_buffer_bytes=number(1, 150),
        mapping_buffer_bytes=number(1, 600),
        dram_bandwidth_bytes_per_s=one_of(0.7e9, 3.3e9, 1e12),
        loop_order=one_of("output-tile", "weight-stationary"),
        output_tile=number(1, 20),
        flow=one_of("fetch-on-demand", "gather-scatter"),
        fuse_layers=one_of(True, False),
        overlap=one_of("all", "tiles", "memory", "none"),
        mapper=one_of("merge-sort", "hash"),
        hash_probing=one_of("across", "within"),
        merger_width=one_of(2, 4, 16),
        merge_rule=one_of("head-select", "two-window", "flims"),
        exploit_symmetry=one_of(True, False),
        functional=one_of(True, False),
    )


def some_layer(data):
    def number(least, greatest):
        return data.draw(st.integers(least, greatest))

    seed, channels, width = number(0, 99), number(1, 7), number(1, 7)
    fine = cloud(seed, number(1, 14))
    step = data.draw(st.sampled_from([1, 2]))
    coarse = downsample(fine, 2 * step)
    about = {"bias": number(0, 1) == 1, "features": number(0, 3) > 0, "builds_map": number(0, 3) > 0}
    rows = number(1, 12)
    points = np.random.default_rng(seed).random((rows, number(1, 3))).astype(np.float32)
    chain = [channels, width, number(1, 4), number(1, 4)]
    kind = data.draw(
        st.sampled_from(["conv", "down", "up", "linear", "gather", "chain", "matmul", "fps", "knn", "ball"])
    )
    if kind == "conv":
        size = data.draw(st.sampled_from([1, 2, 3]))
        return conv(fine, channels, width, seed, kernel_size=size, **about)
    if kind == "down":
        fine = fine // step * step
        fine = downsample(fine, step)
        return conv(fine, channels, width, seed, output_coordinates=coarse, kernel_size=2, stride=2,
                    tensor_stride=step, **about)  # fmt: skip
    if kind == "up":
        return conv(coarse, channels, width, seed, output_coordinates=downsample(fine, step), kernel_size=2, stride=2,
                    tensor_stride=step, transposed=True, **about)  # fmt: skip
    if kind == "matmul":
        return matmul(number(1, 3), number(1, 5), channels, width, seed)
    if kind == "chain":
        index = number(0, 2)
        return linear(rows, *chain[index : index + 2], seed, chain=chain, chain_index=index)
    if kind in ("linear", "gather"):
        gather = np.random.default_rng(seed).integers(0, 9, rows).astype(np.int32) if kind == "gather" else None
        return linear(rows, channels, width, seed, gather, about["bias"])
    if kind == "fps":
        return point_op(points, kind="fps", samples=number(1, rows))
    queries = points[: number(1, rows)] if number(0, 1) else None
    if kind == "knn":
        return point_op(points, queries, kind="knn", k=number(1, rows))
    order = data.draw(st.sampled_from(["nearest", "index"]))
    return point_op(points, queries, kind="ball_query", k=number(1, rows), radius=0.5, order=order)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_units_and_formulas_agree_on_any_layer_of_any_cloud(data):
    built, layer = some_machine(data), some_layer(data)
    result = both(built, layer)
    assert result.macs == result.counts["macs"]
    assert 0 <= result.utilization <= 1
    if result.output is not None and layer.op == "sparse_conv3d":
        expected, magnitude = exact_convolution(layer)
        assert (np.abs(result.output - expected) <= 1e-5 * magnitude + 1e-12).all()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), size=st.floats(0.2, 2.0))
def test_both_engines_quantise_a_cloud_alike(seed, size):
    points = np.random.default_rng(seed).normal(size=(seed % 40 + 1, 3)).astype(np.float32)
    result = both(machine(), point_op(points, kind="quantise", voxel_size=size))
    np.testing.assert_array_equal(result.output, voxelise(points, size)[0])


def test_numbers_are_those_of_a_plain_convolution_in_the_order_of_the_layers_points():
    layer = conv(cloud(1, 40), 5, 6, bias=True)
    expected, _ = exact_convolution(layer)
    np.testing.assert_allclose(both(machine(), layer).output, expected, rtol=1e-4, atol=1e-4)


def test_a_row_enters_the_array_each_cycle_for_each_offset_and_tile_of_weights():
    # 10 points in a row: 10 + 9 + 9 entries; 3 channels on 2 rows, 5 on 2 columns: 2 x 3 tiles.
    result = both(machine(dram_bandwidth_bytes_per_s=1e15), conv(line(10), 3, 5, builds_map=False))
    assert result.cycles == 28 * 2 * 3
    assert result.macs == 28 * 3 * 5
    assert result.cycles_by_cause["matrix"] == {"busy": 168, "fill": 0, "idle": 0}


def test_filling_the_array_costs_each_pass_2r_plus_c_less_2():
    # Tiles of 8 and 2 outputs, 3 offsets each, none of them empty.
    result = both(machine(array_fill=True, dram_bandwidth_bytes_per_s=1e15), conv(line(10), 3, 5, builds_map=False))
    assert result.cycles_by_cause["matrix"]["fill"] == 2 * 3 * 2 * 3 * (2 * 2 + 2 - 2)


VOXELS = [91767, 60152, 31820, 14446, 5923]  # of the reference scan, by stride
NEIGHBOURS = [3.77, 6.05, 7.47, 8.43, 9.25]


def unet():
    """Yield (entries, offsets, channels, width) of each convolution of SparseResUNet42 on the reference scan."""

    def blocks(level, channels, width):
        for _ in range(2):
            yield round(VOXELS[level] * NEIGHBOURS[level]), 27, channels, width
            yield round(VOXELS[level] * NEIGHBOURS[level]), 27, width, width
            if channels != width:
                yield VOXELS[level], 1, channels, width
            channels = width

    yield from ((round(VOXELS[0] * NEIGHBOURS[0]), 27, channels, 32) for channels in (4, 32))
    widths = [32]
    for level, width in enumerate((32, 64, 128, 256)):
        yield VOXELS[level], 8, widths[-1], widths[-1]
        yield from blocks(level + 1, widths[-1], width)
        widths.append(width)
    channels = widths.pop()
    for level, width in zip((3, 2, 1, 0), (256, 128, 96, 96), strict=True):
        yield VOXELS[level], 8, channels, width
        yield from blocks(level, width + widths.pop(), width)
        channels = width


def test_the_reference_network_takes_the_array_its_cycles_at_its_utilisation():
    config = load_machine("pointacc").config
    macs = cycles = layers = 0
    for entries, offsets, channels, width in unet():
        sizes = np.full(offsets, entries // offsets)
        sizes[: entries % offsets] += 1
        maps = [(np.arange(size), np.arange(size)) for size in sizes]
        outputs = int(sizes.max())
        work = Work(maps, outputs, outputs, channels, width, 2, 0, False, None)
        stream, fill = array_cycles(config, Schedule.of(config, work))
        macs, cycles, layers = macs + work.macs, cycles + int(stream.sum() + fill.sum()), layers + 1
    assert layers == 49
    assert macs / 1e9 == pytest.approx(115.26, rel=2e-3)
    assert cycles / 1e6 == pytest.approx(34.9, rel=2e-3)
    assert macs / (4096 * cycles) == pytest.approx(0.807, rel=2e-3)


def test_zeros_cost_what_other_weights_cost_and_channels_that_are_gone_cost_nothing():
    layer = conv(cloud(2, 40), 6, 6)
    halved = Layer(name="conv", op="sparse_conv3d", coordinates=layer.coordinates, inputs=layer.inputs,
                   weight=layer.weight * (np.arange(27) % 2 == 0).astype(np.float32))  # fmt: skip
    whole, pruned, narrow = (
        pointacc.fast(machine(), each, Memo()) for each in (layer, halved, conv(layer.coordinates, 6, 3))
    )
    assert pruned.cycles == whole.cycles and pruned.counts == whole.counts
    assert (
        narrow.macs == whole.macs // 2 and narrow.counts["dram_output_bytes"] == whole.counts["dram_output_bytes"] // 2
    )


# Mapping.


def test_a_layer_that_builds_its_map_pays_for_the_merges_of_all_offsets():
    layer = conv(line(10), 2, 2)
    result = both(machine(), layer)
    assert result.cycles_by_cause["mapping"]["busy"] == 27 * 2 * 3 + 1 + 3  # blocks of 4 keys, 3 columns of comparators
    assert result.counts["matches"] == 28
    assert result.counts["dram_coordinate_bytes"] == 10 * 8
    assert result.counts["dram_map_bytes"] == 2 * 28 * 8  # written, and read when it is used
    again = both(machine(), conv(line(10), 2, 2, builds_map=False))
    assert again.cycles_by_cause["mapping"]["busy"] == 0
    assert again.counts["dram_map_bytes"] == 28 * 8


def test_a_kernel_of_one_cell_needs_no_map():
    counts = both(machine(), conv(line(10), 2, 2, kernel_size=1)).counts
    assert counts["merger_steps"] == counts["dram_map_bytes"] == counts["dram_coordinate_bytes"] == 0


def test_clouds_that_exceed_the_mapping_buffer_are_read_again_for_each_offset():
    layer = conv(line(10), 2, 2)
    small = both(machine(mapping_buffer_bytes=20), layer).counts  # 20 of 80 bytes stay
    assert small["key_reads"] == 27 * 20
    assert small["dram_coordinate_bytes"] == 80 + (27 * 20 * 8 - 80) * 60 // 80


def test_a_hash_table_takes_other_cycles_for_the_same_maps():
    layer = conv(cloud(3, 60), 2, 2)
    merged, hashed = (both(machine(mapper=mapper), layer) for mapper in ("merge-sort", "hash"))
    assert hashed.counts["merger_steps"] == merged.counts["slot_reads"] == 0
    assert hashed.counts["slot_reads"] > 0 < merged.counts["merger_steps"]
    assert hashed.counts["map_writes"] == merged.counts["map_writes"] == hashed.macs // 4


def test_a_strided_layer_also_sorts_and_a_transposed_one_uses_its_maps():
    fine = cloud(4, 60)
    coarse = downsample(fine, 2)
    down = both(machine(), conv(fine, 2, 2, output_coordinates=coarse, kernel_size=2, stride=2))
    up = both(machine(), conv(coarse, 2, 2, output_coordinates=fine, kernel_size=2, stride=2, transposed=True))
    assert down.macs == up.macs == len(fine) * 4  # a kernel of 2 with stride 2 meets every input once
    assert down.counts["sorter_blocks"] > 0 == up.counts["sorter_blocks"]


# Overlap.


def test_time_is_the_slowest_unit_or_the_sum_as_the_units_overlap():
    layer = conv(cloud(5, 60), 4, 4)
    times = {overlap: both(machine(overlap=overlap), layer) for overlap in ("all", "memory", "tiles", "none")}
    busy = {unit: causes["busy"] for unit, causes in times["all"].cycles_by_cause.items()}
    assert times["all"].cycles == max(busy.values())
    assert times["memory"].cycles == max(busy["mapping"] + busy["matrix"], busy["memory"])
    assert times["none"].cycles == sum(busy.values())
    assert times["all"].cycles < times["tiles"].cycles < times["none"].cycles


def test_two_buffers_let_a_tile_be_read_while_the_one_before_is_computed():
    # Tiles of 2 rows, a byte a cycle: read 8 (the first 8 + 8 of weights), computed in 2, written in 8.
    built = machine(
        overlap="tiles", output_tile=2, weight_buffer_bytes=8, cache_bytes=8, dram_bandwidth_bytes_per_s=1e9
    )
    timeline = Timeline()
    result = both(built, linear(6, 2, 2, bias=False), timeline)
    assert result.cycles == 56
    assert [(i.track, i.start, i.end) for i in timeline.intervals] == [
        ("dram", 0, 16), ("matrix", 16, 18), ("dram", 16, 24), ("matrix", 24, 26), ("dram", 24, 32), ("dram", 32, 40),
        ("matrix", 40, 42), ("dram", 40, 48), ("dram", 48, 56),
    ]  # fmt: skip
    assert timeline.intervals[0] == Interval("dram", "read for tile 0 offset 0", 0, 16)


def test_mapping_stands_on_the_timeline_beside_the_other_units():
    timeline = Timeline()
    result = both(machine(), conv(line(10), 2, 2), timeline)
    starts = {
        track: min(i.start for i in timeline.intervals if i.track == track) for track in ("matrix", "MergeSort", "dram")
    }
    assert starts["matrix"] == starts["dram"] == 0
    assert starts["MergeSort"] < 5
    assert max(interval.end for interval in timeline.intervals) == result.cycles == timeline.offset


# Machine.


def test_the_whole_network_on_a_scan_takes_less_than_five_seconds_and_mapping_little_of_it():
    trace = build("minkunet42", scenes.lidar(0))
    built = load_machine("pointacc", functional=False)
    total = simulate(built, trace).total
    busy = {unit: causes["busy"] for unit, causes in total.cycles_by_cause.items()}
    assert 0.01 < busy["mapping"] / busy["matrix"] < 0.03
    assert 80e9 < total.macs < 130e9
    assert total.area_mm2 == pytest.approx(15.7)
    assert total.energy_j.total == pytest.approx(sum(total.energy_j.by_part.values()))


def test_area_is_told_for_the_arrays_it_is_known_of():
    assert pointacc.area_mm2(load_machine("pointacc-edge")) == pytest.approx(3.9)
    for other in ({"rows": 32}, {"merger_width": 32}, {"cache_bytes": 1 << 19}, {"mapper": "hash"}):
        assert pointacc.area_mm2(load_machine("pointacc", **other)) is None
    assert pointacc.area_mm2(load_machine("pointacc", energy="")) is None


def test_a_table_for_other_words_gives_no_energy():
    result = pointacc.fast(machine(word_bytes=1), linear(2, 2, 2), Memo())
    assert result.energy_j is None
    assert result.warnings == ["energy table pointacc-event is for words of 16 bits, not 8: no energy given"]


def test_check_compares_networks_of_all_ops_with_numpy():
    coordinates = cloud(6, 30)
    points = np.random.default_rng(6).random((20, 3)).astype(np.float32)
    layers = [
        conv(coordinates, 3, 4, bias=True),
        linear(7, 3, 4),
        matmul(2, 3, 4, 5),
        point_op(points, kind="knn", k=3),
    ]
    found = check(machine(), Trace(name="t", layers=tuple(layers)))
    assert [layer.passed for layer in found] == [True] * 4
    with pytest.raises(InputError) as error:
        check(machine(), Trace(name="t", layers=(conv(coordinates, 3, 4, features=False),)))
    assert str(error.value).startswith("layer conv: a check compares values, and the layer has only its geometry")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"columns": 4097}, "columns must be at most 4096, not 4097"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0 and finite, not 0.0"),
        ({"overlap": "some"}, "overlap must be one of all, tiles, memory, none, not 'some'"),
        ({"loop_order": "row"}, "loop_order must be one of output-tile, weight-stationary, not 'row'"),
        ({"cache_bytes": 7, "cache_block_rows": 2}, "cache_bytes must hold a block of 8 bytes, not 7"),
        ({"merge_rule": "heap"}, "merge_rule must be one of head-select, two-window, flims, not 'heap'"),
        ({"fps_latency": -1}, "fps_latency must be at least 0, not -1"),
        ({"merger_width": 48}, "merger_width must be a power of 2 from 2 to 4096, not 48"),
        ({"hash_load": 0.0}, "hash_load must be from 0.001 to 0.95, not 0.0"),
        ({"hash_probing": "down"}, "hash_probing must be one of across, within, not 'down'"),
        ({"hash_banks": 3}, "hash_banks must be a power of 2 from 2 to 4096, not 3"),
    ],
)
def test_a_bad_configuration_is_refused_with_rule_and_value(change, rule):
    with pytest.raises(InputError) as error:
        machine(**change)
    assert str(error.value) == f"pointacc: {rule}"
