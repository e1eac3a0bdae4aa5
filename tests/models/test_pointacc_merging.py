"""PointAcc's merger: networks, merges, sorts and what drops duplicates, by data, cycles and counts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossamer.models.parts.pointacc import mapping as pointacc_mapping
from gossamer.models.parts.pointacc import network as pointacc_network
from gossamer.models.parts.pointacc import units as pointacc_units
from gossamer.models.parts.pointacc.mapping import Mapper
from gossamer.simulator.timeline import Interval, Timeline
from gossamer.workloads.points import pack

from .mapping_engines import ascending, assert_same, blocks, both, full_sort_cycles, mappers, points


@settings(max_examples=80)
@given(mapper=mappers, a=ascending, b=ascending)
def test_a_merge_has_the_data_of_numpy_and_the_cycles_of_its_rule(mapper, a, b):
    outcome = both("merge", mapper, a, b)
    everything = np.concatenate([a, b])
    order = np.argsort(everything, kind="stable")
    np.testing.assert_array_equal(outcome.data[0], everything[order])
    np.testing.assert_array_equal(outcome.data[1], order)
    N, P, S, total = mapper.merger_width, mapper.block, mapper.stages, len(a) + len(b)
    steps = outcome.counts["merger_steps"]
    if mapper.rule == "head-select":
        assert outcome.cycles == blocks(len(a), P) + blocks(len(b), P) + (total > 0) + S
    elif mapper.rule == "flims":
        assert outcome.cycles == blocks(total, N) + S + 1
    else:
        assert outcome.cycles == steps + S
        assert blocks(total, N) <= steps <= blocks(len(a), P) + blocks(len(b), P)
    per_step = N // 2 * S + (N if mapper.rule == "flims" else 0)
    assert outcome.counts["merger_comparisons"] == steps * per_step


@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [
        (range(16), range(16, 32), 4 + 4),  # one array before the other: a window a step
        (range(0, 32, 2), range(1, 32, 2), 5),  # shuffled: two windows but for one key a step
        (range(16), range(16), 4),  # the same keys: two windows a step
    ],
)
def test_steps_of_two_window_depend_on_the_keys(a, b, steps):
    outcome = both("merge", Mapper(8, "two-window"), np.array(a), np.array(b))
    assert outcome.counts["merger_steps"] == steps


@settings(max_examples=60)
@given(mapper=mappers, keys=hnp.arrays(np.int64, st.integers(0, 90), elements=st.integers(-20, 20)))
def test_a_sort_is_stable_and_takes_the_cycles_of_its_passes(mapper, keys):
    outcome = both("sort", mapper, keys)
    np.testing.assert_array_equal(outcome.data[1], np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(outcome.data[0], np.sort(keys))
    if mapper.rule == "head-select":
        assert outcome.cycles == full_sort_cycles(len(keys), mapper.merger_width)
    N, S = mapper.merger_width, mapper.stages
    assert outcome.counts["sorter_comparisons"] == blocks(len(keys), N) * N * S * (S + 1) // 4


@pytest.mark.parametrize(
    ("n", "cycles"), [(0, 0), (1, 1), (64, 1), (1024, 148), (4096, 838), (16384, 4360), (91767, 32061)]
)
def test_a_full_sort_takes_the_cycles_of_the_reference(n, cycles):
    keys = np.random.default_rng(n).integers(-(2**60), 2**60, n)
    assert pointacc_mapping.sort(Mapper(), keys).cycles == cycles == full_sort_cycles(n, 64)
    if n <= 4096:
        both("sort", Mapper(), keys)


@settings(max_examples=40)
@given(mapper=mappers, cloud=points())
def test_quantise_keeps_each_voxel_once(mapper, cloud):
    coords, inverse = both("quantise", mapper, cloud, 0.6).data
    keys, places = np.unique(pack(np.floor(cloud.astype(np.float64) / 0.6).astype(np.int32)), return_inverse=True)
    np.testing.assert_array_equal(pack(coords), keys)
    np.testing.assert_array_equal(inverse, places)
    outcome = both("downsample", mapper, coords, 2)
    np.testing.assert_array_equal(pack(outcome.data), np.unique(pack(coords // 2 * 2)))
    assert outcome.counts["matches"] == len(coords) - len(outcome.data)
    if mapper.rule == "head-select":
        assert outcome.cycles == full_sort_cycles(len(coords), mapper.merger_width) + mapper.stages


@settings(max_examples=40)
@given(mapper=mappers, keys=hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(-9, 9)).map(np.sort))
def test_unique_is_a_merge_with_nothing(mapper, keys):
    outcome = both("unique", mapper, keys)
    assert_same(outcome.data, np.unique(keys, return_inverse=True))
    assert outcome.cycles == pointacc_mapping.merge(mapper, np.arange(len(keys)), np.arange(0)).cycles


@pytest.mark.parametrize("width", [2, 4, 8])
def test_the_networks_sort_all_zeros_and_ones_and_so_everything(width):
    stages = int(math.log2(width))
    for bits in itertools.product([0, 1], repeat=width):
        block = pointacc_network.block_of(np.array(bits), np.zeros(width, np.int64))
        ordered, comparisons = pointacc_network.sort(block)
        assert ordered[1].tolist() == sorted(bits)
        assert comparisons == width * stages * (stages + 1) // 4 == Mapper(width).sorter_comparators
    for ones in itertools.product(range(width // 2 + 1), repeat=2):
        halves = [np.arange(width // 2) >= width // 2 - count for count in ones]
        one, other = (
            pointacc_network.block_of(half.astype(np.int64), np.zeros(width // 2, np.int64)) for half in halves
        )
        merged, comparisons = pointacc_network.merge(one, other)
        assert merged[1].tolist() == sorted([*one[1], *other[1]])
        assert comparisons == width // 2 * stages == Mapper(width).merger_comparators


def test_the_timeline_of_a_sort_shows_leaves_and_passes():
    timeline = Timeline()
    pointacc_units.sort(Mapper(4), np.arange(12)[::-1], timeline)
    assert [interval for interval in timeline.intervals if interval.track == "MergeSort"] == [
        Interval("MergeSort", "pass 0", 3, 3 + 4 + 1),
        Interval("MergeSort", "pass 1", 8, 8 + 6 + 1),
    ]
    assert Interval("Sort", "sort", 0, 3) in timeline.intervals
    assert timeline.offset == 15 == full_sort_cycles(12, 4)
