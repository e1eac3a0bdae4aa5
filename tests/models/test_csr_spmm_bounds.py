"""How far CSR's outputs may be from the exact ones: no farther than is said, and little less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.models import csr_spmm
from gossamer.simulator.memo import Memo

from .bounds import assert_bounded, assert_tells, far_layers
from .test_csr_spmm import by_lengths, linear, tiny

DTYPES = [{}, {"dtype": "fp16", "energy": ""}]


@settings(max_examples=80, deadline=None)
@given(layer=far_layers(), changes=st.sampled_from(DTYPES))
def test_outputs_are_within_the_bound_whatever_the_numbers(layer, changes):
    assert_bounded(csr_spmm, tiny(**changes), layer)


@pytest.mark.parametrize("changes", DTYPES)
def test_the_bound_of_ordinary_numbers_is_near_their_errors(changes):
    layer, machine = linear(by_lengths([40] * 20, 100), 12), tiny(**changes)
    found = csr_spmm.fast(machine, layer, Memo()).arithmetic["max_abs_error"]
    assert found < csr_spmm.error_bound(machine, layer).max() < 300 * found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), row=st.integers(0, 11), column=st.integers(0, 15), changes=st.sampled_from(DTYPES))
def test_a_weight_that_is_off_by_more_than_the_bound_is_told(seed, row, column, changes):
    assert_tells(csr_spmm, tiny(**changes), linear(by_lengths([9] * 12, 16, seed), seed=seed), row, column)
