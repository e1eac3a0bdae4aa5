"""EIE's interleaved CSC: examples from the paper, and round trips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.formats import csc


@st.composite
def matrices(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, 200)), draw(st.integers(1, 12))
    kept = rng.random(shape) < draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
    dtype = draw(st.sampled_from([np.uint8, np.float32, np.float64, np.int16, np.bool_]))
    return (kept * rng.integers(1, 100, shape)).astype(dtype)


@settings(max_examples=200, deadline=None)
@given(matrices(), st.integers(1, 20), st.integers(2, 8))
def test_decoding_gives_back_what_was_encoded(matrix, pe_count, index_bits):
    encoded = csc.encode(matrix, pe_count, index_bits)
    assert np.array_equal(csc.decode(encoded), matrix)
    assert encoded.runs.max(initial=0) < 1 << index_bits
    counts = csc.count(matrix, pe_count, index_bits)
    assert np.array_equal(counts.entries, np.diff(encoded.pointers, axis=1).T)
    assert counts.nonzeros.sum() == np.count_nonzero(matrix)
    assert encoded.padding == counts.entries.sum() - counts.nonzeros.sum()
    assert sum(len(encoded.slice(pe)[0]) for pe in range(pe_count)) == encoded.entries


def test_a_run_of_eighteen_zeros_is_bridged_by_one_padding_entry():
    # Han et al., ISCA 2016, section III: the column [0, 0, 1, 2, 18 zeros, 3].
    encoded = csc.encode(np.array([0, 0, 1, 2, *[0] * 18, 3])[:, None], 1)
    assert encoded.values.tolist() == [1, 2, 0, 3]
    assert encoded.runs.tolist() == [2, 0, 15, 2]
    assert encoded.padding == 1


def test_pe_0_of_the_papers_figure_3_is_encoded_as_printed():
    # Figure 3: a 16 x 8 matrix on 4 PEs; the entries of PE 0 are rows 0, 4, 8, 12. Weights are numbered 100 row + col.
    kept = [(0, 0), (8, 0), (12, 0), (4, 1), (0, 2), (12, 2), (0, 4), (4, 4), (0, 5), (12, 5), (0, 6), (8, 7), (12, 7)]
    matrix = np.zeros((16, 8), int)
    for row, col in kept:
        matrix[row, col] = 100 * row + col + 1
    values, runs, pointers = csc.encode(matrix, 4).slice(0)
    assert values.tolist() == [100 * row + col + 1 for row, col in kept]
    assert runs.tolist() == [0, 1, 0, 1, 0, 2, 0, 0, 0, 2, 0, 2, 0]
    assert pointers.tolist() == [0, 3, 4, 6, 6, 8, 10, 11, 13]


def test_runs_restart_at_each_column_and_there_is_a_pointer_more_than_columns():
    # PE 0 owns [w00 w01 0 w03; 0 0 w42 w43]. Counting zeros across columns would give w42 a run of 2.
    encoded = csc.encode(np.array([[1, 2, 0, 3], [0, 0, 4, 5]]), 1)
    assert encoded.runs.tolist() == [0, 0, 1, 0, 0]
    assert encoded.pointers.tolist() == [[0, 1, 2, 3, 5]]


def test_zeros_at_the_end_of_a_column_are_not_stored():
    encoded = csc.encode(np.array([[7], *[[0]] * 100]), 1)
    assert encoded.entries == 1


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 9), (300, 1)])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", ">i2"])
def test_matrices_without_rows_or_columns_or_of_foreign_byte_order_come_back(shape, dtype):
    for value in (0, 7):
        matrix = np.full(shape, value, dtype)
        encoded = csc.encode(matrix, 4)
        assert encoded.pointers.shape == (4, shape[1] + 1)
        assert encoded.entries == np.count_nonzero(matrix)
        assert np.array_equal(csc.decode(encoded), matrix)


def test_a_negative_zero_is_not_stored():
    assert csc.encode(np.array([[-0.0], [1.0]], np.float32), 1).runs.tolist() == [1]


def test_bits_are_given_by_part():
    encoded = csc.encode(np.eye(8), 2, index_bits=5)
    assert encoded.bits(code_bits=3, pointer_bits=16) == {"codes": 24, "runs": 40, "pointers": 2 * 9 * 16}


def test_more_pes_than_rows_leave_some_slices_empty():
    encoded = csc.encode(np.ones((2, 3)), 5)
    assert np.diff(encoded.starts).tolist() == [3, 3, 0, 0, 0]


@pytest.mark.parametrize(
    ("matrix", "pe_count", "index_bits", "message"),
    [
        (np.ones(3), 1, 4, "matrix must have 2 dimensions, not 1"),
        (np.ones((2, 2)), 0, 4, "pe_count must be at least 1, not 0"),
        (np.ones((2, 2)), 1, 1, "index_bits must be 2 to 8, not 1"),
        (np.ones((2, 2)), 1, 9, "index_bits must be 2 to 8, not 9"),
        (np.ones((2, 2), np.float16), 1, 4, "matrix must hold integers, float32 or float64, not float16; convert it"),
        (np.ones((2, 2), "g"), 1, 4, f"matrix must hold integers, float32 or float64, not {np.dtype('g')}; convert it"),
        (np.ones((2, 2), complex), 1, 4, "matrix must hold integers, float32 or float64, not complex128; convert it"),
    ],
)
def test_bad_arguments_are_refused(matrix, pe_count, index_bits, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        csc.encode(matrix, pe_count, index_bits)


def damaged(**changes):
    from dataclasses import replace

    return replace(csc.encode(np.array([[1, 0], [2, 3], [0, 4]]), 1), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pointers": np.array([[0, 2]])}, r"pointers must be \(1, 3\), cols \+ 1 a PE, not \(1, 2\)"),
        ({"pointers": np.array([[0, 3, 2]])}, "pointers must start at 0 and never fall"),
        ({"pointers": np.array([[1, 2, 4]])}, "pointers must start at 0 and never fall"),
        ({"pointers": np.array([[0, 2, 3]])}, "the last pointer of each PE must be one past its last entry"),
        (
            {"runs": np.array([0, 2, 1, 0], np.uint8)},
            "every entry must lie in one of the 3 rows, and entry 1 lies below the last",
        ),
    ],
)
def test_a_damaged_encoding_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        csc.decode(damaged(**changes))
