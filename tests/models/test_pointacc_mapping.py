"""PointAcc's mapping unit: kernel maps, sampling and neighbours, by data, cycles and counts of both engines."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models.parts.pointacc import mapping as pointacc_mapping
from gossamer.models.parts.pointacc import units as pointacc_units
from gossamer.models.parts.pointacc.mapping import Mapper
from gossamer.simulator.timeline import Change, Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.points import downsample, offsets, pack, voxelise

from .mapping_engines import RULES, assert_same, blocks, both, coordinates, full_sort_cycles, mappers, points


def matched(coords_in, coords_out, kernel_size, tensor_stride=1):
    """Return the maps as numpy's intersection of packed keys gives them."""
    keys_in, keys_out = pack(coords_in), pack(coords_out)
    maps = []
    for cell in offsets(kernel_size, tensor_stride):
        shifted = pack(coords_out + cell) if len(coords_out) else keys_out
        _, into, out = np.intersect1d(keys_in, shifted, assume_unique=True, return_indices=True)
        maps.append((into, out))
    return maps


@settings(max_examples=40)
@given(mapper=mappers, cloud=coordinates, other=coordinates, size=st.integers(1, 3), stride=st.integers(1, 2))
def test_kernel_maps_equal_the_intersections_of_shifted_keys(mapper, cloud, other, size, stride):
    mapper = Mapper(mapper.merger_width, mapper.rule)
    cloud, other = (points[np.argsort(pack(points))] for points in (cloud, other))
    outcome = both("kernel_map", mapper, cloud, other, size, stride)
    expected = matched(cloud, other, size, stride)
    assert_same(outcome.data, expected)
    K, P, S, n, m = size**3, mapper.block, mapper.stages, len(cloud), len(other)
    found = sum(len(into) for into, _ in expected)
    assert outcome.counts["matches"] == outcome.counts["map_writes"] == found
    assert outcome.counts["key_reads"] == K * (n + m)
    if mapper.rule == "head-select":
        assert outcome.cycles == K * (blocks(n, P) + blocks(m, P)) + (n + m > 0) + S
    elif mapper.rule == "flims":
        assert outcome.cycles == K * blocks(n + m, 2 * P) + S + 1
    else:
        assert K * blocks(n + m, 2 * P) <= outcome.cycles - S <= K * (blocks(n, P) + blocks(m, P))


@settings(max_examples=40)
@given(mapper=mappers, cloud=coordinates, size=st.integers(1, 3))
def test_engines_agree_on_maps_of_unsorted_clouds_whatever_the_options(mapper, cloud, size):
    both("kernel_map", mapper, cloud, cloud, size)
    both("kernel_map", mapper, cloud, downsample(cloud, 2), 2)
    both("kernel_map", mapper, downsample(cloud, 2), cloud, size)


@settings(max_examples=30)
@given(cloud=coordinates, rule=st.sampled_from(RULES))
def test_half_of_the_merges_find_all_maps_of_a_cloud_onto_itself(cloud, rule):
    cloud = cloud[np.argsort(pack(cloud))]
    whole, half = (both("kernel_map", Mapper(8, rule, exploit_symmetry=half), cloud, cloud) for half in (False, True))
    assert_same(half.data, whole.data)
    assert half.counts["map_writes"] == whole.counts["map_writes"]
    assert half.counts["matches"] == (whole.counts["matches"] - len(cloud)) // 2
    assert half.counts["key_reads"] == 13 * 2 * len(cloud)
    if rule == "head-select":
        assert half.cycles == 13 * 2 * blocks(len(cloud), 4) + (len(cloud) > 0) + 3


def test_an_unsorted_cloud_costs_its_sort():
    cloud = np.array(list(itertools.product(range(4), repeat=3)), np.int32)
    shuffled = np.random.default_rng(0).permutation(cloud)
    tidy, untidy = (both("kernel_map", Mapper(8), coords, coords) for coords in (cloud, shuffled))
    assert untidy.cycles == tidy.cycles + full_sort_cycles(64, 8)
    assert_same([(np.sort(pack(shuffled[into])), pack(shuffled[out])) for into, out in untidy.data],
                [(pack(cloud[into]), pack(cloud[out])) for into, out in tidy.data])  # fmt: skip


def surface():
    plane = np.random.default_rng(0).random((3000, 2)) * 20
    return voxelise(np.column_stack([plane, np.sin(plane[:, 0])]), 0.5)[0]


