"""Kernel maps against numpy's intersect1d, and what must hold of them whatever the cloud."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.points.kernel_map import kernel_map, maps_between, offsets, transposed
from gossamer.workloads.points.keys import downsample, pack


@st.composite
def clouds(draw, multiple=1):
    """Draw coordinates, each once, in no order: a few or many, near each other or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    side = draw(st.sampled_from([1, 3, 6, 30]))
    drawn = rng.integers(-side, side + 1, (draw(st.integers(0, 150)), 3)) * multiple
    return rng.permutation(np.unique(drawn, axis=0)).astype(np.int32)


def oracle(coords_in, coords_out, kernel_size, tensor_stride):
    """Return the maps by intersecting the inputs' keys with the outputs', moved, one offset after the other."""
    maps = []
    for offset in offsets(kernel_size, tensor_stride):
        _, into, out = np.intersect1d(pack(coords_in), pack(coords_out + offset), return_indices=True)
        maps.append((into, out))
    return maps


def assert_same(met, wanted):
    assert len(met) == len(wanted)
    for (into, out), (into_wanted, out_wanted) in zip(met, wanted, strict=True):
        assert np.array_equal(into, into_wanted)
        assert np.array_equal(out, out_wanted)


@given(clouds(), st.integers(1, 6), st.sampled_from([1, 2, 3, 4]))
def test_maps_are_what_intersecting_the_keys_gives(coords, kernel_size, tensor_stride):
    coords = coords * tensor_stride
    assert_same(
        kernel_map(coords, kernel_size, tensor_stride=tensor_stride), oracle(coords, coords, kernel_size, tensor_stride)
    )


@given(clouds(), st.integers(1, 4), st.integers(2, 4), st.sampled_from([1, 2]))
def test_strided_maps_are_what_intersecting_the_keys_gives(coords, kernel_size, stride, tensor_stride):
    coords = coords * tensor_stride
    coarse = downsample(coords, stride * tensor_stride)
    met = kernel_map(coords, kernel_size, stride, tensor_stride=tensor_stride)
    assert_same(met, oracle(coords, coarse, kernel_size, tensor_stride))


@given(clouds(), clouds(), st.integers(1, 5), st.sampled_from([1, 2, 3]))
def test_maps_between_any_two_clouds_are_what_intersecting_gives(coords_in, coords_out, kernel_size, tensor_stride):
    met = maps_between(coords_in, coords_out, kernel_size, tensor_stride)
    assert_same(met, oracle(coords_in, coords_out, kernel_size, tensor_stride))


@given(clouds(), st.sampled_from([1, 3, 5]))
def test_a_copy_of_the_cloud_gives_the_maps_that_the_cloud_itself_gives(coords, kernel_size):
    assert_same(maps_between(coords, coords, kernel_size), maps_between(coords, coords.copy(), kernel_size))


@given(clouds(), st.sampled_from([3, 5]))
def test_submanifold_maps_are_mirror_symmetric_and_the_centre_is_the_identity(coords, kernel_size):
    maps = kernel_map(coords, kernel_size)
    assert_same(maps, transposed(maps)[::-1])
    into, out = maps[len(maps) // 2]
    assert np.array_equal(into, out)
    assert np.array_equal(into, np.argsort(pack(coords)))


@given(clouds(multiple=2))
def test_maps_of_kernel_2_and_stride_2_hold_every_input_once(coords):
    maps = kernel_map(coords, 2, 2, tensor_stride=2)
    assert len(maps) == 8
    assert sorted(np.concatenate([into for into, _ in maps])) == list(range(len(coords)))


@given(clouds(), st.integers(1, 4), st.integers(1, 3))
def test_pairs_of_an_offset_rise_in_the_keys_of_outputs_and_of_inputs(coords, kernel_size, stride):
    coarse = coords if stride == 1 else downsample(coords, stride)
    for into, out in kernel_map(coords, kernel_size, stride):
        assert (np.diff(pack(coarse)[out]) > 0).all()
        assert (np.diff(pack(coords)[into]) > 0).all()
        assert into.dtype == out.dtype == np.int64


def test_a_hand_made_row_of_three_voxels():
    coords = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    maps = kernel_map(coords)
    found = {tuple(o): list(zip(i.tolist(), j.tolist(), strict=True)) for o, (i, j) in
             zip(offsets(3).tolist(), maps, strict=True) if len(i)}  # fmt: skip
    assert found == {
        (0, 0, 0): [(0, 0), (1, 1), (2, 2)],
        (0, 0, 1): [(1, 0)],
        (0, 0, -1): [(0, 1)],
        (0, 1, 0): [(2, 0)],
        (0, -1, 0): [(0, 2)],
        (0, 1, -1): [(2, 1)],
        (0, -1, 1): [(1, 2)],
    }


def test_offsets_are_ordered_with_x_slowest_and_odd_kernels_are_centred():
    assert offsets(3).tolist() == [list(o) for o in itertools.product((-1, 0, 1), repeat=3)]
    assert offsets(2).tolist() == [list(o) for o in itertools.product((0, 1), repeat=3)]
    assert offsets(4, 2)[-1].tolist() == [6, 6, 6]
    assert offsets(5, 8)[0].tolist() == [-16, -16, -16]
    assert offsets(1, 4).tolist() == [[0, 0, 0]]


def test_maps_do_not_share_memory_with_each_other_or_with_later_ones():
    maps = kernel_map(np.array([[0, 0, 0], [0, 0, 1]]))
    arrays = [into for into, _ in maps if len(into)]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be a whole number from 1 to 31, not 0"),
        ({"kernel_size": 33}, "kernel_size must be a whole number from 1 to 31, not 33"),
        ({"stride": 0}, "stride must be a whole number from 1 to 4096, not 0"),
        ({"tensor_stride": 1.5}, "tensor_stride must be a whole number from 1 to 4096, not 1.5"),
        ({"kernel_size": 4, "tensor_stride": 2000},
         "a kernel must reach at most 4096 voxels, and 4 cells reach 3 x 2000"),
        ({"coords": np.array([[1, 2, 3], [0, 0, 0], [1, 2, 3]])},
         "every coordinate must occur once, and (1, 2, 3) occurs twice; downsample drops such"),
        ({"coords": np.zeros((2, 4), int)}, "coordinates must have shape (n, 3), not (2, 4)"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        kernel_map(**({"coords": np.array([[0, 0, 0]])} | arguments))
