import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import SCOPES, Pattern
from gossamer.workloads.pruning import balanced, kept_count, magnitude, magnitude_global, sparsity_levels

shapes = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
)
sparsities = st.floats(0, 1)
rising = st.lists(sparsities, min_size=1, max_size=4).map(sorted)
seeds = st.integers(0, 2**32 - 1)
pe_counts = st.integers(1, 16)
scopes = st.sampled_from(SCOPES)


def draw_weights(shape, seed, ties=False):
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, shape).astype(np.float32) if ties else rng.normal(size=shape).astype(np.float32)


def full(weight):
    return np.ones(weight.shape, bool)


def test_the_largest_weights_are_kept_and_ties_go_to_the_lower_index():
    weight = np.array([[1.0, -3.0, 2.0], [-2.0, 0.5, 2.0]])
    assert magnitude(weight, full(weight), 0.5).tolist() == [[False, True, True], [True, False, False]]


def test_a_pruned_weight_stays_pruned_even_when_it_is_the_largest():
    weight, mask = np.array([9.0, 1.0, 2.0, 0.0]), np.array([False, True, True, True])
    assert magnitude(weight, mask, 0.25).tolist() == [False, True, True, True]
    assert magnitude(weight, mask, 0.5).tolist() == [False, True, True, False]


def test_one_threshold_for_all_layers_empties_the_layer_of_small_weights():
    weights = {"a": np.array([[1.0, 2.0]]), "b": np.array([10.0, 20.0]), "bias": np.array([99.0])}
    masks = magnitude_global(weights, {name: full(weights[name]) for name in ("a", "b")}, 0.5)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"a": [[False, False]], "b": [True, True]}


def test_each_pe_has_a_threshold_of_its_own():
    # Rows 0 and 2 belong to PE 0, rows 1 and 3 to PE 1, whose weights are all smaller.
    weight = np.array([[10.0, 20.0], [0.1, 0.2], [30.0, 40.0], [0.3, 0.4]])
    assert magnitude(weight, full(weight), 0.5).tolist() == [[True, True], [False, False]] * 2
    assert balanced(weight, full(weight), 0.5, 2).tolist() == [
        [False, False],
        [False, False],
        [True, True],
        [True, True],
    ]


def test_each_pe_keeps_the_same_share_of_each_column():
    weight = np.array([[1.0, 20.0], [1.0, 1.0], [2.0, 40.0], [9.0, 8.0]])
    assert balanced(weight, full(weight), 0.5, 2, "pe-column").tolist() == [
        [False, False],
        [False, False],
        [True, True],
        [True, True],
    ]


def test_who_rounds_up_is_for_the_magnitudes_to_say():
    # Three weights are kept by four slices of one PE and one column; the slice of the smallest weight gets none.
    weight = np.array([[5.0, 1.0], [3.0, 4.0]])
    assert balanced(weight, full(weight), 0.25, 2, "pe-column").tolist() == [[True, False], [True, True]]


@settings(deadline=None)
@given(shapes, seeds, rising, st.booleans())
def test_magnitude_keeps_the_exact_number_and_no_smaller_weight(shape, seed, schedule, ties):
    weight = draw_weights(shape, seed, ties)
    mask = full(weight)
    for sparsity in schedule:
        before, mask = mask, magnitude(weight, mask, sparsity)
        assert mask.sum() == kept_count(weight.size, sparsity)
        assert not (mask & ~before).any()
        if mask.any() and (before & ~mask).any():
            assert np.abs(weight[mask]).min() >= np.abs(weight[before & ~mask]).max()


