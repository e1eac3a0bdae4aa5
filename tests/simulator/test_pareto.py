"""The non-dominated set, against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gossamer.simulator.pareto import non_dominated

COSTS = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(0, 4).map(float)
)


def dominates(a, b):
    return all(a <= b) and any(a < b)


@given(COSTS)
def test_the_set_is_what_no_row_dominates(costs):
    wanted = [not any(dominates(other, row) for other in costs) for row in costs]
    assert non_dominated(costs).tolist() == wanted


@given(COSTS, st.randoms(use_true_random=False))
def test_the_set_does_not_depend_on_the_order(costs, rng):
    order = list(range(len(costs)))
    rng.shuffle(order)
    assert non_dominated(costs[order]).tolist() == non_dominated(costs)[order].tolist()


def test_equal_rows_are_all_kept_and_no_rows_are_none():
    assert non_dominated(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist() == [True, True, False]
    assert non_dominated(np.zeros((0, 3))).tolist() == []


def test_costs_that_do_not_compare_are_refused():
    with pytest.raises(ValueError, match="costs must be finite"):
        non_dominated(np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r"costs must be \(n, objectives\), not of shape \(3,\)"):
        non_dominated(np.zeros(3))
