import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import balanced, kept_count
from gossamer.workloads.pruning.sparsity import balance_report, nm_report, sparsity_report

from ..refusals import message


def test_a_sparsity_report_counts_kernels_and_no_biases():
    weights = {"a.weight": np.array([[1, 0, 2, 3]], np.float32), "a.bias": np.ones(1, np.float32),
               "b.weight": np.ones((2, 3), np.float32)}  # fmt: skip
    masks = {"a.weight": np.array([[True, True, False, False]])}
    rows = [(r.name, r.shape, r.size, r.kept, r.nonzeros, r.sparsity) for r in sparsity_report(weights, masks)]
    assert rows == [
        ("a.weight", (1, 4), 4, 2, 3, 0.5),
        ("b.weight", (2, 3), 6, 6, 6, 0),
        ("total", (), 10, 8, 9, pytest.approx(0.2)),
    ]


def test_an_nm_report_counts_groups_by_their_nonzeros():
    weight = np.array([[1, 1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0]], np.float32)
    (row,) = nm_report({"w": weight}, 2, 4)
    assert (row.histogram, row.groups, row.violations, row.padding) == ((1, 1, 1, 1, 0), 4, 1, 0)
    (row,) = nm_report({"w": weight}, 1, 2, axis=0)
    assert (row.histogram, row.violations) == ((3, 4, 1), 1)
    (row,) = nm_report({"w": weight[:, :6], "bias": np.ones(3)}, 2, 4)
    assert (row.histogram, row.padding) == ((1, 1, 2, 0, 0), 4)
    assert nm_report({"w": weight, "conv": np.zeros((1, 2, 3, 3))}, 1, 3, axis=3)[0].name == "conv"


@given(
    arrays(np.float32, (4, 8, 3), elements=st.sampled_from([0, 0, 1, -2])),
    st.sampled_from([(1, 2), (2, 4), (3, 8)]),
    st.sampled_from([0, 1]),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_weight_has_no_violations_where_its_pattern_holds(weight, nm, axis):
    n, m = nm
    (row,) = nm_report({"w": weight}, n, m, axis)
    assert sum(count * groups for count, groups in enumerate(row.histogram)) == np.count_nonzero(weight)
    if row.padding:
        assert weight.shape[axis] % m
        return
    try:
        Pattern(kind="n:m", n=n, m=m, axis=axis).check(weight, "w")
    except InputError:
        assert row.violations
    else:
        assert row.violations == 0


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.sampled_from([0, 0, 1])),
       st.integers(1, 12))  # fmt: skip
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_balance_report_gives_each_pe_its_rows(weight, pe_count):
    (row,) = balance_report({"w": weight}, pe_count)
    assert row.nonzeros == tuple(np.count_nonzero(weight[pe::pe_count]) for pe in range(pe_count))
    assert row.least <= row.mean <= row.most
    assert row.balance == (pytest.approx(row.mean / row.most) if row.most else 1)


def test_a_balanced_mask_is_reported_balanced():
    weight = np.random.default_rng(0).normal(size=(64, 33)).astype(np.float32)
    kept = balanced(weight, np.ones(weight.shape, bool), 0.9, 16)
    (row,) = balance_report({"w": weight * kept}, 16)
    assert row.most - row.least <= 1
    assert sum(row.nonzeros) == kept_count(weight.size, 0.9)


def test_a_group_longer_than_the_axis_is_the_axis_and_padding():
    (row,) = nm_report({"w": np.array([[1, 0, 2], [0, 0, 0]], np.float32)}, 1, 8)
    assert (row.histogram, row.violations, row.padding) == ((1, 0, 1, 0, 0, 0, 0, 0, 0), 1, 10)


@pytest.mark.parametrize(
    ("report", "arguments", "said"),
    [
        (nm_report, (2, 10**13), "groups need 0 < n <= m <= 65536 and axis >= 0, not 2:10000000000000 on axis 1"),
        (nm_report, (3, 2), "groups need 0 < n <= m <= 65536 and axis >= 0, not 3:2 on axis 1"),
        (balance_report, (10**13,), "pe_count must be a whole number from 1 to 65536, not 10000000000000"),
        (balance_report, (0,), "pe_count must be a whole number from 1 to 65536, not 0"),
    ],
)
def test_a_report_of_more_numbers_than_anyone_reads_is_refused(report, arguments, said):
    assert message(report, {"w": np.ones((2, 3))}, *arguments) == said


def test_a_report_needs_a_kernel():
    assert message(sparsity_report, {"b": np.ones(3)}, {}) == (
        "a report needs a weight of at least 2 dimensions, and none of b is"
    )
    assert message(sparsity_report, {}, {}) == "a report needs a weight of at least 2 dimensions, and there are none"


def test_a_report_needs_masks_of_the_weights_shapes():
    assert message(sparsity_report, {"w": np.ones((3, 2))}, {"w": np.ones(3, bool)}) == (
        "mask w must have the weight's shape (3, 2), not (3,)"
    )
