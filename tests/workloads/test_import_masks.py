import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers.masks import find_masks, pattern_of
from gossamer.workloads.importers.one_shot import OneShot, parse_one_shot, prune_trace
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning.structured import filled
from gossamer.workloads.trace import Layer, Trace

W = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
MASK = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], np.float32)


@pytest.mark.parametrize(
    "tensors",
    [
        {"fc.weight_orig": W, "fc.weight_mask": MASK},
        {"fc.parametrizations.weight.original": W, "fc.parametrizations.weight.0.mask": MASK},
        {"fc.weight": W * MASK, "fc.__weight_mma_mask": MASK != 0},
        {"fc.weight": W, "fc.mask": MASK != 0},
        {"fc.weight": W, "fc.weight_mask": MASK.astype(np.uint8)},
    ],
    ids=["torch.nn.utils.prune", "parametrizations", "ASP", "beside", "by name"],
)
def test_a_mask_finds_its_weight_whichever_tool_made_it(tensors):
    found = find_masks(tensors)
    assert list(found.values) == list(found.masks) == ["fc.weight"]
    weight, mask = found.read("fc.weight", tensors.__getitem__)
    np.testing.assert_array_equal(weight, W * MASK, strict=True)
    np.testing.assert_array_equal(mask, MASK != 0, strict=True)
    assert (found.left, found.unmasked) == ({}, [])


def test_masks_of_one_weight_are_taken_together():
    first, second = np.ones((2, 4)), MASK.copy()
    first[0, 0] = 0
    name = "a.b.parametrizations.weight"
    tensors = {f"{name}.original": W, f"{name}.0.mask": first, f"{name}.1.mask": second}
    weight, mask = find_masks(tensors).read("a.b.weight", tensors.__getitem__)
    np.testing.assert_array_equal(mask, (first * second) != 0)
    np.testing.assert_array_equal(weight, W * first * second)


def test_a_parameter_of_the_model_itself_may_be_masked():
    found = find_masks(["weight_orig", "weight_mask", "__bias_mma_mask", "bias"])
    assert found.masks == {"weight": ["weight_mask"], "bias": ["__bias_mma_mask"]}
    assert found.values == {"weight": "weight_orig", "bias": "bias"}


def test_what_asp_put_aside_and_other_parts_are_listed():
    found = find_masks(["fc.weight", "fc.__weight_mma_pruned_p", "c.parametrizations.weight.original0"])
    assert found.left == {
        "fc.__weight_mma_pruned_p": "weights that ASP put aside",
        "c.parametrizations.weight.original0": "part of a parametrization other than a mask",
    }


def test_a_parametrized_weight_without_its_mask_is_pointed_out():
    assert find_masks(["fc.parametrizations.weight.original"]).unmasked == ["fc.weight"]


@pytest.mark.parametrize(
    ("tensors", "rule"),
    [
        (
            {"fc.__weight_mma_mask": MASK},
            "mask fc.__weight_mma_mask must be of the tensor fc.weight, and there is none",
        ),
        (
            {"fc.weight": W, "fc.mask": MASK[:1]},
            "mask fc.mask must have the shape (2, 4) of its weight, not (1, 4)",
        ),
        (
            {"fc.weight": W, "fc.mask": MASK * 2},
            "mask fc.mask must hold only 0 and 1, and its dtype is float32; write it as bool",
        ),
    ],
)
def test_a_mask_that_is_none_is_refused(tensors, rule):
    with pytest.raises(InputError) as error:
        find_masks(tensors).read("fc.weight", tensors.__getitem__)
    assert str(error.value) == rule


@given(hnp.arrays(bool, st.tuples(st.integers(1, 4), st.sampled_from([4, 8, 12, 16])), elements=st.booleans()))
def test_the_pattern_found_holds_and_is_the_tightest(kept):
    pattern = pattern_of(kept)
    pattern.check(kept, "weight")
    if kept.all():
        assert pattern == Pattern("dense")
    elif pattern.kind == "unstructured":
        assert kept.reshape(-1, 4).sum(axis=1).max() > 2
    else:
        assert kept.sum() <= kept.size * pattern.n / pattern.m


def test_a_side_that_groups_do_not_tile_promises_nothing():
    assert pattern_of(np.zeros((3, 5), bool)) == Pattern()
    assert pattern_of(np.ones(4, bool)) == Pattern("dense")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("2:4", OneShot("n:m", n=2, m=4)),
        ("0.9", OneShot("magnitude", 0.9)),
        ("global:0.5", OneShot("global", 0.5)),
        ("balanced:0.9:64", OneShot("balanced", 0.9, pe_count=64)),
        ("channel:0.25", OneShot("channel", 0.25)),
        ("block:0.8:8x16", OneShot("block", 0.8, block=(8, 16))),
        ("equal-blocks:0.8:8x8", OneShot("equal-blocks", 0.8, block=(8, 8))),
    ],
)
def test_a_rule_is_read(text, rule):
    assert parse_one_shot(text) == rule


