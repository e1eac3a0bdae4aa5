"""Pruning into blocks, as many in every block row: what Block-ELLPACK stores without padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError
from gossamer.workloads.formats import block_ell
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import kept_count
from gossamer.workloads.structured import equal_tiles, tiles


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([(1, 1), (8, 8), (9, 14), (16, 40), (6, 3, 3, 3)]),
    side=st.integers(1, 9),
    schedule=st.sampled_from([(0.5,), (0.2, 0.5, 0.9), (0.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_every_row_of_tiles_keeps_the_same_number_of_whole_tiles_and_masks_nest(shape, side, schedule, seed):
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, bool)
    for sparsity in schedule:
        weight = rng.uniform(0.1, 1, shape)
        before, mask = mask, equal_tiles(weight, mask, sparsity, (side, side))
        assert (mask <= before).all()
        matrix = mask.reshape(shape[0], -1)
        Pattern("block", block=(side, side)).check(mask, "mask")
        encoded = block_ell.encode(matrix, side)
        assert encoded.width == kept_count(-(-matrix.shape[1] // side), sparsity)
        assert encoded.padding_blocks == 0


def test_the_strongest_of_each_row_stay_though_others_are_stronger():
    weight = np.array([[9, 8, 7, 6], [1, 2, 3, 4]], np.float32)
    full = np.ones(weight.shape, bool)
    assert equal_tiles(weight, full, 0.5, (1, 1)).astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert tiles(weight, full, 0.5, (1, 1)).astype(int).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert equal_tiles(weight, full, 0.5, (2, 2)).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_row_that_has_less_left_is_named():
    mask = np.array([[True, True], [True, False]])
    with pytest.raises(InputError) as error:
        equal_tiles(np.ones((2, 2)), mask, 0.0, (1, 1))
    assert str(error.value) == (
        "each row of tiles must have 2 of 2 left to keep, and row 1 has 1; "
        "start from a full mask, or from one of equal tiles"
    )


def test_a_tile_needs_two_sides():
    with pytest.raises(InputError, match=r"^a tile needs two whole sides of at least 1, not \(0, 2\)$"):
        equal_tiles(np.ones((2, 2)), np.ones((2, 2), bool), 0.5, (0, 2))
