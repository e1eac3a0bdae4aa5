"""Fixed-point words: what fits, what rounds, what saturates; and the compiled datapath against the written one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models.parts.fixed_point import Datapath, Format, format_for, largest
from gossamer.models.parts.matvec import find_nonzeros, multiply, multiply_fixed


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-30, 1e30), st.integers(2, 24))
def test_the_format_is_the_finest_in_which_the_magnitude_fits(magnitude, word_bits):
    chosen = format_for(magnitude, word_bits)
    for sign in (1, -1):
        word = int(chosen.to_words(sign * magnitude))
        assert abs(word) <= chosen.greatest
        assert abs(chosen.to_values(word) - sign * magnitude) <= math.ldexp(0.5, -chosen.fraction_bits)
    assert round(math.ldexp(magnitude, chosen.fraction_bits + 1)) > chosen.greatest


def test_words_saturate_and_ties_go_to_even():
    words = Format(8, 2).to_words(np.array([100.0, -100.0, 0.125, 0.375, -0.125]))
    assert words.tolist() == [127, -128, 0, 2, 0]
    assert Format(8, 2).to_values(words).tolist() == [31.75, -32, 0, 0.5, 0]


def test_zero_takes_all_bits_for_the_fraction():
    assert format_for(0.0, 16) == Format(16, 15)
    assert largest(np.zeros((0, 3))) == 0.0


def test_a_product_is_aligned_rounding_half_up():
    path = Datapath(Format(8, 4), Format(8, 4), Format(8, 6))
    assert path.shift == 2
    assert [path.align(product) for product in (1, 2, -1, -2, -3, 6)] == [0, 1, 0, 0, -1, 2]
    assert Datapath(Format(8, 1), Format(8, 1), Format(8, 4)).align(3) == 12


def test_an_accumulator_saturates_at_both_ends():
    path = Datapath(Format(4, 0), Format(4, 0), Format(4, 0))
    assert path.accumulate(5, 7) == (7, True)
    assert path.accumulate(-5, -7) == (-8, True)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 13), st.booleans(), st.booleans(), st.integers(3, 24), st.integers(-90, 90)
)
def test_the_compiled_sums_are_those_of_the_written_datapath(seed, rows, coded, bias, word_bits, fraction_bits):
    rng = np.random.default_rng(seed)
    cols = int(rng.integers(1, 20))
    vectors = ((rng.random((2, cols)) < 0.6) * rng.normal(size=(2, cols))).astype(np.float32)
    book = rng.normal(size=16).astype(np.float32)
    book[0] = 0
    codes = rng.integers(0, 16, (rows, cols + bias)).astype(np.uint8)
    path = Datapath(Format(word_bits, 3), Format(word_bits, 2), Format(word_bits, fraction_bits))
    nonzeros = find_nonzeros(vectors, bias)
    matrix, codebook = (codes, book) if coded else (book[codes], None)
    words, saturated = multiply_fixed(matrix, codebook, nonzeros, path)

    expected_saturated = 0
    weights = path.weights.to_words(book[codes])
    padded = np.column_stack([vectors, np.ones(2, np.float32)]) if bias else vectors
    for v, vector in enumerate(padded):
        for r in range(rows):
            total = 0
            for c in np.flatnonzero(vector):
                product = int(weights[r, c]) * int(path.activations.to_words(vector[c]))
                total, clipped = path.accumulate(total, product)
                expected_saturated += clipped
            assert words[v, r] == total
    assert saturated == expected_saturated


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_the_exact_product_and_its_peak_are_numpys(seed, coded):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(1, 20, 2)
    vectors = ((rng.random((3, cols)) < 0.5) * rng.normal(size=(3, cols))).astype(np.float32)
    book = rng.normal(size=16).astype(np.float32)
    codes = rng.integers(0, 16, (rows, cols)).astype(np.uint8)
    matrix, codebook = (codes, book) if coded else (book[codes], None)
    out, peak = multiply(matrix, codebook, find_nonzeros(vectors, False))
    terms = book[codes].astype(np.float64) * vectors[:, None, :].astype(np.float64)
    assert out == pytest.approx(terms.sum(axis=2), abs=1e-12)
    assert peak == pytest.approx(np.abs(terms.cumsum(axis=2)).max(), abs=1e-12)