@pytest.mark.parametrize(
    "text", ["", "2:4:8", "half", "balanced:0.9", "block:0.5:8", "block:0.5", "equal-blocks:0.5", "global:0.5:3", "x:1"]
)
def test_a_rule_that_is_none_is_refused(text):
    with pytest.raises(InputError) as error:
        parse_one_shot(text)
    assert str(error.value) == (
        "prune must be N:M, SHARE, global:SHARE, balanced:SHARE:PES, channel:SHARE, block:SHARE:ROWSxCOLUMNS "
        f"or equal-blocks:SHARE:ROWSxCOLUMNS, not {text!r}; as in 2:4"
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("4:4", "prune must keep n of m with 0 < n < m, not 4:4; as in 2:4"),
        ("0:4", "prune must keep n of m with 0 < n < m, not 0:4; as in 2:4"),
        ("1.5", "prune must take a share of at least 0 and below 1, not 1.5; as in 0.9"),
        ("nan", "prune must take a share of at least 0 and below 1, not nan; as in 0.9"),
    ],
)
def test_numbers_out_of_range_are_refused(text, rule):
    with pytest.raises(InputError) as error:
        parse_one_shot(f"magnitude:{text}" if text == "nan" else text)
    assert str(error.value) == rule


@pytest.mark.parametrize("text", ["2:4", "0.75", "global:0.75", "balanced:0.75:4", "channel:0.5", "block:0.5:2x4"])
def test_each_rule_leaves_what_it_says_and_the_largest(text):
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((8, 8)), "b": rng.standard_normal((8, 4, 3, 3))}
    masks, patterns, left = parse_one_shot(text).masks(weights, {})
    assert left == {}
    share = {"2:4": 0.5, "channel:0.5": 0.5, "block:0.5:2x4": 0.5}.get(text, 0.25)
    total = sum(int(mask.sum()) for mask in masks.values())
    assert total == share * sum(weight.size for weight in weights.values())
    for name, mask in masks.items():
        patterns[name].check(mask, name)


def test_layers_that_groups_do_not_tile_or_that_are_excluded_are_left_and_named():
    weights = {"first.weight": np.ones((4, 3)), "mid.weight": np.ones((4, 8)), "last.weight": np.ones((4, 8))}
    masks, _, left = parse_one_shot("2:4").masks(weights, {}, ["last"])
    assert list(masks) == ["mid.weight"]
    assert left == {
        "last.weight": "excluded",
        "first.weight": "3 input channels are no whole number of groups of 4",
    }
    with pytest.raises(InputError) as error:
        parse_one_shot("2:4").masks(weights, {}, ["fc*"])
    assert str(error.value) == "exclude must fit the name of a layer, and 'fc*' fits none; known: first, mid, last"


def test_what_a_mask_pruned_stays_pruned():
    weight = np.array([[9, 1, 8, 2]], np.float32)
    before = np.array([[False, True, True, True]])
    masks, *_ = parse_one_shot("2:4").masks({"a": weight}, {"a": before})
    np.testing.assert_array_equal(masks["a"], [[False, False, True, True]])


@pytest.mark.parametrize("text", ["block:0.5:2x2", "equal-blocks:0.5:2x2", "channel:0.5"])
def test_tiles_are_kept_whole_around_weights_that_were_0_before(text):
    weight = np.array([[0, 9, 1, 1], [8, 7, 1, 1], [2, 2, 6, 5], [2, 0, 0, 0]], np.float32)
    trace = Trace(name="t", layers=[Layer(name="fc", op="linear", weight=weight, inputs=np.ones((1, 4), np.float32))])
    layer = prune_trace(trace, parse_one_shot(text), text).layers[0]
    assert layer.mask is not None and layer.mask.sum() == 8
    layer.pattern.check(layer.mask, "fc")
    np.testing.assert_array_equal(layer.weight, np.where(layer.mask, weight, 0))


def test_a_tile_that_was_pruned_whole_stays_so():
    mask = np.array([[True, False, False, False], [False, False, False, False]])
    np.testing.assert_array_equal(filled(mask, (2, 2)), [[True, True, False, False]] * 2)


def test_a_trace_is_pruned_with_its_inputs_as_they_were():
    inputs = np.ones((1, 4), np.float32)
    fc = Layer(name="fc", op="linear", weight=W, inputs=inputs)
    product = Layer(name="p", op="matmul", weight=W[None], inputs=inputs[None], attributes={"samples": 1})
    trace = prune_trace(Trace(name="t", layers=[fc, product]), parse_one_shot("2:4"), "2:4")
    np.testing.assert_array_equal(trace.layers[0].weight, [[0, 0, 3, 4], [0, 0, 7, 8]])
    assert trace.layers[0].pattern == Pattern("n:m", n=2, m=4, axis=1)
    assert trace.provenance == {
        "pruned": {"rule": "2:4", "activations": "those before pruning"},
        "not_pruned": {"p": "matmul is not pruned here"},
    }
    odd = Layer(name="odd", op="linear", weight=W[:, :3], inputs=inputs[:, :3])
    with pytest.raises(InputError) as error:
        prune_trace(Trace(name="t", layers=[odd]), parse_one_shot("2:4"), "2:4")
    assert str(error.value) == (
        "prune 2:4 must find a layer to prune, and finds none: odd, 3 input channels are no whole number of groups of 4"
    )
