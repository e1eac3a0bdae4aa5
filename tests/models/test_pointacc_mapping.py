import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossamer.models import pointacc_mapping, pointacc_network, pointacc_units
from gossamer.models.pointacc_mapper import COUNTS
from gossamer.models.pointacc_mapping import Mapper
from gossamer.simulator.timeline import Change, Interval, Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.points import downsample, offsets, pack, voxelise

RULES = ("head-select", "two-window", "flims")
mappers = st.builds(
    Mapper,
    merger_width=st.sampled_from([2, 4, 8, 16]),
    rule=st.sampled_from(RULES),
    fps_lanes=st.integers(1, 9),
    loop_latency=st.integers(0, 25),
    exploit_symmetry=st.booleans(),
    boundary_register=st.booleans(),
)
ascending = st.sets(st.integers(-40, 40), max_size=50).map(lambda keys: np.array(sorted(keys), np.int64))
cells = st.integers(-3, 2)
clouds = st.lists(st.tuples(cells, cells, cells), max_size=30, unique=True).map(
    lambda rows: np.array(rows, np.int32).reshape(-1, 3)
)


def points(least=0, most=40, dimensions=3):
    values = st.integers(-8, 8).map(lambda number: number / 4)  # so coarse that many distances are equal
    shapes = st.tuples(st.integers(least, most), st.just(dimensions))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


def both(name, mapper, *arguments):
    """Return the outcome of both engines, having checked that data, cycles and every count are the same."""
    fast, event = (getattr(engine, name)(mapper, *arguments) for engine in (pointacc_mapping, pointacc_units))
    assert event.cycles == fast.cycles
    assert event.counts == fast.counts
    assert tuple(fast.counts) == COUNTS
    assert_same(event.data, fast.data)
    return fast


def assert_same(one, other):
    if isinstance(one, tuple | list):
        for mine, its in zip(one, other, strict=True):
            assert_same(mine, its)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def blocks(count, size):
    return -(-count // size)


def full_sort_cycles(n, width):
    """Return the reference's closed form for head selection, with leaves of the merger's width."""
    runs = blocks(n, width)
    cycles = runs
    for q in range(max(0, math.ceil(math.log2(max(runs, 1))))):
        left = -(-runs // 2**q)
        moved = n if left % 2 == 0 else (left - 1) * width * 2**q
        cycles += blocks(moved, width // 2) + 1
    return cycles


def matched(coords_in, coords_out, kernel_size, tensor_stride=1):
    """Return the maps as numpy's intersection of packed keys gives them."""
    keys_in, keys_out = pack(coords_in), pack(coords_out)
    maps = []
    for cell in offsets(kernel_size, tensor_stride):
        shifted = pack(coords_out + cell) if len(coords_out) else keys_out
        _, into, out = np.intersect1d(keys_in, shifted, assume_unique=True, return_indices=True)
        maps.append((into, out))
    return maps


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
@given(mapper=mappers, cloud=clouds, other=clouds, size=st.integers(1, 3), stride=st.integers(1, 2))
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
@given(mapper=mappers, cloud=clouds, size=st.integers(1, 3))
def test_engines_agree_on_maps_of_unsorted_clouds_whatever_the_options(mapper, cloud, size):
    both("kernel_map", mapper, cloud, cloud, size)
    both("kernel_map", mapper, cloud, downsample(cloud, 2), 2)
    both("kernel_map", mapper, downsample(cloud, 2), cloud, size)


@settings(max_examples=30)
@given(cloud=clouds, rule=st.sampled_from(RULES))
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


def test_the_timeline_of_a_sort_shows_leaves_and_passes():
    timeline = Timeline()
    pointacc_units.sort(Mapper(4), np.arange(12)[::-1], timeline)
    assert [interval for interval in timeline.intervals if interval.track == "MergeSort"] == [
        Interval("MergeSort", "pass 0", 3, 3 + 4 + 1),
        Interval("MergeSort", "pass 1", 8, 8 + 6 + 1),
    ]
    assert Interval("Sort", "sort", 0, 3) in timeline.intervals
    assert timeline.offset == 15 == full_sort_cycles(12, 4)


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
