"""PointAcc's memory management unit: cache, traffic, and dense layers that it fuses."""

import numpy as np
import pytest

from gossamer.models import load_machine
from gossamer.models.parts.pointacc.memory import Schedule, traffic
from gossamer.models.parts.pointacc.work import Work, fused
from gossamer.simulator import simulate
from gossamer.workloads import Trace
from gossamer.workloads.points import downsample, kernel_map, scenes, voxelise

from .pointacc_layers import both, conv, line, linear, machine


def test_the_cache_misses_a_row_once_where_a_tile_fits_and_each_time_where_lines_collide():
    layer = conv(line(10), 2, 2, builds_map=False)
    fits = both(machine(cache_bytes=40), layer).counts  # 10 rows of 2 channels
    assert (fits["cache_lookups"], fits["cache_misses"], fits["cache_compulsory_misses"]) == (28, 10, 10)
    assert fits["dram_feature_bytes"] == 10 * 2 * 2
    one = both(machine(cache_bytes=4), layer).counts  # one line: only a row that comes twice in a row hits
    assert one["cache_misses"] == 28 - 2  # rows 8 and 9 of the second tile end an offset and begin the next


def test_a_block_of_rows_is_fetched_whole_and_the_last_one_as_far_as_it_goes():
    layer = conv(line(10), 2, 2, builds_map=False)
    counts = both(machine(cache_bytes=64, cache_block_rows=4), layer).counts
    assert counts["cache_misses"] == counts["cache_compulsory_misses"] == 3
    assert counts["dram_feature_bytes"] == 10 * 2 * 2  # 4 + 4 + 2 rows


def test_output_tiles_reach_compulsory_traffic_where_the_whole_cloud_has_almost_no_reuse():
    voxels, _ = voxelise(scenes.lidar(0).points, 0.05)
    tiled = load_machine("pointacc", output_tile=1024, cache_bytes=2048 * 64 * 2).config
    whole = load_machine("pointacc", loop_order="weight-stationary", cache_bytes=2048 * 64 * 2).config
    for stride in (1, 2, 4, 8, 16):
        coordinates = downsample(voxels, stride)
        count = len(coordinates)
        work = Work(kernel_map(coordinates, tensor_stride=stride), count, count, 64, 64, 2, 27 * 4096, False, None)
        misses = [traffic(config, work, Schedule.of(config, work)) for config in (tiled, whole)]
        assert misses[0].compulsory == misses[1].compulsory == count
        assert 1.0 <= misses[0].misses / count <= 1.01
        assert 3.8 <= misses[1].misses / misses[0].misses <= 8.4


def test_sums_that_do_not_fit_go_to_dram_and_back_between_the_offsets():
    layer = conv(line(10), 2, 2, builds_map=False)
    assert both(machine(), layer).counts["dram_sum_bytes"] == 0
    # 28 entries on 10 outputs: all but the first of an output read 2 sums of 4 bytes, all but the last write them.
    spilled = both(machine(loop_order="weight-stationary"), layer)
    assert spilled.counts["dram_sum_bytes"] == 2 * (28 - 10) * 2 * 4
    tiled = both(machine(output_buffer_bytes=8), layer)
    assert tiled.counts["dram_sum_bytes"] == spilled.counts["dram_sum_bytes"]
    assert tiled.warnings == [
        "the sums of a tile take 64 bytes of 8 in the output buffer: sent to DRAM and back at each offset; choose a "
        "smaller output_tile"
    ]


def test_gather_scatter_moves_every_row_three_times_and_scatters_sums():
    layer = conv(line(10), 2, 2, builds_map=False)
    counts = both(machine(flow="gather-scatter"), layer).counts
    assert counts["cache_lookups"] == 0
    assert counts["dram_feature_bytes"] == 28 * 2 * 2  # read
    assert counts["dram_gather_bytes"] == 2 * 28 * 2 * 2  # written, and read back
    assert counts["dram_sum_bytes"] == 2 * (28 - 10) * 2 * 4
    on_demand = both(machine(), layer)
    assert counts["dram_read_bytes"] + counts["dram_write_bytes"] > on_demand.traffic_bytes["dram"]


def test_weights_are_loaded_once_where_they_fit_and_for_each_tile_where_not():
    layer = conv(line(10), 2, 2, builds_map=False)  # 27 offsets of 4 weights of 2 bytes, 3 of them with entries
    assert both(machine(weight_buffer_bytes=27 * 8), layer).counts["dram_weight_bytes"] == 3 * 8
    assert both(machine(weight_buffer_bytes=27 * 8 - 1), layer).counts["dram_weight_bytes"] == 2 * 3 * 8


def test_gathered_rows_of_a_dense_layer_come_through_the_cache():
    gather = np.array([0, 1, 0, 1, 5, 5], np.int32)
    counts = both(machine(), linear(6, 2, 2, gather=gather, bias=False)).counts
    assert (counts["cache_lookups"], counts["cache_misses"]) == (6, 3)
    assert counts["dram_feature_bytes"] == 3 * 2 * 2
    assert counts["dram_map_bytes"] == 6 * 4
    assert both(machine(), linear(6, 2, 2, bias=False)).counts["dram_map_bytes"] == 0


def test_a_gathered_row_number_of_a_damaged_file_allocates_nothing():
    result = both(machine(), linear(2, 2, 2, gather=np.array([0, 2**31 - 1], np.int32)))
    assert result.counts["cache_compulsory_misses"] == 2


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, [range(3)]),
        ({"fuse_layers": False}, [range(1), range(1, 2), range(2, 3)]),
        ({"cache_bytes": 2 * 2 * (8 + 4) - 1}, [range(2), range(2, 3)]),  # 8 and 4 words of 2 rows do not fit
        ({"weight_buffer_bytes": 2 * (5 * 8 + 9 * 4) - 1}, [range(1), range(1, 3)]),
    ],
)
def test_layers_fuse_while_features_between_them_and_their_weights_fit(changes, groups):
    assert fused(machine(**({"weight_buffer_bytes": 400} | changes)).config, (4, 8, 4, 6)) == groups


def test_fused_layers_move_their_first_input_and_their_last_output_alone():
    chain = (2, 8, 4, 6)
    layers = [linear(12, *chain[i : i + 2], name=f"fc{i}", bias=False, chain=chain, chain_index=i) for i in range(3)]
    built = machine(weight_buffer_bytes=400, output_buffer_bytes=400)
    alone, together = (
        [
            both(machine(weight_buffer_bytes=400, output_buffer_bytes=400, fuse_layers=fuse), layer).counts
            for layer in layers
        ]
        for fuse in (False, True)
    )
    assert [counts["dram_feature_bytes"] for counts in alone] == [12 * 2 * width for width in chain[:-1]]
    assert [counts["dram_feature_bytes"] for counts in together] == [12 * 2 * 2, 0, 0]
    assert [counts["dram_output_bytes"] for counts in together] == [0, 0, 12 * 2 * 6]
    assert [counts["dram_weight_bytes"] for counts in together] == [2 * 16, 2 * 32, 2 * 24]
    trace = Trace(name="chain", layers=tuple(layers))
    assert simulate(built, trace).total.traffic_bytes["dram"] == 2 * (12 * 2 + 12 * 6 + 16 + 32 + 24)
