"""Weight sharing: exactness where it is possible, optimality where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads import InputError
from gossamer.workloads.formats.codebook import cluster, quantize


def random_weight(seed, density=0.5, shape=(40, 30)):
    rng = np.random.default_rng(seed)
    return ((rng.random(shape) < density) * rng.normal(size=shape)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.01, 0.3, 1.0]), st.integers(1, 8), st.booleans())
def test_pruned_weights_alone_get_code_0(seed, density, code_bits, with_bias):
    weight = random_weight(seed, density)
    bias = weight[:, 0] * 3 if with_bias else None
    shared = quantize(weight, bias, code_bits)
    assert np.array_equal(shared.codes == 0, weight == 0)
    assert shared.codebook.shape == (1 << code_bits,)
    assert shared.codebook[0] == 0
    assert shared.codes.max(initial=0) < 1 << code_bits
    if with_bias:
        assert np.array_equal(shared.bias_codes == 0, bias == 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 15))
def test_weights_that_fit_the_codebook_stay_as_they_are(seed, distinct):
    rng = np.random.default_rng(seed)
    weight = rng.choice(rng.normal(size=distinct), (20, 20)).astype(np.float32)
    shared = quantize(weight, None)
    assert np.array_equal(shared.codebook[shared.codes], weight)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 15))
def test_every_value_takes_its_nearest_centroid_and_every_centroid_is_the_mean_of_its_values(seed, count):
    values = np.random.default_rng(seed).normal(size=400).astype(np.float32)
    centroids = cluster([values[:150], values[150:].reshape(50, 5)], count)
    nearest = np.abs(values[:, None] - centroids).argmin(axis=1)
    assert (np.diff(centroids) >= 0).all()
    for index, centroid in enumerate(centroids):
        if (nearest == index).any():
            assert np.isclose(values[nearest == index].mean(), centroid)


def test_more_codewords_err_less():
    weight = random_weight(1, 1.0)
    errors = []
    for bits in range(1, 9):
        shared = quantize(weight, None, bits)
        errors.append(float(((shared.codebook[shared.codes] - weight) ** 2).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.02  # 15 codewords for a unit normal; the optimal quantizer's error is 0.0118 (Max, 1960: 16)


def test_nothing_kept_makes_an_empty_codebook():
    shared = quantize(np.zeros((3, 3), np.float32), None)
    assert not shared.codebook.any()
    assert not shared.codes.any()


@pytest.mark.parametrize("code_bits", [0, 9, 4.0, True])
def test_codes_have_1_to_8_bits(code_bits):
    with pytest.raises(InputError) as error:
        quantize(np.ones((2, 2), np.float32), None, code_bits)
    assert str(error.value) == f"code_bits must be a whole number from 1 to 8, not {code_bits!r}"