@pytest.mark.parametrize("rule", RULES)
def test_without_the_boundary_register_matches_astride_two_blocks_are_lost(rule):
    cloud = surface()
    found, left = (
        both("kernel_map", Mapper(8, rule, boundary_register=kept), cloud, cloud, 2).counts["matches"]
        for kept in (True, False)
    )
    if rule == "two-window":
        assert left == found  # equal keys retire together
    else:
        size = 4 if rule == "head-select" else 8
        assert (found - left) / found == pytest.approx(1 / size, rel=0.25)


def test_a_map_astride_two_blocks_by_hand():
    cloud = np.array([[0, 0, 0], [0, 0, 2], [0, 0, 3]], np.int32)
    # Offset +z: inputs at -1 1 2, outputs at 0 2 3; in order -1 0 | 1 2 | 2 3, and the match is astride. So it is at
    # offset -z, with inputs at 1 3 4: 0 1 | 2 3 | 3 4. At the centre, 0 0 | 2 2 | 3 3, none is.
    kept, lost = (both("kernel_map", Mapper(4, boundary_register=kept), cloud, cloud) for kept in (True, False))
    assert [len(into) for into, _ in kept.data][12:15] == [1, 3, 1]
    assert [len(into) for into, _ in lost.data][12:15] == [0, 3, 0]


def farthest(cloud, m, start):
    chosen, nearest = [], np.full(len(cloud), np.inf, np.float32)
    for _ in range(m):
        chosen.append(start)
        nearest = np.minimum(nearest, ((cloud - cloud[start]) ** 2).sum(axis=1))
        start = int(np.argmax(nearest))
    return chosen


@settings(max_examples=40)
@given(data=st.data(), mapper=mappers, cloud=points())
def test_fps_is_the_plain_algorithm_and_takes_a_pass_a_sample(data, mapper, cloud):
    m = data.draw(st.integers(0, len(cloud)))
    start = data.draw(st.integers(0, max(0, len(cloud) - 1)))
    outcome = both("fps", mapper, cloud, m, start)
    assert outcome.data.tolist() == farthest(cloud, m, start)
    assert outcome.cycles == m * (blocks(len(cloud), mapper.fps_lanes) + mapper.loop_latency)


def test_the_loop_more_than_doubles_512_samples_of_1024():
    cloud = np.random.default_rng(0).random((1024, 3), np.float32)
    with_loop, without = (both("fps", Mapper(loop_latency=latency), cloud, 512).cycles for latency in (20, 0))
    assert (with_loop, without) == (512 * (16 + 20), 512 * 16)


@settings(max_examples=40)
@given(data=st.data(), mapper=mappers, cloud=points(1, 40), queries=points(0, 3))
def test_neighbours_are_the_nearest_by_distance_then_index(data, mapper, cloud, queries):
    k = data.draw(st.integers(1, len(cloud)))
    methods = ["auto", "tree", "sort"] + (["stream"] if k <= mapper.block else [])
    expected = [np.argsort(((cloud - query) ** 2).sum(axis=1), kind="stable")[:k] for query in queries]
    for method in methods:
        outcome = both("knn", mapper, cloud, queries, k, method)
        np.testing.assert_array_equal(outcome.data, np.array(expected).reshape(len(queries), k))
        assert outcome.counts["distance_macs"] == 3 * len(cloud) * len(queries)
        if method == "stream":
            assert outcome.cycles == len(queries) * blocks(len(cloud), mapper.merger_width)
        if method == "sort" and mapper.rule == "head-select":
            assert outcome.cycles == len(queries) * full_sort_cycles(len(cloud), mapper.merger_width)


@pytest.mark.parametrize(("method", "cycles"), [("auto", 16), ("stream", 16), ("tree", 50), ("sort", 148)])
def test_32_neighbours_of_1024_take_the_cycles_of_the_reference(method, cycles):
    rng = np.random.default_rng(0)
    cloud, query = rng.random((1024, 3), np.float32), rng.random((1, 3), np.float32)
    assert both("knn", Mapper(), cloud, query, 32, method).cycles == cycles


def test_neighbours_agree_with_a_tree_search():
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    cloud, queries = rng.random((500, 3), np.float32), rng.random((6, 3), np.float32)
    outcome = both("knn", Mapper(16), cloud, queries, 20)
    np.testing.assert_array_equal(outcome.data, cKDTree(cloud).query(queries, 20)[1])


