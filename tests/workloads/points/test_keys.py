"""Packed keys: they order coordinates, survive shifts, and say what cannot be packed."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.points.keys import GUARD, LEAST, MOST, downsample, pack, shift, unpack, voxelise


@st.composite
def coordinates(draw, limit=MOST):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([2, 10, 1000, limit]))
    return rng.integers(max(LEAST, -reach), reach + 1, (draw(st.integers(0, 200)), 3)).astype(np.int32)


@given(coordinates())
def test_unpacking_gives_back_what_was_packed(coords):
    assert np.array_equal(unpack(pack(coords)), coords)
    assert unpack(pack(coords)).dtype == np.int32


@given(coordinates())
def test_the_order_of_keys_is_that_of_coordinates(coords):
    by_key = coords[np.argsort(pack(coords), kind="stable")]
    assert np.array_equal(by_key, coords[np.lexsort(coords.T[::-1])])


@given(coordinates(), st.tuples(*[st.integers(-GUARD, GUARD)] * 3))
def test_adding_a_shift_moves_every_coordinate(coords, offset):
    assert np.array_equal(unpack(pack(coords) + shift(offset)), coords + np.array(offset))


def test_the_corners_of_the_range_are_packed_and_may_be_shifted_by_the_guard():
    corners = np.array([[LEAST] * 3, [MOST] * 3, [LEAST, MOST, LEAST]])
    for step in (-GUARD, GUARD):
        keys = pack(corners) + shift((step, step, step))
        assert (keys >= 0).all()
        assert np.array_equal(unpack(keys), corners + step)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (np.zeros((3, 2), int), "coordinates must have shape (n, 3), not (3, 2)"),
        (np.zeros(3, int), "coordinates must have shape (n, 3), not (3,)"),
        (np.zeros((2, 3)), "coordinates must be whole numbers, not float64; voxelise makes them of points"),
        (
            np.array([[0, 0, 0], [0, MOST + 1, 0]]),
            f"coordinates must be from {LEAST} to {MOST}, and row 1 holds {MOST + 1}; "
            "take larger voxels, or move the cloud to its origin",
        ),
        (
            np.array([[LEAST - 1, 0, 0]]),
            f"coordinates must be from {LEAST} to {MOST}, and row 0 holds {LEAST - 1}; "
            "take larger voxels, or move the cloud to its origin",
        ),
    ],
)
def test_what_cannot_be_packed_is_refused(coords, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pack(coords)


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.1, 0.37, 2.0]))
def test_every_point_lies_in_its_voxel_and_every_voxel_has_a_point(seed, side):
    points = np.random.default_rng(seed).normal(0, 3, (100, 3)).astype(np.float32)
    coords, inverse = voxelise(points, side)
    assert np.array_equal(coords[inverse], np.floor(points.astype(np.float64) / side).astype(int))
    assert set(inverse) == set(range(len(coords)))
    assert (np.diff(pack(coords)) > 0).all()


def test_points_below_the_origin_go_to_voxels_below_it():
    coords, inverse = voxelise(np.array([[-0.01, 0.0, 0.99], [-1.0, 0.0, 0.0], [0.5, 0.2, 0.7]]), 1.0)
    assert coords.tolist() == [[-1, 0, 0], [0, 0, 0]]
    assert inverse.tolist() == [0, 0, 1]


def test_a_cloud_without_points_has_no_voxels():
    coords, inverse = voxelise(np.zeros((0, 3), np.float32), 0.05)
    assert (coords.shape, inverse.shape) == ((0, 3), (0,))
    assert downsample(coords, 2).shape == (0, 3)


@pytest.mark.parametrize(
    ("points", "side", "message"),
    [
        (np.zeros((1, 4)), 1, "points must be real numbers of shape (n, 3), not float64 (1, 4)"),
        (np.zeros((1, 3), complex), 1, "points must be real numbers of shape (n, 3), not complex128 (1, 3)"),
        (np.zeros((1, 3)), 0, "voxel_size must be a number above 0, not 0"),
        (np.zeros((1, 3)), float("nan"), "voxel_size must be a number above 0, not nan"),
        (np.zeros((1, 3)), "1", "voxel_size must be a number above 0, not '1'"),
        (
            np.array([[0, 0, 0], [0, np.nan, 0]]),
            0.5,
            f"points must be finite and lie within {MOST} voxels of the origin, and point 1 holds nan with "
            "voxel_size 0.5; drop it, or take larger voxels",
        ),
        (
            np.array([[0, 0, 6e4]]),
            0.05,
            f"points must be finite and lie within {MOST} voxels of the origin, and point 0 holds 60000.0 with "
            "voxel_size 0.05; drop it, or take larger voxels",
        ),
    ],
)
def test_points_that_have_no_voxel_are_refused(points, side, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        voxelise(points, side)


@given(coordinates(limit=50), st.integers(1, 20))
def test_downsampling_keeps_each_multiple_of_the_stride_once_in_order(coords, stride):
    coarse = downsample(coords, stride)
    assert {tuple(c) for c in coarse.tolist()} == {tuple(c) for c in (coords // stride * stride).tolist()}
    assert (np.diff(pack(coarse)) > 0).all()
    assert coarse.dtype == np.int32


@given(coordinates(limit=50))
def test_downsampling_twice_by_two_is_downsampling_by_four(coords):
    assert np.array_equal(downsample(downsample(coords, 2), 4), downsample(coords, 4))


def test_flooring_does_not_keep_the_order_so_that_downsampling_sorts():
    coords = np.array([[0, 2, 0], [1, 0, 0]])
    assert downsample(coords, 2).tolist() == [[0, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize("stride", [0, -2, 1.5, True, GUARD + 1])
def test_a_stride_that_is_none_is_refused(stride):
    with pytest.raises(InputError, match=f"^stride must be a whole number from 1 to {GUARD}, not {stride}$"):
        downsample(np.zeros((1, 3), int), stride)