@settings(deadline=None)
@given(shapes, seeds, sparsities, st.booleans(), st.sampled_from([1.0, 1e-42, 1e30]))
def test_counting_magnitudes_keeps_what_sorting_them_keeps(shape, seed, sparsity, ties, scale):
    weight = (draw_weights(shape, seed, ties) * scale).astype(np.float32)
    mask = magnitude(weight, full(weight), sparsity / 2)
    expected = magnitude(weight, mask, sparsity / 2 + 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.workloads.pruning.unstructured.LARGE", 0)
        assert np.array_equal(magnitude(weight, mask, sparsity / 2 + 0.5), expected)


def test_a_large_weight_is_pruned_in_blocks_as_a_small_one_is():
    weight = draw_weights((3, 2**19), 5, ties=True)
    kept = magnitude(weight, full(weight), 0.7)
    assert kept.sum() == kept_count(weight.size, 0.7)
    order = np.argsort(-np.abs(weight.ravel()), kind="stable")
    assert kept.ravel()[order[: kept.sum()]].all()
    with pytest.raises(InputError, match="weights must be finite"):
        magnitude(np.full((2, 2**17), np.inf, np.float32), np.ones((2, 2**17), bool), 0.5)


@settings(deadline=None)
@given(shapes, shapes, seeds, sparsities)
def test_global_pruning_is_that_of_all_layers_laid_end_to_end(one, other, seed, sparsity):
    weights = {"a": draw_weights(one, seed), "b": draw_weights(other, seed + 1)}
    masks = magnitude_global(weights, {name: full(weight) for name, weight in weights.items()}, sparsity)
    flat = np.concatenate([weight.ravel() for weight in weights.values()])
    assert np.array_equal(
        np.concatenate([mask.ravel() for mask in masks.values()]), magnitude(flat, full(flat), sparsity)
    )


@settings(deadline=None, max_examples=300)
@given(shapes, seeds, rising, pe_counts, scopes, st.booleans())
def test_balanced_masks_are_exact_nested_and_balanced_within_one_weight(shape, seed, schedule, pes, scope, ties):
    mask = np.ones(shape, bool)
    for level, sparsity in enumerate(schedule):
        weight = draw_weights(shape, (seed, level), ties)  # training has changed every weight in between
        before, mask = mask, balanced(weight, mask, sparsity, pes, scope)
        assert mask.shape == shape
        assert mask.sum() == kept_count(mask.size, sparsity)
        assert not (mask & ~before).any()
        # Balanced by PE and column is balanced by PE as well.
        for promised in {scope, "pe"}:
            Pattern(kind="balanced", pe_count=pes, scope=promised).check(mask, "layer")


@settings(deadline=None)
@given(shapes, seeds, sparsities, pe_counts, scopes)
def test_inside_a_slice_no_smaller_weight_is_kept(shape, seed, sparsity, pes, scope):
    weight = draw_weights(shape, seed)
    mask = balanced(weight, full(weight), sparsity, pes, scope).reshape(shape[0], -1)
    matrix = np.abs(weight).reshape(shape[0], -1)
    for pe in range(min(pes, shape[0])):
        columns = [slice(None)] if scope == "pe" else range(matrix.shape[1])
        for column in columns:
            values, kept = matrix[pe::pes, column], mask[pe::pes, column]
            if kept.any() and not kept.all():
                assert values[kept].min() > values[~kept].max()


@settings(deadline=None)
@given(shapes, seeds, sparsities, st.booleans())
def test_one_pe_is_naive_pruning(shape, seed, sparsity, ties):
    weight = draw_weights(shape, seed, ties)
    assert np.array_equal(balanced(weight, full(weight), sparsity, 1), magnitude(weight, full(weight), sparsity))


def test_a_convolution_is_the_matrix_of_its_outputs():
    weight = draw_weights((6, 2, 3, 3), 0)
    matrix = weight.reshape(6, -1)
    for scope in SCOPES:
        mask = balanced(weight, full(weight), 0.7, 4, scope)
        assert np.array_equal(mask.reshape(6, -1), balanced(matrix, full(matrix), 0.7, 4, scope))


def test_naive_pruning_of_rows_of_unlike_scale_is_out_of_balance_and_balanced_pruning_is_not():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(256, 128)) * np.exp(0.4 * rng.normal(size=(256, 1)))
    load = {}
    for name, mask in (
        ("naive", magnitude(weight, full(weight), 0.9)),
        ("balanced", balanced(weight, full(weight), 0.9, 32)),
    ):
        kept = np.array([mask[pe::32].sum() for pe in range(32)])
        load[name] = kept.mean() / kept.max()
    assert load["naive"] < 0.8
    assert load["balanced"] > 0.99


@pytest.mark.parametrize(("level", "sparsity"), [(3, 0.488), (5, 0.672), (7, 0.790), (10, 0.893), (14, 0.956)])
def test_the_schedule_is_that_of_the_paper(level, sparsity):
    assert sparsity_levels(0.99, 0.2)[level] == pytest.approx(sparsity, abs=5e-4)


def test_the_last_level_is_the_target_and_no_level_is_made_for_the_last_bit_of_a_float():
    assert sparsity_levels(0.95, 0.2)[-2:] == (1 - 0.8**13, 0.95)
    assert sparsity_levels(0.488, 0.2) == (0.0, 1 - 0.8, 1 - 0.8**2, 0.488)
    assert sparsity_levels(0.1, 0.2) == (0.0, 0.1)
    assert sparsity_levels(0.0, 0.2) == (0.0,)


def test_a_mask_with_too_few_weights_left_is_refused():
    weight = np.arange(8.0).reshape(4, 2)
    mask = weight > 4
    with pytest.raises(InputError) as error:
        magnitude(weight, mask, 0.5)
    assert str(error.value) == (
        "sparsity must not be below that of the mask: 4 of 8 weights would be kept, and 3 are left; raise the sparsity"
    )


def test_a_mask_that_left_a_pe_less_than_its_share_is_refused():
    weight = np.arange(8.0).reshape(4, 2)
    mask = np.array([[True, True], [False, False]] * 2)
    with pytest.raises(InputError) as error:
        balanced(weight, mask, 0.5, 2)
    assert str(error.value) == (
        "balanced over 2 PEs by pe, the mask must leave each its share of 0.5, and PE 1 has less; "
        "start from a full mask, or from one balanced the same way"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 2), "sparsity must be a fraction between 0 and 1, not 1.5"),
        ((float("nan"), 2), "sparsity must be a fraction between 0 and 1, not nan"),
        ((0.5, 0), "pe_count must be a whole number of at least 1, not 0"),
        ((0.5, 3.5), "pe_count must be a whole number of at least 1, not 3.5"),
        ((0.5, 2, "row"), "scope must be one of pe, pe-column, not 'row'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    weight = np.ones((4, 2))
    with pytest.raises(InputError) as error:
        balanced(weight, full(weight), *arguments)
    assert str(error.value) == message


def test_weights_that_are_not_finite_are_refused():
    weight = np.array([[1.0, np.nan]])
    with pytest.raises(InputError) as error:
        magnitude(weight, full(weight), 0.5)
    assert str(error.value) == (
        "weights must be finite to be pruned by magnitude, and some are not; lower the learning rate"
    )


def test_a_mask_of_another_shape_or_dtype_is_refused():
    with pytest.raises(InputError) as error:
        magnitude(np.ones((2, 2)), np.ones((2, 2)), 0.5)
    assert str(error.value) == "mask must be bool of the weight's shape (2, 2), not float64 (2, 2)"
