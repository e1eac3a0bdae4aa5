"""Arrays as whole numbers: a word is zero, in the bits that count, where the value is."""

import numpy as np
import pytest

from gossamer.workloads.formats.words import words_of

from ..refusals import message

KINDS = ["?", "i1", "u2", "<i4", ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_that_count_are_0_where_the_value_is(kind):
    dtype = np.dtype(kind)
    values = [0, 1, 0, 1]
    if dtype.kind == "f":
        tiny = np.finfo(dtype.newbyteorder("=")).smallest_subnormal
        values = [-0.0, tiny, 0.0, -tiny, np.nan, np.inf, 128 * tiny]
    array = np.array(values, dtype)
    words, mask = words_of(array, "values")
    assert ((words & mask) != 0).tolist() == (array != 0).tolist()
    assert np.array_equal(words.view(dtype.newbyteorder("=")), array, equal_nan=dtype.kind == "f")


def test_a_view_of_any_order_becomes_contiguous():
    array = np.arange(24, dtype=np.float16).reshape(4, 6)[::2, ::-3].T
    words, _ = words_of(array, "values")
    assert words.flags.c_contiguous
    assert np.array_equal(words.view(np.float16), array)


@pytest.mark.parametrize("kind", ["c8", "O", "U1", "g"])
def test_other_kinds_are_refused(kind):
    array = np.zeros(2, kind)
    assert message(words_of, array, "layer fc: values") == f"layer fc: values must be real numbers, not {array.dtype}"
