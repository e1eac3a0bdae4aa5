"""Neighbours against looking at every pair, and against scipy's k-d tree."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from gossamer.workloads.errors import InputError
from gossamer.workloads.points.neighbours import ball_query, fps, knn


@st.composite
def clouds(draw, least=1):
    """Draw float32 points, on a grid, where many are equally far, or anywhere; sometimes all on one line."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(least, 120)), draw(st.sampled_from([1, 2, 3, 7]))
    points = rng.integers(-3, 4, shape) if draw(st.booleans()) else rng.normal(0, 2, shape)
    if draw(st.integers(0, 4)) == 0:
        points[:, 1:] = 0
    return points.astype(np.float32)


def squares(points, query):
    """Return squared distances in float32, summed coordinate by coordinate."""
    total = np.zeros(len(points), np.float32)
    for axis in range(points.shape[1]):
        difference = points[:, axis] - query[axis]
        total = total + difference * difference
    return total


def naive_fps(points, m, start):
    nearest = np.full(len(points), np.inf, np.float32)
    chosen = [start]
    while len(chosen) < m:
        nearest = np.minimum(nearest, squares(points, points[chosen[-1]]))
        chosen.append(int(np.argmax(nearest)))
    return chosen


@given(clouds(), st.data())
def test_fps_is_the_naive_one(points, data):
    m = data.draw(st.integers(1, len(points)))
    start = data.draw(st.integers(0, len(points) - 1))
    assert fps(points, m, start).tolist() == naive_fps(points, m, start)


def test_fps_goes_to_the_far_end_and_then_between():
    line = np.array([[0.0], [1], [2], [5], [10]])
    assert fps(line, 4).tolist() == [0, 4, 3, 2]


def test_fps_of_all_points_takes_each_once_where_they_differ():
    points = np.random.default_rng(0).random((200, 3))
    assert sorted(fps(points, 200)) == list(range(200))


def test_fps_of_equal_points_takes_the_first_again():
    assert fps(np.ones((4, 3)), 3, start=2).tolist() == [2, 0, 0]


def test_fps_of_none_is_none():
    assert fps(np.zeros((0, 3)), 0).tolist() == []


@given(clouds(), clouds(), st.data())
def test_knn_is_what_sorting_all_distances_gives(points, queries, data):
    queries = np.resize(queries, (len(queries), points.shape[1]))
    k = data.draw(st.integers(1, len(points)))
    wanted = [np.lexsort((np.arange(len(points)), squares(points, query)))[:k] for query in queries]
    assert np.array_equal(knn(points, queries, k), np.array(wanted))


def test_knn_finds_the_distances_that_a_k_d_tree_finds():
    rng = np.random.default_rng(1)
    points, queries = rng.normal(0, 1, (2000, 3)).astype(np.float32), rng.normal(0, 2, (300, 3)).astype(np.float32)
    distance, index = cKDTree(points).query(queries, k=16)
    found = knn(points, queries, 16)
    assert np.allclose(np.linalg.norm(points[found] - queries[:, None], axis=2), distance, rtol=1e-5)
    assert (found == index).mean() > 0.999  # float32 and float64 may order near-equal ones otherwise


@given(clouds(), clouds(), st.sampled_from([0.5, 1.0, 2.0, 50.0]), st.integers(1, 8))
def test_ball_query_takes_the_nearest_or_the_first_and_pads_with_the_first_found(points, queries, radius, k):
    queries = np.resize(queries, (len(queries), points.shape[1]))
    limit = np.float32(radius) * np.float32(radius)
    for order in ("nearest", "index"):
        found, counts = ball_query(points, queries, radius, k, order)
        for query, row, count in zip(queries, found, counts, strict=True):
            near = squares(points, query)
            ranks = (np.arange(len(points)), near) if order == "nearest" else (np.arange(len(points)),)
            inside = [i for i in np.lexsort(ranks) if near[i] < limit][:k]
            assert count == len(inside)
            assert row.tolist() == (inside + inside[:1] * k)[:k] if inside else [0] * k


def test_ball_query_finds_what_a_k_d_tree_finds():
    rng = np.random.default_rng(2)
    points = rng.random((1500, 3)).astype(np.float32)
    wanted = [sorted(i) for i in cKDTree(points).query_ball_point(points[:200], 0.1)]
    found, counts = ball_query(points, points[:200], 0.1, 64, "index")
    assert [row[:count].tolist() for row, count in zip(found, counts, strict=True)] == wanted


def test_the_radius_itself_is_outside():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0, 0]])
    found, counts = ball_query(points, points[:1], 1.0, 3, "index")
    assert (found.tolist(), counts.tolist()) == ([[0, 2, 0]], [2])


def test_a_query_far_from_all_points_finds_none():
    found, counts = ball_query(np.zeros((3, 3)), np.full((1, 3), 9.0), 1.0, 2)
    assert (found.tolist(), counts.tolist()) == ([[0, 0]], [0])


def test_no_points_at_all_are_found_nowhere():
    found, counts = ball_query(np.zeros((0, 3)), np.zeros((2, 3)), 1.0, 2)
    assert (found.tolist(), counts.tolist()) == ([[0, 0], [0, 0]], [0, 0])


POINTS = np.zeros((5, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fps(POINTS, 6), "m must be a whole number from 0 to 5, not 6"),
        (lambda: fps(POINTS, 2, 5), "start must be a whole number from 0 to 4, not 5"),
        (lambda: fps(POINTS[:, 0], 2), "points must be real numbers of shape (n, d), not float64 (5,)"),
        (lambda: fps(np.full((2, 3), 1e39), 2), "points must be finite in float32, and row 0 is not; drop it"),
        (lambda: knn(POINTS, POINTS, 0), "k must be a whole number from 1 to 5, not 0"),
        (lambda: knn(POINTS, POINTS, 6), "k must be a whole number from 1 to 5, not 6"),
        (lambda: knn(POINTS[:0], POINTS, 1), "k must be at most the number of points, 0, not 1"),
        (lambda: knn(POINTS, POINTS[:, :2], 1), "queries must have as many coordinates as points, 3, not 2"),
        (lambda: ball_query(POINTS, POINTS, -1, 1), "radius must be a number above 0, not -1"),
        (lambda: ball_query(POINTS, POINTS, 1, 1, "far"), "order must be one of nearest, index, not 'far'"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call()
