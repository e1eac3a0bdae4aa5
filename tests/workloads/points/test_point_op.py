"""What a point_op finds, by hand and by looking at every pair."""

import numpy as np
import pytest

from gossamer.workloads import InputError, Layer
from gossamer.workloads.points.point_op import point_op

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 3, 0], [0.4, 0, 0]], np.float32)


def searched(kind, *, queries=None, **about):
    return point_op(Layer(name="p", op="point_op", inputs=POINTS, queries=queries, attributes={"kind": kind} | about))


def test_every_kind_by_hand():
    assert searched("quantise", voxel_size=1.0).tolist() == [[0, 0, 0], [0, 3, 0], [1, 0, 0]]
    assert searched("fps", samples=3).tolist() == [[0], [2], [1]]
    assert searched("knn", k=2).tolist() == [[0, 3], [1, 3], [2, 0], [3, 0]]
    ball = {"k": 3, "radius": 0.7}
    assert searched("ball_query", order="nearest", **ball).tolist() == [[0, 3, 0], [1, 3, 1], [2, 2, 2], [3, 0, 1]]
    assert searched("ball_query", order="index", **ball).tolist() == [[0, 3, 0], [1, 3, 1], [2, 2, 2], [0, 1, 3]]


def test_queries_need_not_be_among_the_points():
    queries = np.array([[0.9, 0, 0]], np.float32)
    assert searched("knn", k=2, queries=queries).tolist() == [[1, 3]]
    assert searched("ball_query", k=1, radius=0.2, order="index", queries=queries).tolist() == [[1]]


def test_neighbours_are_those_that_looking_at_every_pair_finds():
    points = np.random.default_rng(0).random((60, 4), np.float32)
    layer = Layer(name="p", op="point_op", inputs=points, attributes={"kind": "knn", "k": 5})
    distance = np.square(points[:, None] - points[None]).sum(axis=2)
    assert np.array_equal(point_op(layer), np.argsort(distance, axis=1, kind="stable")[:, :5])


def test_another_op_is_refused():
    dense = Layer(name="fc", op="linear", weight=np.ones((1, 1), np.float32), inputs=np.ones((1, 1), np.float32))
    with pytest.raises(InputError) as met:
        point_op(dense)
    assert str(met.value) == "layer fc: op must be point_op to be looked up, not linear"
