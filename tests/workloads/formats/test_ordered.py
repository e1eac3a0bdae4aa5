"""Values in ascending order: what numpy's sort of them says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.formats.ordered import BLOCK, Ordered

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149)]), max_size=40)),
       st.lists(FLOATS, max_size=5))  # fmt: skip
def test_counts_below_sums_and_different_values_are_those_of_the_sorted_nonzeros(lists, numbers):
    arrays = [np.array(each, np.float32) for each in lists]
    expected = np.sort(np.concatenate([np.empty(0, np.float32), *arrays]))
    expected = expected[expected != 0]
    values = Ordered(arrays)
    assert len(values) == len(expected)
    asked = np.concatenate([np.array(numbers, np.float32), expected])
    assert np.array_equal(values.below(asked), np.searchsorted(expected, asked))
    different = np.unique(expected)
    for most in (len(different), len(different) + 3):
        assert np.array_equal(values.distinct(most), different)
    if len(expected):
        assert values.distinct(len(different) - 1) is None
        assert values.ends() == (expected[0], expected[-1])
    sums = np.concatenate([[0], np.cumsum(expected, dtype=np.float64)])
    assert np.array_equal(values.sums_below(np.arange(len(expected) + 1)), sums)
    some = np.arange(len(expected) + 1)[::3]
    assert np.array_equal(values.sums_below(some), sums[some])


def test_sums_go_on_from_those_that_are_kept():
    values = np.random.default_rng(0).standard_normal(3 * BLOCK + 5).astype(np.float32)
    expected = np.cumsum(np.sort(values), dtype=np.float64)
    ordered = Ordered([values])
    for chosen in ([1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 5], [2 * BLOCK + 7], [5, 5]):
        indices = np.array(chosen)
        assert np.array_equal(ordered.sums_below(indices), expected[indices - 1])
