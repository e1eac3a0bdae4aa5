"""CSR: what is encoded comes back, bits are those counted by hand, and what is broken is named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError
from gossamer.workloads.formats import csr

BY_HAND = np.array([[0, 5, 0, 7], [0, 0, 0, 0], [1, 0, 0, -2]], np.float32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.integers(0, 9),
    cols=st.integers(0, 20),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.bool_]),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_what_is_encoded_comes_back(rows, cols, dtype, density, seed):
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((rows, cols)) < density, rng.integers(1, 100, (rows, cols)), 0).astype(dtype)
    encoded = csr.encode(matrix)
    back = csr.decode(encoded)
    assert back.dtype == matrix.dtype
    np.testing.assert_array_equal(back, matrix)
    assert encoded.lengths.tolist() == np.count_nonzero(matrix, axis=1).tolist()
    parts = encoded.bits()
    assert parts == {
        "values": 8 * matrix.itemsize * np.count_nonzero(matrix),
        "columns": 32 * np.count_nonzero(matrix),
        "offsets": 32 * (rows + 1),
    }


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 70), (70, 1), (40, 30)])
@pytest.mark.parametrize("dtype", ["?", "i1", "<f4", ">f4", "<f8", ">f8", ">i4"])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_the_arrays_are_those_of_scipy(shape, dtype, density):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(3)
    matrix = np.where(rng.random(shape) < density, rng.integers(1, 100, shape), 0).astype(dtype)
    encoded, other = csr.encode(matrix), sparse.csr_array(matrix.astype(np.float64))
    assert np.array_equal(encoded.offsets, other.indptr)
    assert np.array_equal(encoded.columns, other.indices)
    assert np.array_equal(encoded.values.astype(np.float64), matrix.astype(np.float64)[matrix != 0])
    assert np.array_equal(csr.decode(encoded), matrix)


def test_a_matrix_by_hand():
    encoded = csr.encode(BY_HAND, index_bits=16)
    assert encoded.offsets.tolist() == [0, 2, 2, 4]
    assert encoded.columns.tolist() == [1, 3, 0, 3]
    assert encoded.values.tolist() == [5, 7, 1, -2]
    assert encoded.bits() == {"values": 4 * 32, "columns": 4 * 16, "offsets": 4 * 32}
    assert encoded.bits(value_bits=16, offset_bits=64) == {"values": 4 * 16, "columns": 4 * 16, "offsets": 4 * 64}


def test_a_negative_zero_is_left_out_and_a_nan_is_kept():
    encoded = csr.encode(np.array([[-0.0, np.nan, 0.0, 1.0]], np.float16))
    assert encoded.columns.tolist() == [1, 3]
    assert np.isnan(csr.decode(encoded)[0, 1])


def test_the_index_must_tell_the_columns_apart():
    csr.encode(np.ones((1, 256), np.float32), index_bits=8)
    with pytest.raises(InputError) as error:
        csr.encode(np.ones((1, 257), np.float32), index_bits=8, where="layer fc")
    assert str(error.value) == "layer fc: index_bits must be at least 9 to tell 257 columns apart, not 8"


@pytest.mark.parametrize(
    ("matrix", "bits", "message"),
    [
        (np.zeros(3), 32, "weight: CSR needs a matrix of 2 dimensions, not 1"),
        (np.zeros((2, 2), complex), 32, "weight: CSR values must be real numbers, not complex128"),
        (np.zeros((2, 2)), 0, "weight: index_bits must be a whole number from 1 to 32, not 0"),
        (np.zeros((2, 2)), 33, "weight: index_bits must be a whole number from 1 to 32, not 33"),
        (np.zeros((2, 2)), True, "weight: index_bits must be a whole number from 1 to 32, not True"),
    ],
)
def test_what_cannot_be_encoded_is_said(matrix, bits, message):
    with pytest.raises(InputError) as error:
        csr.encode(matrix, bits)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": [0, 2, 4]}, "offsets must be (4,), rows + 1, not (3,)"),
        ({"columns": [1, 3, 0]}, "columns must be (4,), as the values, not (3,)"),
        ({"offsets": [0, 2, 1, 4]}, "offsets must rise from 0 to 4, the entries, and never fall"),
        ({"offsets": [1, 2, 2, 4]}, "offsets must rise from 0 to 4, the entries, and never fall"),
        ({"offsets": [0, 2, 2, 5]}, "offsets must rise from 0 to 4, the entries, and never fall"),
        ({"columns": [1, 3, 0, 4]}, "columns must be from 0 to 3, and row 2 has 4"),
        ({"columns": [1, -1, 0, 3]}, "columns must be from 0 to 3, and row 0 has -1"),
        ({"columns": [1, 3, 3, 3]}, "columns must ascend in a row, and those of row 2 do not"),
    ],
)
def test_what_is_broken_is_not_decoded(changes, message):
    broken = replace(csr.encode(BY_HAND), **{name: np.array(value) for name, value in changes.items()})
    with pytest.raises(ValueError) as error:
        csr.decode(broken)
    assert str(error.value) == message
