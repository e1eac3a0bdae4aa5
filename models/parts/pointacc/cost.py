"""What the mapping unit's steps cost, without taking them: the forms of `parts.pointacc.mapping`."""

from __future__ import annotations

import numpy as np
from numba import njit

from ....workloads.points.neighbours import real_points
from .mapper import Mapper, Method, counted


def merge_steps(mapper: Mapper, a: np.ndarray, b: np.ndarray, shift: int = 0) -> int:
    """Return the steps of a merge of ``a`` + ``shift`` and ``b``, both ascending; the emptying is not counted."""
    if mapper.rule == "two-window":
        return int(_count_windows(a, shift, b, mapper.block))
    return _steps(mapper, len(a), len(b))


def _steps(mapper: Mapper, a: int, b: int) -> int:
    if mapper.rule == "head-select":
        return -(-a // mapper.block) + -(-b // mapper.block)
    return -(-(a + b) // mapper.merger_width)


def emptying(mapper: Mapper, keys: int) -> int:
    """Return the steps that empty the feedback after some merges back to back, of ``keys`` keys together."""
    return int(mapper.rule == "head-select" and keys > 0)


def blocks_out(mapper: Mapper, keys: int, steps: int) -> int:
    """Return the blocks with keys that leave a merge of ``keys`` keys in ``steps`` steps."""
    return -(-keys // mapper.block) if mapper.rule == "head-select" else steps


def merging(mapper: Mapper, steps: int, reads: int, writes: int) -> dict[str, int]:
    """Return the counts of ``steps`` steps of the merger."""
    comparisons = steps * mapper.merger_comparators
    return counted(merger_steps=steps, merger_comparisons=comparisons, key_reads=reads, key_writes=writes)


def detecting(keys: int, matches: int) -> dict[str, int]:
    """Return the counts that DetectIntersection adds where ``keys`` keys pass it in one row."""
    return {"detector_comparisons": max(keys - 1, 0), "matches": matches}


def measuring(points: np.ndarray, queries: np.ndarray) -> dict[str, int]:
    """Return the counts that CalculateDistance adds where all ``points`` pass it once a query."""
    each = len(points) * len(queries)
    return {"point_reads": each + len(queries), "distance_macs": each * np.shape(points)[1]}


def added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Return the sum of two sets of counts."""
    return {name: amount + other[name] for name, amount in one.items()}


def places_of(keys: np.ndarray) -> np.ndarray:
    """Return the place of each of ``keys`` among them sorted; equal ones in order."""
    places = np.empty(len(keys), np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return places


def sort_cost(mapper: Mapper, keys: np.ndarray) -> tuple[int, dict[str, int]]:
    """Return cycles and counts of a whole sort of ``keys``."""
    leaves = -(-len(keys) // mapper.merger_width)
    steps, reads, writes = _tree(mapper, len(keys), len(keys))
    if mapper.rule == "two-window":
        steps = int(_count_tree_windows(places_of(keys), mapper.merger_width, len(keys)))
    counts = merging(mapper, steps, len(keys) + reads, len(keys) + writes)
    counts |= {"sorter_blocks": leaves, "sorter_comparisons": leaves * mapper.sorter_comparators}
    return leaves + steps, counts


def rank_cost(
    mapper: Mapper, points: np.ndarray, queries: np.ndarray, k: int, method: Method, radius: float | None = None
) -> tuple[int, dict[str, int]]:
    """Return cycles and counts of ranking all ``points`` by their distance from each of ``queries``.

    Points not within ``radius``, where there is one, rank as infinitely far.
    """
    width, count = mapper.merger_width, len(queries)
    leaves = -(-len(points) // width)
    if method == "stream":  # the P best come back each cycle, as in head selection, whatever the rule of merges
        cycles, steps, reads, writes = leaves * count, leaves * count, 0, 0
        comparators = mapper.top_comparators
    else:
        limit = k if method == "tree" else len(points)
        steps, reads, writes = (amount * count for amount in _tree(mapper, len(points), limit))
        writes += count * sum(min(width, len(points) - start, limit) for start in range(0, len(points), width))
        if mapper.rule == "two-window":
            reach = np.float32(np.inf) if radius is None else np.float32(radius)
            with np.errstate(over="ignore"):
                within = reach * reach
            arrays = real_points(points, "points"), real_points(queries, "queries")
            steps = int(_count_query_windows(*arrays, within, width, limit))
        cycles, comparators = leaves * count + steps, mapper.merger_comparators
    counts = counted(merger_steps=steps, merger_comparisons=steps * comparators, key_reads=reads, key_writes=writes)
    blocks = leaves * count
    counts |= {"sorter_blocks": blocks, "sorter_comparisons": blocks * mapper.sorter_comparators}
    return cycles, counts | measuring(points, queries)


def _tree(mapper: Mapper, keys: int, limit: int) -> tuple[int, int, int]:
    """Return the steps of all passes over sorted blocks, no run longer than ``limit``, and their key reads and writes.

    The steps are not those of two-window, which depend on the keys.
    """
    runs = [min(mapper.merger_width, keys - start, limit) for start in range(0, keys, mapper.merger_width)]
    steps = reads = writes = 0
    while len(runs) > 1:
        merged = []
        for a, b in zip(runs[::2], runs[1::2], strict=False):
            steps += _steps(mapper, a, b)
            merged.append(min(a + b, limit))
            reads, writes = reads + a + b, writes + merged[-1]
        steps += emptying(mapper, keys)
        runs = merged + runs[len(runs) & ~1 :]
    return steps, reads, writes


@njit(cache=True)
def _count_windows(a, shift, b, block):  # type: ignore[no-untyped-def]
    """Return the steps in which all of ``a`` + ``shift`` and ``b`` that is not beyond the lower window end retires."""
    i = j = steps = 0
    while i < len(a) or j < len(b):
        ends_a, ends_b = i + block <= len(a), j + block <= len(b)  # a window that is not full ends in padding
        stop_a, stop_b = min(i + block, len(a)), min(j + block, len(b))
        if ends_a and (not ends_b or a[i + block - 1] + shift <= b[j + block - 1]):
            end = a[stop_a - 1] + shift
            i = stop_a
            while j < stop_b and b[j] <= end:
                j += 1
        elif ends_b:
            end = b[stop_b - 1]
            j = stop_b
            while i < stop_a and a[i] + shift <= end:
                i += 1
        else:
            i, j = stop_a, stop_b
        steps += 1
    return steps


@njit(cache=True)
def _count_tree_windows(ranks, width, limit):  # type: ignore[no-untyped-def]
    """Return the steps of all passes that sort ``ranks``, all different; no run is longer than ``limit``."""
    held, merged = ranks.copy(), np.empty_like(ranks)
    runs = (len(ranks) + width - 1) // width
    starts, lengths = np.empty(runs, np.int64), np.empty(runs, np.int64)
    for run in range(runs):
        starts[run] = run * width
        stop = min(starts[run] + width, len(ranks))
        held[starts[run] : stop] = np.sort(held[starts[run] : stop])
        lengths[run] = min(stop - starts[run], limit)
    steps = 0
    while runs > 1:
        for pair in range(runs // 2):
            start = starts[2 * pair]
            a = held[start : start + lengths[2 * pair]]
            other = starts[2 * pair + 1]
            b = held[other : other + lengths[2 * pair + 1]]
            steps += _count_windows(a, 0, b, width // 2)
            i = j = 0
            length = min(len(a) + len(b), limit)
            for place in range(length):
                if j == len(b) or (i < len(a) and a[i] < b[j]):
                    merged[start + place] = a[i]
                    i += 1
                else:
                    merged[start + place] = b[j]
                    j += 1
            starts[pair], lengths[pair] = start, length
        if runs % 2:
            start, length = starts[runs - 1], lengths[runs - 1]
            merged[start : start + length] = held[start : start + length]
            starts[runs // 2], lengths[runs // 2] = start, length
        runs = (runs + 1) // 2
        held, merged = merged, held
    return steps


@njit(cache=True)
def _count_query_windows(points, queries, within, width, limit):  # type: ignore[no-untyped-def]
    """Return the steps of all queries' trees; points whose squared distance is not ``within`` are infinitely far."""
    steps = 0
    squares, ranks = np.empty(len(points), np.float32), np.empty(len(points), np.int64)
    for query in range(len(queries)):
        for point in range(len(points)):
            square = np.float32(0)
            for axis in range(points.shape[1]):
                difference = points[point, axis] - queries[query, axis]
                square += difference * difference
            squares[point] = square if square < within else np.float32(np.inf)
        order = np.argsort(squares, kind="mergesort")  # equal distances stay in the order of their points
        for place in range(len(order)):
            ranks[order[place]] = place
        steps += _count_tree_windows(ranks, width, limit)
    return steps
