"""Numbers that a caller gave: which are taken, and what is said of the others."""

import numpy as np
import pytest

from gossamer.workloads.checks import number, positive, whole

from .refusals import message


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_of_any_type_becomes_an_int(value):
    assert whole(value, "k", 3) == 3
    assert type(whole(value, "k", 0, 3)) is int


@pytest.mark.parametrize("value", [2, 5, True, 3.0, "3", None, np.float32(3), float("nan")])
def test_what_is_no_whole_number_in_the_range_is_refused(value):
    assert message(whole, value, "k", 3, 4) == f"k must be a whole number from 3 to 4, not {value!r}"


def test_a_range_may_have_no_end():
    assert whole(10**30, "k", 1) == 10**30
    assert message(whole, 0, "k", 1) == "k must be a whole number of at least 1, not 0"


def test_a_number_that_goes_on_and_on_is_cut():
    assert len(message(whole, "9" * 10**6, "k", 1)) < 300


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int8(1)])
def test_a_number_of_any_type_becomes_a_float(value):
    assert number(value, "share", 0, 1) == value
    assert type(number(value, "share", 0, 1)) is float


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, float("nan"), 0.5j])
def test_what_is_no_number_in_the_range_is_refused(value):
    assert message(number, value, "share", 0, 1) == f"share must be a number from 0 to 1, not {value!r}"


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, None])
def test_what_is_not_above_0_and_finite_is_refused(value):
    assert positive(1e-300, "side") == 1e-300
    assert message(positive, value, "side") == f"side must be a number above 0, not {value!r}"
