"""Which points are near which: farthest point sampling, nearest neighbours, ball query.

A squared distance is the sum of the squared differences, coordinate by coordinate, in float32. Equal distances are
decided by the lower index. For neighbours the points are sorted along their widest axis, and only those are looked at
that are near enough on that axis: the sum of squares is never less than one of them, in float32 neither, so that the
answer is that of looking at all.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from ..checks import positive, whole
from ..errors import InputError

Order: TypeAlias = Literal["nearest", "index"]


def fps(points: np.ndarray, m: int, start: int = 0) -> np.ndarray:
    """Return the indices of ``m`` points, int64 (m,), each the farthest from those before it; the first is ``start``.

    ``points`` is (n, d), real, read as float32. Of equally far ones the lowest index is taken. Raises InputError.
    """
    points = real_points(points, "points")
    count = whole(m, "m", 0, len(points))
    chosen = np.empty(count, np.int64)
    if count:
        first = whole(start, "start", 0, len(points) - 1)
        _fps(np.ascontiguousarray(points.T), first, np.full(len(points), np.inf, np.float32), chosen)
    return chosen


def knn(points: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the ``k`` nearest ``points`` of each of ``queries``, int64 (q, k), nearest first.

    ``points`` is (n, d) and ``queries`` (q, d), real, read as float32; k is at most n. Of equally near ones the lower
    index comes first. A query that is itself a point is its own neighbour. Raises InputError.
    """
    points, queries = _alike(points, queries)
    count = whole(k, "k", 1, max(1, len(points)))
    if not len(points):
        raise InputError(f"k must be at most the number of points, 0, not {count}")
    return _search(points, queries, count, np.float32(np.inf), "nearest")[0]


def ball_query(
    points: np.ndarray, queries: np.ndarray, radius: float, k: int, order: Order = "nearest"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of up to ``k`` points less than ``radius`` away from each query, and how many were taken.

    The indices are int64 (q, k), the counts int64 (q,), at most k. ``order`` "nearest" takes the k nearest, nearest
    first, as a unit that ranks returns; "index" the first k by index, as the operator of PointNet++ returns. Places
    beyond the count hold the first index found, and 0 where none was, as PointNet++ pads. Raises InputError.
    Source: Qi et al., "PointNet++", NeurIPS 2017, and the authors' CUDA operator, for the padding.
    """
    points, queries = _alike(points, queries)
    count = whole(k, "k", 1, 1 << 20)
    with np.errstate(over="ignore"):  # no two points are farther apart than what float32 cannot hold
        reach = np.float32(positive(radius, "radius"))
    if order not in get_args(Order):
        raise InputError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")
    with np.errstate(over="ignore"):
        return _search(points, queries, count, reach * reach, order)


def _search(
    points: np.ndarray, queries: np.ndarray, k: int, limit: np.float32, order: Order
) -> tuple[np.ndarray, np.ndarray]:
    """Return `ball_query`'s indices and counts for squared distances below ``limit``."""
    found, counts = np.zeros((len(queries), k), np.int64), np.zeros(len(queries), np.int64)
    if len(points) and len(queries):
        axis = int(np.argmax(np.ptp(points.astype(np.float64), axis=0)))
        sorted_ = np.argsort(points[:, axis], kind="stable")
        begin = np.searchsorted(points[sorted_, axis], queries[:, axis])
        _sweep(points[sorted_], sorted_, axis, queries, begin, limit, order == "index", found, counts,
               np.empty(k, np.float32))  # fmt: skip
    return found, counts


def _alike(points: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, queries = real_points(points, "points"), real_points(queries, "queries")
    if points.shape[1] != queries.shape[1]:
        raise InputError(f"queries must have as many coordinates as points, {points.shape[1]}, not {queries.shape[1]}")
    return points, queries


def real_points(array: ArrayLike, name: str) -> np.ndarray:
    """Return ``array`` as contiguous float32 (n, d). Raises InputError."""
    array = np.asarray(array)
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers of shape (n, d), not {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(f"{name} must be finite in float32, and row {row} is not; drop it")
    return array


@njit(cache=True)
def _fps(axes, start, nearest, chosen):  # type: ignore[no-untyped-def]
    """``axes`` is (d, n); ``nearest`` is inf, and then the squared distance to the nearest chosen point."""
    last = start
    squares = np.empty_like(nearest)
    for place in range(len(chosen)):
        chosen[place] = last
        for axis in range(len(axes)):
            own = axes[axis]
            origin = own[last]
            if axis == 0:
                for i in range(len(own)):
                    squares[i] = (own[i] - origin) * (own[i] - origin)
            else:
                for i in range(len(own)):
                    squares[i] += (own[i] - origin) * (own[i] - origin)
        for i in range(len(nearest)):
            nearest[i] = squares[i] if squares[i] < nearest[i] else nearest[i]
        farthest = np.float32(-1)
        for i in range(len(nearest)):
            if nearest[i] > farthest:
                farthest = nearest[i]
                last = i


@njit(cache=True)
def _sweep(points, names, axis, queries, begin, limit, by_index, found, counts, ranks):  # type: ignore[no-untyped-def]
    """Fill ``found`` and ``counts``; ``points`` are sorted along ``axis``, ``names`` are their indices.

    ``begin`` is where each query would stand among them. ``ranks`` is room for the squared distances of one query.
    """
    k = found.shape[1]
    for query in range(len(queries)):
        own = queries[query]
        taken = found[query]
        count = 0
        for way in (-1, 1):
            at = begin[query] - 1 if way == -1 else begin[query]
            while 0 <= at < len(points):
                gap = points[at, axis] - own[axis]
                gap *= gap
                if gap >= limit and limit < np.inf:
                    break
                if not by_index and count == k and gap > ranks[k - 1]:
                    break
                square = np.float32(0)
                for c in range(points.shape[1]):
                    difference = points[at, c] - own[c]
                    square += difference * difference
                if square < limit or limit == np.inf:
                    name = names[at]
                    rank = np.float32(0) if by_index else square
                    place = count if count < k else k
                    while place > 0 and (
                        rank < ranks[place - 1] or (rank == ranks[place - 1] and name < taken[place - 1])
                    ):
                        if place < k:
                            ranks[place], taken[place] = ranks[place - 1], taken[place - 1]
                        place -= 1
                    if place < k:
                        ranks[place], taken[place] = rank, name
                        count = min(count + 1, k)
                at += way
        counts[query] = count
        for place in range(count, k):
            taken[place] = taken[0] if count else 0
