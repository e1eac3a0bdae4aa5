"""PointAcc's mapping unit: sorted keys, kernel maps and neighbours, and the cycles that its one ranking kernel takes.

All operations go through the same stages: FetchCoords, CalculateDistance, Sort, Buffering, MergeSort and
DetectIntersection. The bitonic sorter is N keys wide, and so is the merger, which takes blocks of P = N / 2 keys; its
S = log2 N columns of comparators are paid once, where results leave it. With blocks(n) = ceil(n / P):

    merge         head-select: blocks(a) + blocks(b) + 1 + S (no 1 where both are empty); flims: ceil((a + b) / N) + 1
                  + S; two-window: steps + S, of which there are ceil((a + b) / N) to blocks(a) + blocks(b)
    sort          ceil(n / N), and for each pass the steps of its merges (head-select: one more to empty the feedback);
                  nothing for the drain, as the sorted keys stay in the buffers
    kernel map    the steps of the merges of all offsets, back to back, with one emptying and one drain
    unique        a merge with nothing. Quantise and downsample: a sort, and the drain of its last pass, whose
                  duplicates DetectIntersection drops
    FPS           m of n: m * (ceil(n / lanes) + loop latency); the first pass finds the start, each later one a sample
    kNN           a query: stream ceil(n / N), for k <= P; tree: a sort whose runs are cut to k keys; or a whole sort
    ball query    nearest: as kNN; index: ceil(n / N) a query

Here data come from array operations, and cycles and counts from these forms (of two-window, whose steps depend on the
keys, from its recurrence); `parts.pointacc.units` finds all of them by stepping the stages. The forms are derived, not
published. Assumed: what the merger keeps is compared again in the next cycle, however deep the network; runs are read
back without waiting for the drain; fetching keeps up.

Sources: Lin et al., "PointAcc", MICRO 2021, stages and dataflows; Chhugani et al., VLDB 2008, head selection;
Papaphilippou et al., "FLiMS", FPT 2018 (these two cited from memory).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ....workloads.points import keys as voxels
from ....workloads.points import neighbours
from ....workloads.points.kernel_map import Maps, maps_between, offsets
from .cost import (
    added,
    blocks_out,
    detecting,
    emptying,
    measuring,
    merge_steps,
    merging,
    places_of,
    rank_cost,
    sort_cost,
)
from .mapper import COUNTS, Mapper, Method, Outcome, Rule, cloud_keys, counted, ranking, whole_keys

__all__ = [
    "COUNTS", "Mapper", "Method", "Outcome", "Rule", "ball_query", "downsample", "fps", "kernel_map", "knn", "merge",
    "quantise", "sort", "unique",
]  # fmt: skip
Pair: TypeAlias = tuple[np.ndarray, np.ndarray]


def merge(mapper: Mapper, keys_a: np.ndarray, keys_b: np.ndarray) -> Outcome[Pair]:
    """Return the merged keys, int64 (a + b,), and where each was: its place in ``keys_a``, or a + that in ``keys_b``.

    Each array must ascend without duplicates; of a key that both have, that of ``keys_a`` comes first. InputError.
    """
    a, b = whole_keys(keys_a, "keys_a", 1), whole_keys(keys_b, "keys_b", 1)
    keys = np.concatenate([a, b])
    source = np.argsort(keys, kind="stable")
    steps = merge_steps(mapper, a, b) + emptying(mapper, len(keys))
    return Outcome((keys[source], source), steps + mapper.drain, merging(mapper, steps, len(keys), len(keys)))


def sort(mapper: Mapper, keys: np.ndarray) -> Outcome[Pair]:
    """Return ``keys`` sorted, int64 (n,), and the place that each had; equal keys stay in order. Raises InputError."""
    keys = whole_keys(keys, "keys")
    order = np.argsort(keys, kind="stable")
    return Outcome((keys[order], order), *sort_cost(mapper, keys))


def unique(mapper: Mapper, keys: np.ndarray) -> Outcome[Pair]:
    """Return ``keys``, which must ascend, without duplicates, and the place of each of them there. InputError."""
    keys = whole_keys(keys, "keys", 0)
    distinct, inverse = np.unique(keys, return_inverse=True)
    places = np.arange(len(keys))
    steps = merge_steps(mapper, places, places[:0]) + emptying(mapper, len(keys))
    counts = merging(mapper, steps, len(keys), len(distinct)) | detecting(len(keys), len(keys) - len(distinct))
    return Outcome((distinct, inverse), steps + mapper.drain, counts)


def quantise(mapper: Mapper, points: np.ndarray, voxel_size: float) -> Outcome[Pair]:
    """Return the voxels of ``points``, int32 (m, 3), and which one each lies in, as `voxelise` does. InputError."""
    coords, inverse = voxels.voxelise(points, voxel_size)
    cycles, counts = sort_cost(mapper, inverse)
    counts |= detecting(len(inverse), len(inverse) - len(coords))
    counts |= {"key_operations": len(inverse), "point_reads": len(inverse)}
    counts["key_reads"] -= len(inverse)  # what is sorted first comes from points, not from stored keys
    counts["key_writes"] -= len(inverse) - len(coords)
    return Outcome((coords, inverse), cycles + mapper.drain, counts)


def downsample(mapper: Mapper, coords: np.ndarray, stride: int) -> Outcome[np.ndarray]:
    """Return ``coords`` floored to multiples of ``stride``, each once, sorted, int32 (m, 3). Raises InputError."""
    coarse = voxels.downsample(coords, stride)
    floored = np.asarray(coords).astype(np.int32) // np.int32(stride)
    cycles, counts = sort_cost(mapper, voxels.pack(floored))
    counts |= detecting(len(floored), len(floored) - len(coarse)) | {"key_operations": len(floored)}
    counts["key_writes"] -= len(floored) - len(coarse)
    return Outcome(coarse, cycles + mapper.drain, counts)


def kernel_map(
    mapper: Mapper, coords_in: np.ndarray, coords_out: np.ndarray, kernel_size: int = 3, tensor_stride: int = 1
) -> Outcome[Maps]:
    """Return (inputs, outputs) of each offset, int64 indices sorted by the output's key, as `maps_between` does.

    Clouds are (n, 3) integers, each once; what is not sorted by key is sorted first, at its cost. InputError.
    """
    keys_in = cloud_keys(coords_in)
    keys_out = keys_in if coords_out is coords_in else cloud_keys(coords_out)
    is_self = np.array_equal(keys_in, keys_out)
    found = maps_between(coords_in, coords_in if is_self else coords_out, kernel_size, tensor_stride)
    cycles, counts = 0, counted()
    for keys in (keys_in,) if is_self else (keys_in, keys_out):
        if (keys[1:] < keys[:-1]).any():
            spent, more = sort_cost(mapper, keys)
            cycles, counts = cycles + spent, added(counts, more)
    total = len(keys_in) + len(keys_out)
    cells = offsets(kernel_size, tensor_stride)
    merges = len(cells) // 2 if is_self and mapper.exploit_symmetry and kernel_size % 2 else len(cells)
    ascending = np.sort(keys_in), np.sort(keys_out)
    each = [merge_steps(mapper, *ascending, voxels.shift(-cell)) for cell in cells[:merges]]
    if mapper.boundary_register:
        boundaries = 0
    else:
        found = _without_register(mapper, found, merges, (places_of(keys_in), places_of(keys_out)))
        boundaries = sum(blocks_out(mapper, total, steps) - (total > 0) for steps in each)
    steps = sum(each) + emptying(mapper, total * merges)
    counts = added(counts, merging(mapper, steps, merges * total, 0))
    counts["key_operations"] = merges * len(keys_in)
    counts["detector_comparisons"] = merges * max(total - 1, 0) - boundaries
    counts["matches"] = sum(len(into) for into, _ in found[:merges])
    counts["map_writes"] = sum(len(into) for into, _ in found)
    return Outcome(found, cycles + steps + mapper.drain, counts)


def fps(mapper: Mapper, points: np.ndarray, m: int, start: int = 0) -> Outcome[np.ndarray]:
    """Return the indices of ``m`` of ``points``, int64 (m,), each the farthest from those before it. InputError."""
    chosen = neighbours.fps(points, m, start)
    count, dimensions = np.shape(points)
    passes = len(chosen)
    updates = max(passes - 1, 0) * count  # the first pass measures nothing
    counts = counted(
        point_reads=passes * count,
        distance_macs=updates * dimensions,
        distance_reads=updates,
        distance_writes=passes * count,
        distance_comparisons=updates + passes * count,
        map_writes=passes,
    )
    return Outcome(chosen, passes * (-(-count // mapper.fps_lanes) + mapper.loop_latency), counts)


def knn(
    mapper: Mapper, points: np.ndarray, queries: np.ndarray, k: int, method: Method = "auto"
) -> Outcome[np.ndarray]:
    """Return the ``k`` nearest ``points`` of each of ``queries``, int64 (q, k), by distance, then index.

    ``method``: how they are ranked; "auto" streams where k <= P and takes the tree elsewhere. Raises InputError.
    """
    method = ranking(mapper, len(points), k, method)
    nearest = neighbours.knn(points, queries, k)
    cycles, counts = rank_cost(mapper, points, queries, k, method)
    counts["map_writes"] = nearest.size
    return Outcome(nearest, cycles, counts)


def ball_query(
    mapper: Mapper, points: np.ndarray, queries: np.ndarray, radius: float, k: int, order: neighbours.Order = "nearest"
) -> Outcome[Pair]:
    """Return up to ``k`` indices of points within ``radius`` a query, int64 (q, k), and how many, int64 (q,).

    ``order`` "nearest" takes the nearest, as a unit that ranks returns; "index" the first, as PointNet++'s
    operator does. Places beyond are padded with the first found. Raises InputError.
    """
    found, taken = neighbours.ball_query(points, queries, radius, k, order)
    if order == "nearest":
        cycles, counts = rank_cost(mapper, points, queries, k, "stream" if k <= mapper.block else "tree", radius)
    else:
        cycles = len(queries) * -(-len(points) // mapper.merger_width)
        counts = counted(**measuring(points, queries))
    counts["distance_comparisons"] = len(points) * len(queries)  # with the radius
    counts["map_writes"] = int(taken.sum())
    return Outcome((found, taken), cycles, counts)


def _without_register(mapper: Mapper, found: Maps, merges: int, places: tuple[np.ndarray, np.ndarray]) -> Maps:
    """Return the maps that are left where neighbours in two blocks are not compared, in all of the first ``merges``.

    ``places`` are of inputs and outputs among the sorted ones. The two of a match leave as places i + j and i + j + 1.
    """
    if mapper.rule == "two-window":  # what is not larger than the end of a window leaves together
        return found
    size = mapper.block if mapper.rule == "head-select" else mapper.merger_width
    left = []
    for into, out in found[:merges]:
        together = (places[0][into] + places[1][out] + 1) % size != 0
        left.append((into[together], out[together]))
    if merges == len(found):
        return left
    return left + found[merges : merges + 1] + [(out, into) for into, out in left[::-1]]
