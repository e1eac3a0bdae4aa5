"""Block-ELLPACK: what is encoded comes back, bits are those counted by hand, and what is broken is named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError
from gossamer.workloads.formats import block_ell

BY_HAND = np.array(
    [[1, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0], [0, 0, 0, 3, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 4, 0, 0, 0]], np.float16
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 19),
    cols=st.integers(1, 19),
    block=st.integers(1, 21),
    dtype=st.sampled_from([np.float16, np.float32, np.int8, np.bool_]),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_what_is_encoded_comes_back(rows, cols, block, dtype, density, seed):
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((rows, cols)) < density, rng.integers(1, 100, (rows, cols)), 0).astype(dtype)
    encoded = block_ell.encode(matrix, block)
    back = block_ell.decode(encoded)
    assert back.dtype == matrix.dtype
    np.testing.assert_array_equal(back, matrix)
    tall = -(-rows // block)
    kept = [
        sum(matrix[r * block : (r + 1) * block, c : c + block].any() for c in range(0, cols, block))
        for r in range(tall)
    ]
    assert (encoded.width, encoded.blocks) == (max(kept), sum(kept))
    assert encoded.padding_blocks == tall * max(kept) - sum(kept)
    assert encoded.bits() == {
        "values": tall * max(kept) * block * block * 8 * matrix.itemsize,
        "columns": tall * max(kept) * 32,
    }


def test_a_matrix_by_hand():
    encoded = block_ell.encode(BY_HAND, 2, index_bits=8)
    assert encoded.columns.tolist() == [[0, 2], [1, -1], [1, -1]]
    assert encoded.values[0].tolist() == [[[1, 0], [0, 0]], [[0, 2], [0, 0]]]
    assert encoded.values[1].tolist() == [[[0, 3], [0, 0]], [[0, 0], [0, 0]]]
    assert (encoded.width, encoded.blocks, encoded.padding_blocks) == (2, 4, 2)
    assert encoded.bits() == {"values": 6 * 4 * 16, "columns": 6 * 8}


def test_a_matrix_of_zeros_has_no_blocks():
    encoded = block_ell.encode(np.zeros((5, 7), np.float32), 4)
    assert (encoded.width, encoded.blocks, sum(encoded.bits().values())) == (0, 0, 0)
    assert block_ell.decode(encoded).shape == (5, 7)


@pytest.mark.parametrize(
    ("matrix", "block", "bits", "message"),
    [
        (np.zeros(3), 2, 32, "weight: Block-ELLPACK needs a matrix of 2 sides of at least 1, not (3,)"),
        (np.zeros((0, 3)), 2, 32, "weight: Block-ELLPACK needs a matrix of 2 sides of at least 1, not (0, 3)"),
        (np.zeros((2, 2), complex), 2, 32, "weight: Block-ELLPACK values must be real numbers, not complex128"),
        (np.zeros((2, 2)), 0, 32, "weight: block must be a whole number from 1 to 1024, not 0"),
        (np.zeros((2, 2)), 2.0, 32, "weight: block must be a whole number from 1 to 1024, not 2.0"),
        (np.zeros((2, 2)), 10**7, 32, "weight: block must be a whole number from 1 to 1024, not 10000000"),
        (np.zeros((2, 2), "g"), 2, 32, f"weight: Block-ELLPACK values must be real numbers, not {np.dtype('g')}"),
        (np.zeros((2, 6)), 2, 1, "weight: index_bits must be at least 2 to tell 3 columns apart, not 1"),
    ],
)
def test_what_cannot_be_encoded_is_said(matrix, block, bits, message):
    with pytest.raises(InputError) as error:
        block_ell.encode(matrix, block, bits)
    assert str(error.value) == message


RULE = "columns must ascend, be below 3 and end in padding, and those of block row"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([[2, 0], [1, -1], [1, -1]], f"{RULE} 0 are [2, 0]"),
        ([[0, 3], [1, -1], [1, -1]], f"{RULE} 0 are [0, 3]"),
        ([[0, 2], [-1, 1], [1, -1]], f"{RULE} 1 are [-1, 1]"),
        ([[0, 2], [1, -1], [-2, -1]], f"{RULE} 2 are [-2, -1]"),
        ([[0, -1], [1, -1], [1, -1]], "blocks that are padding must be zero, and one holds a value"),
        (
            [[0, 2], [1, -1]],
            "columns and values must be of 3 block rows and blocks of 2 x 2, not (2, 2) and (3, 2, 2, 2)",
        ),
    ],
)
def test_what_is_broken_is_not_decoded(columns, message):
    with pytest.raises(ValueError) as error:
        block_ell.decode(replace(block_ell.encode(BY_HAND, 2), columns=np.array(columns)))
    assert str(error.value) == message


def test_values_beyond_the_edge_are_broken():
    encoded = block_ell.encode(BY_HAND, 2)
    values = encoded.values.copy()
    values[2, 0, 1, 0] = 9  # row 5 of 5
    with pytest.raises(ValueError) as error:
        block_ell.decode(replace(encoded, values=values))
    assert str(error.value) == "blocks at the edges must be zero beyond 5 x 6, and one holds a value"