@settings(max_examples=40)
@given(
    mapper=mappers, cloud=points(0, 40), queries=points(0, 3), k=st.integers(1, 12),
    radius=st.sampled_from([0.25, 1.0, 3.0, 1e30]),
)  # fmt: skip
def test_a_ball_has_its_nearest_or_its_first_points(mapper, cloud, queries, k, radius):
    for order in ("nearest", "index"):
        outcome = both("ball_query", mapper, cloud, queries, radius, k, order)
        for row, taken, query in zip(*outcome.data, queries, strict=True):
            squares = ((cloud - query) ** 2).sum(axis=1)
            inside = np.flatnonzero(squares.astype(np.float64) < radius * radius)
            if order == "nearest":
                inside = inside[np.argsort(squares[inside], kind="stable")]
            inside = inside[:k]
            assert taken == len(inside)
            np.testing.assert_array_equal(row[:taken], inside)
            assert (row[taken:] == (inside[0] if taken else 0)).all()
        if order == "index" or k <= mapper.block:
            assert outcome.cycles == len(queries) * blocks(len(cloud), mapper.merger_width)
        assert outcome.counts["map_writes"] == outcome.data[1].sum()


def test_both_engines_agree_on_a_surface_at_full_width():
    cloud = surface()
    for rule in RULES:
        outcome = both("kernel_map", Mapper(rule=rule, exploit_symmetry=True), cloud, cloud)
        assert_same(outcome.data, matched(cloud, cloud, 3))


def test_the_timeline_of_a_map_by_hand():
    cloud = np.array([[-1, 0, 0], [0, 0, 5]], np.int32)
    timeline = Timeline()
    outcome = pointacc_units.kernel_map(Mapper(4), cloud, cloud, 1, timeline=timeline)
    assert outcome.cycles == 1 + 1 + 1 + 2
    assert sorted(timeline.intervals, key=lambda interval: interval.track) == [
        Interval("CalculateDistance", "shift", 0, 1),
        Interval("DetectIntersection", "compare", 3, 5),
        Interval("FetchCoords", "cloud", 0, 1),
        Interval("MergeSort", "offset (0, 0, 0)", 0, 3),
    ]
    assert timeline.changes == [Change("matches", 4, 1), Change("matches", 5, 2)]
    assert timeline.offset == 5


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"merger_width": 48}, "merger_width must be a power of 2 from 2 to 4096, not 48"),
        ({"merger_width": 0}, "merger_width must be a power of 2 from 2 to 4096, not 0"),
        ({"rule": "best"}, "rule must be one of head-select, two-window, flims, not 'best'"),
        ({"fps_lanes": 0}, "fps_lanes must be from 1 to 65536, not 0"),
        ({"loop_latency": -1}, "loop_latency must be from 0 to 65536, not -1"),
    ],
)
def test_a_bad_mapper_is_refused_with_rule_and_value(change, rule):
    with pytest.raises(ValueError) as error:
        Mapper(**change)
    assert str(error.value) == rule


@pytest.mark.parametrize("engine", [pointacc_mapping, pointacc_units], ids=["fast", "event"])
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("merge", ([1, 1], [2]), "keys_a must ascend and differ, and 1 follows 1; sort them first"),
        ("merge", ([1], [[2]]), "keys_b must be whole numbers of shape (n,), not int64 (1, 1)"),
        ("unique", ([3, 2],), "keys must ascend, and 2 follows 3; sort them first"),
        ("sort", ([0.5],), "keys must be whole numbers of shape (n,), not float64 (1,)"),
        ("sort", ([2**63 - 1],), "keys must be below 2^63 - 1, not 9223372036854775807"),
        ("kernel_map", (np.zeros((2, 3), int), np.zeros((0, 3), int)),
         "every coordinate must occur once, and (0, 0, 0) occurs twice; downsample drops such"),
        ("knn", (np.zeros((3, 3)), np.zeros((1, 3)), 4), "k must be a whole number from 1 to 3, not 4"),
        ("knn", (np.zeros((0, 3)), np.zeros((1, 3)), 1), "k must be at most the number of points, 0, not 1"),
        ("knn", (np.zeros((9, 3)), np.zeros((1, 3)), 5, "stream"),
         "k must be at most 4, half the merger_width, to stream, not 5; take tree"),
        ("knn", (np.zeros((9, 3)), np.zeros((1, 3)), 5, "best"),
         "method must be one of auto, stream, tree, sort, not 'best'"),
        ("knn", (np.zeros((9, 3)), np.full((1, 3), np.nan), 5),
         "queries must be finite in float32, and row 0 is not; drop it"),
        ("fps", (np.zeros((3, 3)), 4), "m must be a whole number from 0 to 3, not 4"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_alike_by_both_engines(engine, name, arguments, message):
    with pytest.raises(InputError) as error:
        getattr(engine, name)(Mapper(8), *arguments)
    assert str(error.value) == message
