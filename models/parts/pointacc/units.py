"""The operations of PointAcc's mapping unit, stage by stage: the readable form of `parts.pointacc.mapping`.

Names, arguments and results are the same, with a timeline to draw on. Nothing here knows a formula: keys go through the
comparators of sorter and merger, and an operation has taken as many cycles as have passed when its last key arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import simpy

from ....workloads.points import keys as voxels
from ....workloads.points import neighbours
from ....workloads.points.kernel_map import Maps, offsets
from ....workloads.points.neighbours import real_points
from . import network
from .mapper import Mapper, Method, Outcome, cloud_keys, ranking, whole_keys
from .network import KEY, SOURCE
from .stages import OUTSIDE, Unit

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]
Operation: TypeAlias = Generator[simpy.Event, Any, Any]


def merge(mapper: Mapper, keys_a: np.ndarray, keys_b: np.ndarray, timeline: Timeline | None = None) -> Outcome[Pair]:
    """Return what `parts.pointacc.mapping.merge` does."""
    a, b = whole_keys(keys_a, "keys_a", 1), whole_keys(keys_b, "keys_b", 1)
    unit = Unit(mapper)

    def operation() -> Operation:
        merged = unit.link()
        first = network.block_of(a, np.arange(len(a)))
        second = network.block_of(b, np.arange(len(a), len(a) + len(b)))
        _start_merges(unit, [first], [second], "merge", merged)
        runs = yield unit.env.process(unit.buffering.collect(_drained(unit, merged)))
        return _only(runs)

    keys, cycles = unit.run(operation(), timeline)
    return Outcome((keys[KEY], keys[SOURCE]), cycles, unit.counts)


def sort(mapper: Mapper, keys: np.ndarray, timeline: Timeline | None = None) -> Outcome[Pair]:
    """Return what `parts.pointacc.mapping.sort` does."""
    unit = Unit(mapper)
    ordered, cycles = unit.run(_sort(unit, whole_keys(keys, "keys")), timeline)
    return Outcome((ordered[KEY], ordered[SOURCE]), cycles, unit.counts)


def unique(mapper: Mapper, keys: np.ndarray, timeline: Timeline | None = None) -> Outcome[Pair]:
    """Return what `parts.pointacc.mapping.unique` does."""
    keys = whole_keys(keys, "keys", 0)
    unit = Unit(mapper)

    def operation() -> Operation:
        merged, places = unit.link(), np.arange(len(keys))
        _start_merges(unit, [network.block_of(keys, places, places)], [network.empty()], "unique", merged)
        return (yield unit.env.process(unit.detect_intersection.distinct(_drained(unit, merged), len(keys))))

    data, cycles = unit.run(operation(), timeline)
    return Outcome(data, cycles, unit.counts)


def quantise(mapper: Mapper, points: np.ndarray, voxel_size: float, timeline: Timeline | None = None) -> Outcome[Pair]:
    """Return what `parts.pointacc.mapping.quantise` does."""
    voxels.voxelise(points, voxel_size)  # checks

    def floor(some: np.ndarray) -> np.ndarray:
        return voxels.pack(np.floor(some.astype(np.float64) / voxel_size).astype(np.int32))

    unit = Unit(mapper)
    (keys, inverse), cycles = unit.run(_coarsen(unit, np.asarray(points), "point_reads", floor), timeline)
    return Outcome((voxels.unpack(keys), inverse), cycles, unit.counts)


def downsample(
    mapper: Mapper, coords: np.ndarray, stride: int, timeline: Timeline | None = None
) -> Outcome[np.ndarray]:
    """Return what `parts.pointacc.mapping.downsample` does."""
    voxels.downsample(coords, stride)  # checks

    def floor(some: np.ndarray) -> np.ndarray:
        return voxels.pack(some.astype(np.int32) // np.int32(stride) * np.int32(stride))

    unit = Unit(mapper)
    (keys, _), cycles = unit.run(_coarsen(unit, np.asarray(coords), "key_reads", floor), timeline)
    return Outcome(voxels.unpack(keys), cycles, unit.counts)


def kernel_map(
    mapper: Mapper,
    coords_in: np.ndarray,
    coords_out: np.ndarray,
    kernel_size: int = 3,
    tensor_stride: int = 1,
    timeline: Timeline | None = None,
) -> Outcome[Maps]:
    """Return what `parts.pointacc.mapping.kernel_map` does."""
    keys_in, keys_out = cloud_keys(coords_in), cloud_keys(coords_out)
    cells = offsets(kernel_size, tensor_stride)
    is_self = np.array_equal(keys_in, keys_out)
    is_half = is_self and mapper.exploit_symmetry and kernel_size % 2 == 1
    sought = cells[: len(cells) // 2] if is_half else cells
    unit = Unit(mapper)

    def operation() -> Operation:
        ordered_in = yield from _in_order(unit, keys_in)
        ordered_out = ordered_in.copy() if is_self else (yield from _in_order(unit, keys_out))
        ordered_out[SOURCE] += len(keys_in)
        queues, fetched, merged = unit.buffering.queues(), simpy.Store(unit.env, 1), unit.link()
        unit.env.process(unit.fetch_coords.feed(ordered_in, len(sought), fetched))
        unit.env.process(unit.calculate_distance.shift(fetched, [voxels.shift(-cell) for cell in sought], queues[0]))
        unit.env.process(unit.fetch_coords.feed(ordered_out, len(sought), queues[1]))
        names = [f"offset {tuple(cell.tolist())}" for cell in sought]
        unit.env.process(unit.merge_sort.run(queues, names, merged))
        matches = yield unit.env.process(unit.detect_intersection.match(_drained(unit, merged)))
        return np.array(matches, np.int64).reshape(-1, 3), ordered_in[SOURCE]

    (matches, order), cycles = unit.run(operation(), timeline)
    segments, into, out = matches[:, 0], matches[:, 1], matches[:, 2] - len(keys_in)
    found = [(into[segments == segment], out[segments == segment]) for segment in range(len(sought))]
    if is_half:
        found += [(order, order), *((out, into) for into, out in found[::-1])]
    unit.count(map_writes=sum(len(into) for into, _ in found))
    return Outcome(found, cycles, unit.counts)


def fps(
    mapper: Mapper, points: np.ndarray, m: int, start: int = 0, timeline: Timeline | None = None
) -> Outcome[np.ndarray]:
    """Return what `parts.pointacc.mapping.fps` does."""
    neighbours.fps(points, m, start)  # checks
    points = np.asarray(points, np.float32)
    unit = Unit(mapper)
    chosen = np.empty(m, np.int64)

    def operation() -> Operation:
        nearest = np.empty(len(points), np.float32)
        for sample in range(m):
            items = unit.link()
            unit.env.process(unit.fetch_coords.stream("cloud", points, mapper.fps_lanes, "point_reads", items))
            origin = points[chosen[sample - 1]] if sample else None
            farthest = unit.calculate_distance.farthest(items, origin, nearest, start)
            chosen[sample] = yield unit.env.process(farthest)
            unit.show("MergeSort", f"max {sample}", 0, mapper.loop_latency)
            yield unit.env.timeout(mapper.loop_latency)
            unit.count(map_writes=1)
        return chosen

    _, cycles = unit.run(operation(), timeline)
    return Outcome(chosen, cycles, unit.counts)


def knn(
    mapper: Mapper,
    points: np.ndarray,
    queries: np.ndarray,
    k: int,
    method: Method = "auto",
    timeline: Timeline | None = None,
) -> Outcome[np.ndarray]:
    """Return what `parts.pointacc.mapping.knn` does."""
    method = ranking(mapper, len(points), k, method)
    points, queries = real_points(points, "points"), real_points(queries, "queries")
    neighbours.knn(points, queries[:0], k)  # checks
    unit = Unit(mapper)
    rows, cycles = unit.run(
        _each_query(unit, points, queries, None, lambda keys: _rank(unit, keys, k, method)), timeline
    )
    nearest = np.array([row[SOURCE] for row in rows], np.int64).reshape(len(queries), k)
    unit.count(map_writes=nearest.size)
    return Outcome(nearest, cycles, unit.counts)


def ball_query(
    mapper: Mapper,
    points: np.ndarray,
    queries: np.ndarray,
    radius: float,
    k: int,
    order: neighbours.Order = "nearest",
    timeline: Timeline | None = None,
) -> Outcome[Pair]:
    """Return what `parts.pointacc.mapping.ball_query` does."""
    neighbours.ball_query(points, queries, radius, k, order)  # checks
    with np.errstate(over="ignore"):
        within = np.float32(radius) * np.float32(radius)
    unit = Unit(mapper)

    def nearest(keys: simpy.Store) -> Operation:
        ranked = yield from _rank(unit, keys, k, "stream" if k <= mapper.block else "tree")
        return ranked[SOURCE, ranked[KEY] < OUTSIDE]

    def first(keys: simpy.Store) -> Operation:
        return (yield unit.env.process(unit.buffering.first(keys, k)))

    take = nearest if order == "nearest" else first
    rows, cycles = unit.run(_each_query(unit, points, queries, within, take), timeline)
    found, taken = np.zeros((len(queries), k), np.int64), np.zeros(len(queries), np.int64)
    for query, row in enumerate(rows):
        if len(row):
            found[query] = row[0]  # pads
            found[query, : len(row)] = row
        taken[query] = len(row)
    unit.count(map_writes=int(taken.sum()))
    return Outcome((found, taken), cycles, unit.counts)


def _each_query(
    unit: Unit,
    points: np.ndarray,
    queries: np.ndarray,
    within: np.float32 | None,
    take: Callable[[simpy.Store], Operation],
) -> Operation:
    """Return what ``take`` makes of the distances of all ``points`` from each of ``queries``."""
    points, queries = np.asarray(points, np.float32), np.asarray(queries, np.float32)
    rows = []
    for query, origin in enumerate(queries):
        unit.count(point_reads=1)
        items, keys = unit.link(), unit.link()
        width = unit.mapper.merger_width
        unit.env.process(unit.fetch_coords.stream(f"query {query}", points, width, "point_reads", items))
        unit.env.process(unit.calculate_distance.measure(items, origin, within, keys))
        rows.append((yield from take(keys)))
    return rows


def _rank(unit: Unit, keys: simpy.Store, k: int, method: Method) -> Operation:
    """Return the ``k`` lowest of ``keys`` in order, as a block without padding."""
    blocks = unit.link()
    unit.env.process(unit.sort.run(keys, blocks))
    if method == "stream":
        best = yield unit.env.process(unit.merge_sort.top(blocks))
        return network.keys_in(best)[:, :k]
    limit = k if method == "tree" else None
    runs = yield unit.env.process(unit.buffering.collect(blocks, limit))
    runs = yield from _passes(unit, runs, 1, limit)
    return _only(runs)[:, :k]


def _sort(unit: Unit, keys: np.ndarray) -> Operation:
    """Return ``keys`` as one run."""
    items, blocks = unit.link(), unit.link()
    unit.env.process(unit.fetch_coords.stream("keys", keys, unit.mapper.merger_width, "key_reads", items))
    unit.env.process(unit.sort.run(items, blocks))
    runs = yield unit.env.process(unit.buffering.collect(blocks))
    return _only((yield from _passes(unit, runs, 1)))


def _in_order(unit: Unit, keys: np.ndarray) -> Operation:
    """Return ``keys`` as one run, sorted if they are not."""
    if (keys[1:] > keys[:-1]).all():
        return network.block_of(keys, np.arange(len(keys)))
    ordered = yield from _sort(unit, keys)
    return network.block_of(ordered[KEY], ordered[SOURCE])


def _coarsen(unit: Unit, values: np.ndarray, kind: str, floor: Callable[[np.ndarray], np.ndarray]) -> Operation:
    """Return the keys that ``floor`` makes of ``values``, sorted and each once, and which one each value has."""
    items, keys, blocks = unit.link(), unit.link(), unit.link()
    unit.env.process(unit.fetch_coords.stream("cloud", values, unit.mapper.merger_width, kind, items))
    unit.env.process(unit.calculate_distance.floor(items, floor, keys))
    unit.env.process(unit.sort.run(keys, blocks))
    if len(values) > unit.mapper.merger_width:
        runs = yield unit.env.process(unit.buffering.collect(blocks))
        runs = yield from _passes(unit, runs, 2)
        blocks = unit.link()
        _start_merges(unit, runs[:1], runs[1:], "last pass", blocks)
    return (yield unit.env.process(unit.detect_intersection.distinct(_drained(unit, blocks), len(values))))


def _passes(unit: Unit, runs: list[np.ndarray], most: int, limit: int | None = None) -> Operation:
    """Return at most ``most`` runs, having merged neighbours pass by pass; one that is left over waits."""
    number = 0
    while len(runs) > most:
        merged = unit.link()
        _start_merges(unit, runs[: len(runs) & ~1 : 2], runs[1::2], f"pass {number}", merged)
        new = yield unit.env.process(unit.buffering.collect(merged, limit))
        runs, number = new + runs[len(runs) & ~1 :], number + 1
    return runs


def _start_merges(
    unit: Unit, first: list[np.ndarray], second: list[np.ndarray], name: str, merged: simpy.Store
) -> None:
    """Start to merge each run of ``first`` with its one of ``second``, back to back."""
    queues = unit.buffering.queues()
    for runs, queue in zip((first, second), queues, strict=True):
        unit.env.process(unit.buffering.feed(runs, queue))
    unit.env.process(unit.merge_sort.run(queues, [name] * len(first), merged))


def _drained(unit: Unit, merged: simpy.Store) -> simpy.Store:
    """Return the link on which what enters at ``merged`` leaves the merger."""
    out = unit.link()
    unit.env.process(unit.merge_sort.drain(merged, out))
    return out


def _only(runs: list[np.ndarray]) -> np.ndarray:
    """Return the one run, or an empty one where there is none."""
    return runs[0] if runs else network.empty()
