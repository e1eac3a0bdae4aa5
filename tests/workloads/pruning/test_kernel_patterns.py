"""Pattern pruning of kernels: natural patterns, the dictionary, and connectivity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning.kernel_patterns import (
    best_patterns,
    connectivity_sparsity,
    dictionary,
    in_patterns,
    natural_patterns,
    pattern_prune,
)
from gossamer.workloads.synth.vgg import VGG_LAYERS, vgg_layer


def weights_of(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def everything(weight):
    return np.ones(weight.shape, bool)


def test_there_are_56_natural_patterns_of_four_with_the_centre():
    patterns = natural_patterns()
    assert patterns.shape == (56, 3, 3)
    assert (patterns.sum(axis=(1, 2)) == 4).all()
    assert patterns[:, 1, 1].all()
    assert len(np.unique(patterns.reshape(56, 9), axis=0)) == 56


def test_a_kernel_takes_the_pattern_that_leaves_it_the_largest_norm():
    weight = np.zeros((1, 2, 3, 3), np.float32)
    weight[0, 0] = [[9, 0, 0], [0, 1, 0], [0, 0, 8]]
    weight[0, 1] = [[0, 5, 0], [4, 1, 3], [0, 2, 0]]
    patterns = natural_patterns()
    chosen = best_patterns(weight, everything(weight), patterns)
    assert patterns[chosen[0, 0]][0, 0]
    assert patterns[chosen[0, 0]][2, 2]
    assert patterns[chosen[0, 1]].astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_the_dictionary_holds_what_most_kernels_choose_the_most_frequent_first():
    corner = np.array([[5, 4, 0], [3, 1, 0], [0, 0, 0]], np.float32)
    line = np.array([[0, 0, 0], [5, 1, 4], [0, 3, 0]], np.float32)
    weight = np.stack([np.stack([line, line, corner]), np.stack([line, corner, line])])
    found = dictionary([(weight, everything(weight))], 2)
    assert found.astype(int).tolist() == [
        [[0, 0, 0], [1, 1, 1], [0, 1, 0]],
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]],
    ]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
def test_no_other_pattern_of_the_dictionary_leaves_a_kernel_more(out, channels, size, seed):
    weight = weights_of((out, channels, 3, 3), seed)
    patterns = dictionary([(weight, everything(weight))], size)
    kept = in_patterns(weight, everything(weight), patterns)
    norm = (np.square(weight, dtype=np.float64) * kept).sum(axis=(2, 3))
    other = np.einsum("oihw,phw->oip", np.square(weight, dtype=np.float64), patterns)
    assert np.allclose(norm, other.max(axis=2))


@given(st.integers(2, 9), st.integers(2, 9), st.floats(1.0, 4.0), st.integers(0, 99))
def test_pruning_keeps_its_promise_and_its_sparsity(out, channels, rate, seed):
    weights = {"a": weights_of((out, channels, 3, 3), seed), "b": weights_of((out, channels, 1, 1), seed)}
    sparsity = 1 - 4 / 9 / rate
    masks = pattern_prune(weights, {name: everything(weight) for name, weight in weights.items()}, sparsity, 8)
    Pattern("kernel-pattern", n=4, m=8).check(masks["a"], "a")
    kernels = round(out * channels / rate)
    assert abs(masks["a"].sum() - 4 * kernels) <= 4
    assert abs(masks["b"].sum() - kernels) <= 1
    assert set(masks["a"].sum(axis=(2, 3)).ravel()) <= {0, 4}


def test_the_kernels_that_stay_are_those_of_which_most_is_left():
    weight = weights_of((8, 8, 3, 3))
    mask = pattern_prune({"a": weight}, {"a": everything(weight)}, 1 - 4 / 9 / 4)["a"]
    patterns = dictionary([(weight, everything(weight))], 8)
    norms = (np.square(weight) * in_patterns(weight, everything(weight), patterns)).sum(axis=(2, 3))
    kept = mask.any(axis=(2, 3))
    assert kept.sum() == 16
    assert norms[kept].min() > norms[~kept].max()


def test_a_sparsity_below_that_of_the_patterns_is_refused():
    weight = weights_of((4, 4, 3, 3))
    with pytest.raises(InputError) as error:
        pattern_prune({"a": weight}, {"a": everything(weight)}, 0.5)
    assert str(error.value) == "sparsity must be at least the 0.5556 of patterns that keep 4 of 9 weights, not 0.5"
    assert connectivity_sparsity(1 - 4 / 9 / 3.6, 4, 9) == pytest.approx(1 - 1 / 3.6)


def test_a_linear_weight_has_no_patterns():
    weight = weights_of((4, 4))
    with pytest.raises(InputError) as error:
        pattern_prune({"fc": weight}, {"fc": everything(weight)}, 0.9)
    assert str(error.value) == "fc: patterns are those of convolutions, of 4 dimensions, not (4, 4)"


def test_a_layer_that_would_lose_every_kernel_is_refused():
    weight = weights_of((1, 2, 3, 3))
    with pytest.raises(InputError) as error:
        pattern_prune({"a": weight}, {"a": everything(weight)}, 0.99)
    assert str(error.value) == "a: at least one kernel must be left, and at sparsity 0.99 none is"


def test_a_mask_with_one_pattern_too_many_breaks_the_promise():
    mask = np.zeros((1, 3, 3, 3), bool)
    mask[0, 0, 0, :2] = mask[0, 1, 1, :2] = mask[0, 2, 2, :2] = True
    Pattern("kernel-pattern", n=2, m=3).check(mask, "layer c")
    with pytest.raises(InputError) as error:
        Pattern("kernel-pattern", n=2, m=2).check(mask, "layer c")
    assert str(error.value) == (
        "layer c: kernels must keep one of 2 patterns, and have 3; give the mask, or prune it again"
    )
    with pytest.raises(InputError) as error:
        Pattern("kernel-pattern", n=1, m=3).check(mask, "layer c")
    assert str(error.value) == (
        "layer c: a kernel must keep at most 1 weights, and kernel (0, 0) keeps 2; prune it again"
    )
    with pytest.raises(InputError) as error:
        Pattern("kernel-pattern", n=1, m=3).check(mask[0, 0], "layer c")
    assert str(error.value) == "layer c: kernel patterns are those of a conv2d's weight, not of one of (3, 3)"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0, "m": 8}, "pattern kernel-pattern needs n >= 1 and m >= 1, not 0 and 8"),
        ({"n": 4}, "pattern kernel-pattern needs m, and has None"),
        ({"n": 4, "m": 8, "axis": 1}, "pattern kernel-pattern takes no axis, and has 1"),
    ],
)
def test_a_promise_of_patterns_names_both_numbers_and_no_axis(fields, message):
    with pytest.raises(InputError) as error:
        Pattern("kernel-pattern", **fields)
    assert str(error.value) == message


def test_kernels_without_a_centre_have_no_natural_patterns():
    for arguments, message in (
        ((2,), "patterns are those of kernels of 3 x 3 or 5 x 5, not 2 x 2"),
        ((3, 0), "a pattern of 3 x 3 must keep 1 to 9 places, not 0"),
        ((5, 9), "a pattern of 5 x 5 must keep 1 to 4 places, not 9"),
    ):
        with pytest.raises(InputError) as error:
            natural_patterns(*arguments)
        assert str(error.value) == message
    assert natural_patterns(5, 2).shape == (24, 5, 5)


def test_a_dictionary_needs_a_size_and_something_to_count():
    with pytest.raises(InputError) as error:
        dictionary([], 8)
    assert str(error.value) == "a dictionary needs the weights of at least one convolution of 3 x 3, and has none"
    with pytest.raises(InputError) as error:
        dictionary([], 0)
    assert str(error.value) == "a dictionary must hold at least 1 pattern, not 0"


def test_a_drawn_layer_of_vgg_has_the_sizes_and_the_pruning_it_declares():
    trace = vgg_layer("l3", connectivity=3.6, patterns=8)
    layer = trace.layers[0]
    assert layer.shape == (128, 64, 3, 3)
    assert layer.inputs.shape == (1, 64, 112, 112)
    assert layer.mask.any(axis=(2, 3)).sum() == round(128 * 64 / 3.6)
    assert trace.provenance["statistics"]["connectivity"] == 3.6
    assert len(VGG_LAYERS) == 9
    assert vgg_layer("L1").sha256 == vgg_layer("L1").sha256


def test_an_unknown_layer_and_values_out_of_range_are_refused():
    for arguments, message in (
        ({"name": "L10"}, "unknown VGG-16 layer 'L10'; known: L1, L2, L3, L4, L5, L6, L7, L8, L9"),
        ({"name": "L1", "connectivity": 0.5}, "connectivity must be at least 1 and finite, not 0.5"),
        ({"name": "L1", "filter_sigma": -1}, "filter_sigma must be a number from 0 to 4, not -1"),
        ({"name": "L1", "patterns": 2.5}, "patterns must be a whole number of at least 1, not 2.5"),
        ({"name": "L1", "seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ):
        with pytest.raises(InputError) as error:
            vgg_layer(**arguments)
        assert str(error.value) == message
