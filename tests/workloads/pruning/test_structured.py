import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import kept_count, magnitude
from gossamer.workloads.pruning.structured import by_scale, channels, kernels, n_of_m, tiles

from ..refusals import message

seeds = st.integers(0, 2**32 - 1)
shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
)


def drawn(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def full(weight):
    return np.ones(weight.shape, bool)


def test_the_two_largest_of_every_four_are_kept_and_ties_go_to_the_lower_index():
    weight = np.array([[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0]])
    assert n_of_m(weight, full(weight), 2, 4).astype(int).tolist() == [[0, 1, 1, 0, 1, 1, 0, 0]]


@settings(deadline=None)
@given(shapes, seeds, st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_comparing_each_with_each_keeps_what_sorting_keeps(shape, seed, n, m, ties):
    n, m = min(n, m), max(n, m)
    weight = drawn(shape, seed)
    weight = np.round(weight) if ties else weight
    mask = np.random.default_rng(seed).random(shape) < 0.7
    kept = n_of_m(weight, mask, n, m, pad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.workloads.pruning.structured.SMALL", 0)
        assert np.array_equal(n_of_m(weight, mask, n, m, pad=True), kept)


def test_groups_of_a_convolution_lie_along_its_input_channels():
    weight = drawn((3, 8, 3, 3), 0)
    kept = n_of_m(weight, full(weight), 1, 4)
    assert (kept.reshape(3, 2, 4, 3, 3).sum(axis=2) == 1).all()
    assert np.array_equal(kept[:, :, 1, 2], n_of_m(weight[:, :, 1, 2], full(weight)[:, :, 1, 2], 1, 4))
    across = n_of_m(np.moveaxis(weight, 1, 0), np.moveaxis(full(weight), 1, 0), 1, 4, axis=0)
    assert np.array_equal(np.moveaxis(across, 0, 1), kept)


@settings(deadline=None)
@given(shapes, seeds, st.integers(1, 8), st.integers(1, 8))
def test_every_group_keeps_n_and_no_smaller_weight_and_a_short_one_its_share(shape, seed, n, m):
    n, m = min(n, m), max(n, m)
    weight = drawn(shape, seed)
    kept = np.moveaxis(n_of_m(weight, full(weight), n, m, pad=True), 1, -1)
    values = np.abs(np.moveaxis(weight, 1, -1))
    for start in range(0, shape[1], m):
        group, size = kept[..., start : start + m], values[..., start : start + m]
        wanted = n if group.shape[-1] == m else int(np.ceil(group.shape[-1] * n / m))
        assert (group.sum(axis=-1) == wanted).all()
        least = np.where(group, size, np.inf).min(axis=-1)
        assert (least >= np.where(group, -np.inf, size).max(axis=-1)).all()
    if shape[1] % m == 0:
        Pattern(kind="n:m", n=n, m=m, axis=1).check(np.moveaxis(kept, -1, 1), "layer")


def test_rows_that_groups_do_not_tile_are_refused_unless_padding_is_asked_for():
    weight = drawn((2, 6), 0)
    assert message(n_of_m, weight, full(weight), 2, 4) == (
        "groups of 4 must tile axis 1 of the weight, whose shape is (2, 6); "
        "set pad to lengthen it by zeros, or name the layer in exclude"
    )
    assert message(n_of_m, weight, full(weight)[:1], 2, 2) == (
        f"mask must be bool of the weight's shape {weight.shape}, not bool {weight[:1].shape}"
    )
    assert message(n_of_m, weight, full(weight), 3, 2) == "n:m needs 0 < n <= m, not 3:2"
    assert message(n_of_m, weight, full(weight), 1, 2, 2) == (
        "axis must be one of the 2 of a weight of shape (2, 6), not 2"
    )


@settings(deadline=None)
@given(
    shapes, seeds, st.tuples(st.integers(1, 4), st.integers(1, 4)), st.lists(st.floats(0, 1), min_size=1, max_size=3)
)
def test_tiles_are_kept_whole_in_exact_number_and_nested(shape, seed, tile, schedule):
    mask = np.ones(shape, bool)
    rows, cols = shape[0], mask.size // shape[0]
    count = -(-rows // tile[0]) * -(-cols // tile[1])
    for level, sparsity in enumerate(sorted(schedule)):
        before, mask = mask, tiles(drawn(shape, (seed, level)), mask, sparsity, tile)
        Pattern(kind="block", block=tile).check(mask, "layer")
        assert not (mask & ~before).any()
        corners = mask.reshape(rows, cols)[:: tile[0], :: tile[1]]
        assert corners.size == count
        assert corners.sum() == kept_count(count, sparsity)


def test_the_tiles_of_largest_norm_are_kept_not_those_of_the_largest_weight():
    weight = np.array([[2.0, 2.0, 2.5, 0.0], [2.0, 2.0, 0.0, 0.0]])
    assert tiles(weight, full(weight), 0.5, (2, 2)).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert tiles(weight, full(weight), 0.5, (1, 2)).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert np.array_equal(tiles(weight, full(weight), 0.5, (1, 1)), magnitude(weight, full(weight), 0.5))


def test_kernels_and_channels_are_kept_whole_by_their_norm():
    weight = drawn((4, 3, 3, 3), 1)
    norms = np.square(weight).sum(axis=(2, 3))
    kept = kernels(weight, full(weight), 0.5)
    assert (kept.all(axis=(2, 3)) == kept.any(axis=(2, 3))).all()
    assert norms[kept[:, :, 0, 0]].min() > norms[~kept[:, :, 0, 0]].max()
    assert kept[:, :, 0, 0].sum() == 6
    rows = channels(weight, full(weight), 0.25)
    assert rows.all(axis=(1, 2, 3)).sum() == rows.any(axis=(1, 2, 3)).sum() == 3
    assert not rows[np.square(weight).sum(axis=(1, 2, 3)).argmin()].any()
    assert message(kernels, weight[:, :, 0, 0], full(weight)[:, :, 0, 0], 0.5) == (
        "kernels are those of convolutions, of 3 dimensions or more, not (4, 3)"
    )
    assert message(tiles, weight, rows, 0.1, (1, 27)) == (
        "sparsity must not be below that of the mask: 4 of 4 pieces would be kept, and 3 are left; raise the sparsity"
    )


def test_one_threshold_on_scales_leaves_every_layer_a_channel():
    scales = {"a": np.array([0.1, -0.2, 0.05]), "b": np.array([5.0, -7.0, 6.0])}
    kept = by_scale(scales, 0.5)
    assert {name: mask.tolist() for name, mask in kept.items()} == {
        "a": [False, True, False],
        "b": [False, True, True],
    }
    assert by_scale(scales, 0.99)["b"].sum() == 1
    assert by_scale({}, 0.5) == {}
