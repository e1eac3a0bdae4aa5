import dataclasses
import pickle

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.rules import DEFAULTS
from gossamer.workloads.trace import Layer, Trace

WEIGHT = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
INPUTS = np.array([[1, 0, 2]], np.float32)
CODES = np.array([[1, 0, 2], [0, 0, 1]], np.uint8)
BOOK = np.array([0, -1.5, 2], np.float32)
KERNEL = np.ones((4, 2, 3, 3), np.float32)
IMAGE = np.ones((1, 2, 8, 8), np.float32)


def linear(**changes):
    return Layer(**{"name": "fc1", "op": "linear", "weight": WEIGHT, "inputs": INPUTS} | changes)


def coded(**changes):
    return Layer(**{"name": "fc1", "op": "linear", "codes": CODES, "codebook": BOOK, "inputs": INPUTS} | changes)


def conv(**changes):
    attributes = changes.pop("attributes", {})
    given = {"name": "conv", "op": "conv2d", "weight": KERNEL, "inputs": IMAGE, "attributes": attributes}
    return Layer(**given | changes)


POINTS = np.array([[0, 0, 0], [0, 0, 1], [4, -2, 0]], np.int32)
OPERAND = np.ones((4, 5, 2), np.float32)


def sparse_conv(**changes):
    attributes = {"kernel_size": 3} | changes.pop("attributes", {})
    given = {"name": "sc", "op": "sparse_conv3d", "weight": np.ones((4, 2, 27), np.float32), "coordinates": POINTS}
    return Layer(**given | {"attributes": attributes} | changes)


def matmul(**changes):
    given = {"name": "qk", "op": "matmul", "weight": OPERAND, "inputs": np.ones((4, 3, 2), np.float32)}
    return Layer(**given | {"attributes": {"samples": 2}} | changes)


def point_op(**changes):
    attributes = {"kind": "knn", "k": 2} | changes.pop("attributes", {})
    given = {"name": "near", "op": "point_op", "inputs": np.ones((3, 2), np.float32), "attributes": attributes}
    return Layer(**given | changes)


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array


WRONG_LAYERS = [
    (
        linear,
        {"coordinates": POINTS},
        "layer fc1: only sparse_conv3d takes coordinates, not linear; leave it out",
    ),
    (
        linear,
        {"gather": np.array([0, 1], np.int32)},
        "layer fc1: gather must be (1,) row numbers from 0, not (2,)",
    ),
    (
        linear,
        {"gather": np.array([-1], np.int32)},
        "layer fc1: gather must be (1,) row numbers from 0, not -1",
    ),
    (
        linear,
        {"attributes": {"chain": [3, 2], "chain_index": 1}},
        "layer fc1: chain must be the widths of layers and chain_index one of these, not [3, 2] and 1",
    ),
    (
        linear,
        {"attributes": {"chain": [3, 4], "chain_index": 0}},
        "layer fc1: chain must say 3, 2 at 0, as the weight does, not [3, 4]",
    ),
    (
        matmul,
        {"inputs": np.ones((4, 3, 5), np.float32)},
        "layer qk: inputs must be (4, rows, 2) to meet weight (4, 5, 2), not (4, 3, 5)",
    ),
    (
        linear,
        {"inputs": np.ones((4, 3), np.float32), "attributes": {"samples": 3}},
        "layer fc1: samples must be a whole number that divides the 4 inputs, not 3",
    ),
    (
        matmul,
        {"attributes": {"samples": 3}},
        "layer qk: samples must be a whole number that divides the 4 products, not 3",
    ),
    (
        matmul,
        {"bias": np.ones(5, np.float32)},
        "layer qk: matmul takes no bias, its operands are activations; leave it out",
    ),
    (sparse_conv, {"coordinates": None}, "layer sc: coordinates are needed, one row a point"),
    (
        sparse_conv,
        {"attributes": {"kernel_size": 2}},
        "layer sc: kernel_size 2 needs a weight of 8 offsets, not 27",
    ),
    (
        sparse_conv,
        {"attributes": {"stride": 2}},
        "layer sc: output_coordinates are needed where stride is 2, not 1",
    ),
    (
        sparse_conv,
        {"attributes": {"stride": 0}},
        "layer sc: stride must be a whole number from 1 to 64, not 0",
    ),
    (
        sparse_conv,
        {"attributes": {"transposed": 1}},
        "layer sc: transposed must be true or false, not 1",
    ),
    (
        sparse_conv,
        {"coordinates": POINTS[[0, 1, 0]]},
        "layer sc: coordinates must all differ, and [0, 0, 0] occurs twice",
    ),
    (
        sparse_conv,
        {"coordinates": POINTS * 2**19},
        "layer sc: coordinates must lie within +-983040, not -1048576 to 2097152; use larger voxels",
    ),
    (
        sparse_conv,
        {"inputs": np.ones((3, 3), np.float32)},
        "layer sc: inputs must be (3, 2), one row a point, not (3, 3)",
    ),
    (
        point_op,
        {"attributes": {"kind": "sort"}},
        "layer near: kind must be one of quantise, fps, knn, ball_query, not 'sort'",
    ),
    (point_op, {"attributes": {"k": 4}}, "layer near: k must be a whole number from 1 to the 3 points, not 4"),
    (
        point_op,
        {"attributes": {"radius": 1.0}},
        "layer near: point_op knows the attributes kind, k, not 'radius'",
    ),
    (point_op, {"weight": WEIGHT}, "layer near: point_op takes no weight; leave it out"),
    (
        point_op,
        {"queries": np.ones((3, 3), np.float32)},
        "layer near: queries must be (points, 2), of knn or ball_query, not (3, 3) of knn",
    ),
    (linear, {"name": ""}, "layer name must be a nonempty string of printable characters, not ''"),
    (linear, {"name": "a\nb"}, "layer name must be a nonempty string of printable characters, not 'a\\nb'"),
    (linear, {"name": 3}, "layer name must be a nonempty string of printable characters, not 3"),
    (
        linear,
        {"op": "lstn"},
        "layer fc1: op must be one of linear, conv2d, lstm, matmul, sparse_conv3d, point_op, not 'lstn'",
    ),
    (linear, {"weight": None}, "layer fc1: exactly one of weight and codes must be given, not neither"),
    (linear, {"codes": CODES}, "layer fc1: exactly one of weight and codes must be given, not both"),
    (
        linear,
        {"inputs": None},
        "layer fc1: inputs are needed; draw some where none were recorded, as load_trace does",
    ),
    (
        linear,
        {"weight": WEIGHT.astype(np.float64)},
        "layer fc1: tensor weight must be float32, not float64; convert it with astype('float32')",
    ),
    (
        linear,
        {"inputs": [[1.0, 2.0, 3.0]]},
        "layer fc1: tensor inputs must be float32, not list; convert it with astype('float32')",
    ),
    (
        linear,
        {"mask": np.ones((2, 3), np.uint8)},
        "layer fc1: tensor mask must be bool, not uint8; convert it with astype('bool')",
    ),
    (
        linear,
        {"weight": with_value(WEIGHT, (1, 2), np.nan)},
        "layer fc1: tensor weight must be finite, and holds nan at (1, 2); replace such values",
    ),
    (
        linear,
        {"inputs": with_value(INPUTS, (0, 1), np.inf)},
        "layer fc1: tensor inputs must be finite, and holds inf at (0, 1); replace such values",
    ),
    (
        linear,
        {"weight": np.ones((2, 3, 1, 1), np.float32)},
        "layer fc1: the weight of linear must have 2 dimensions, not (2, 3, 1, 1)",
    ),
    (
        linear,
        {"weight": np.ones((0, 3), np.float32)},
        "layer fc1: every side of the weight must be at least 1, not (0, 3)",
    ),
    (
        linear,
        {"attributes": {"stride": 2}},
        "layer fc1: linear knows the attributes chain, chain_index, samples, not 'stride'",
    ),
    (
        linear,
        {"inputs": np.ones((1, 4), np.float32)},
        "layer fc1: inputs must be (batch, ..., 3) to meet weight (2, 3), not (1, 4)",
    ),
    (
        linear,
        {"inputs": np.ones(3, np.float32)},
        "layer fc1: inputs must be (batch, ..., 3) to meet weight (2, 3), not (3,)",
    ),
    (
        linear,
        {"inputs": np.ones((0, 3), np.float32)},
        "layer fc1: inputs must hold at least one sample and no empty side, not (0, 3)",
    ),
    (linear, {"bias": np.ones(3, np.float32)}, "layer fc1: bias must be (2,), one an output, not (3,)"),
    (
        linear,
        {"mask": np.ones((3, 2), bool)},
        "layer fc1: mask must have the weight's shape (2, 3), not (3, 2)",
    ),
    (
        linear,
        {"mask": with_value(WEIGHT != 0, (0, 2), False)},
        "layer fc1: weight must be 0 where the mask prunes it, and is 2.0 at (0, 2); "
        "multiply the weight by the mask before saving",
    ),
    (linear, {"codebook": BOOK}, "layer fc1: codebook must come with codes, and there are none; leave it out"),
    (
        linear,
        {"bias_codes": CODES[:, 0]},
        "layer fc1: bias_codes must come with codes, and there are none; leave it out",
    ),
    (
        coded,
        {"bias": np.ones(2, np.float32)},
        "layer fc1: a layer with codes must give its bias as bias_codes, and gives it as bias",
    ),
    (
        coded,
        {"codebook": None},
        "layer fc1: codes need a codebook of 2 to 256 entries in one dimension, not None",
    ),
    (
        coded,
        {"codebook": np.zeros(257, np.float32)},
        "layer fc1: codes need a codebook of 2 to 256 entries in one dimension, not (257,)",
    ),
    (
        coded,
        {"codebook": BOOK + 1},
        "layer fc1: entry 0 of the codebook stands for pruned weights and must be 0.0, not 1.0",
    ),
    (
        coded,
        {"codes": with_value(CODES, (0, 0), 3)},
        "layer fc1: codes must be below the codebook's 3 entries, not 3",
    ),
    (
        coded,
        {"bias_codes": np.array([0, 7], np.uint8)},
        "layer fc1: bias_codes must be below the codebook's 3 entries, not 7",
    ),
    (
        conv,
        {"attributes": {"strides": (1, 1)}},
        "layer conv: conv2d knows the attributes stride, padding, dilation, groups, samples, not 'strides'",
    ),
    (
        conv,
        {"attributes": {"stride": (0, 1)}},
        "layer conv: stride must be two whole numbers from 1 to 65536, not (0, 1)",
    ),
    (
        conv,
        {"attributes": {"padding": (10**9, 0)}},
        "layer conv: padding must be two whole numbers from 0 to 65536, not (1000000000, 0)",
    ),
    (
        conv,
        {"attributes": {"dilation": 2}},
        "layer conv: dilation must be two whole numbers from 1 to 65536, not 2",
    ),
    (
        conv,
        {"attributes": {"groups": 3}},
        "layer conv: groups must be a whole number that divides the 4 outputs, not 3",
    ),
    (
        conv,
        {"inputs": np.ones((1, 3, 8, 8), np.float32)},
        "layer conv: inputs must be (batch, 2, height, width) to meet weight (4, 2, 3, 3), not (1, 3, 8, 8)",
    ),
    (
        conv,
        {"attributes": {"dilation": (1, 4)}},
        "layer conv: the kernel must fit the padded input, and needs 9 of 8 cells",
    ),
    (
        linear,
        {"pattern": Pattern("n:m", n=1, m=2, axis=2)},
        "layer fc1: 1:2 groups must lie along an axis of the weight, not 2: its shape is (2, 3)",
    ),
    (
        linear,
        {"pattern": Pattern("n:m", n=1, m=3, axis=1)},
        "layer fc1: weight must keep 1:3 along axis 1, and group 0 of row (0,) has 2 nonzeros; prune it again",
    ),
    (
        linear,
        {
            "weight": np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]], np.float32),
            "pattern": Pattern("balanced", pe_count=2, scope="pe"),
        },
        "layer fc1: balanced over 2 PEs, each pe must keep a share of 0.75 to within one weight, "
        "and PE 0 keeps 3 of 6; prune it again",
    ),
    (
        linear,
        {
            "weight": np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.float32),
            "pattern": Pattern("balanced", pe_count=2, scope="pe-column"),
        },
        "layer fc1: balanced over 2 PEs, each pe-column must keep a share of 0.5 to within one weight, "
        "and PE 0 in column 0 keeps 3 of 3; prune it again",
    ),
    (
        linear,
        {"pattern": Pattern("block", block=(2, 1))},
        "layer fc1: tiles of (2, 1) must be kept or pruned whole, and tile (0, 0) keeps 1 of 2 weights; "
        "give the mask, or prune it again",
    ),
]


@pytest.mark.parametrize(
    ("make", "changes", "message"), WRONG_LAYERS, ids=lambda v: None if callable(v) else str(v)[:60]
)
def test_a_layer_that_breaks_a_rule_is_refused(make, changes, message):
    with pytest.raises(InputError) as error:
        make(**changes)
    assert str(error.value) == message


WRONG_PATTERNS = [
    (
        {"kind": "n-m"},
        "pattern kind must be one of dense, unstructured, n:m, balanced, block, kernel-pattern, not 'n-m'",
    ),
    ({"kind": "n:m", "n": 2, "m": 4}, "pattern n:m needs axis, and has None"),
    ({"kind": "dense", "n": 2}, "pattern dense takes no n, and has 2"),
    (
        {"kind": "n:m", "n": 5, "m": 4, "axis": 0},
        "pattern n:m needs 0 < n <= m and axis >= 0, not 5:4 on axis 0",
    ),
    ({"kind": "n:m", "n": 2.5, "m": 4, "axis": 0}, "pattern n:m: n must be a whole number, not 2.5"),
    (
        {"kind": "balanced", "pe_count": 0, "scope": "pe"},
        "pattern balanced needs pe_count >= 1 and scope pe or pe-column, not 0 and 'pe'",
    ),
    (
        {"kind": "balanced", "pe_count": 4, "scope": "row"},
        "pattern balanced needs pe_count >= 1 and scope pe or pe-column, not 4 and 'row'",
    ),
    (
        {"kind": "balanced", "pe_count": "4", "scope": "pe"},
        "pattern balanced: pe_count must be a whole number, not '4'",
    ),
    ({"kind": "block", "block": (2, 0)}, "pattern block needs two whole sides of at least 1, not (2, 0)"),
    ({"kind": "block", "block": 2}, "pattern block needs two whole sides of at least 1, not 2"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_PATTERNS)
def test_a_pattern_that_breaks_a_rule_is_refused(fields, message):
    with pytest.raises(InputError) as error:
        Pattern(**fields)
    assert str(error.value) == message


def test_patterns_hold_for_weights_pruned_to_them():
    two_of_four = np.array([[1, 0, 0, 2, 0, 0, 0, 0], [0, 1, 1, 0, 3, 0, 4, 0]], np.float32)
    Pattern("n:m", n=2, m=4, axis=1).check(two_of_four, "here")
    Pattern("n:m", n=2, m=2, axis=0).check(two_of_four, "here")
    Pattern("balanced", pe_count=2, scope="pe").check(two_of_four, "here")
    Pattern("balanced", pe_count=64, scope="pe-column").check(two_of_four, "here")
    Pattern("block", block=(2, 3)).check(np.array([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]), "here")


def test_a_block_of_any_size_is_checked_without_making_one_of_that_size():
    Pattern("block", block=(10**12, 10**12)).check(np.ones((3, 2)), "here")
    with pytest.raises(InputError, match="tile \\(0, 0\\) keeps 3 of 6 weights"):
        Pattern("block", block=(10**12, 10**12)).check(np.array([[1, 0], [1, 0], [1, 0]]), "here")


def test_a_mask_says_what_a_pattern_keeps_even_where_a_kept_weight_is_zero():
    mask = np.array([[True, True, True], [False, False, False]])
    weight = np.array([[1, 0, 2], [0, 0, 0]], np.float32)
    assert linear(weight=weight, mask=mask, pattern=Pattern("block", block=(1, 3))).nonzeros == 2


def test_every_share_rounded_per_pe_counts_as_balanced():
    rng = np.random.default_rng(0)
    for case in range(200):
        rows, cols, pes = (int(n) for n in rng.integers(1, 12, 3))
        density = rng.random()
        for scope in ("pe", "pe-column"):
            kept = np.zeros((rows, cols), np.float32)
            for pe in range(min(pes, rows)):
                mine = kept[pe::pes]
                for slot in [mine.reshape(-1)] if scope == "pe" else [mine[:, col] for col in range(cols)]:
                    slot[: round(density * slot.size)] = 1
                    if scope == "pe":
                        kept[pe::pes] = slot.reshape(mine.shape)
            Pattern("balanced", pe_count=pes, scope=scope).check(kept, f"case {case}")


def test_codes_become_a_weight_when_asked_for():
    layer = coded()
    assert "weight" not in layer.__dict__
    np.testing.assert_array_equal(layer.weight, [[-1.5, 0, 2], [0, 0, -1.5]])
    assert layer.array("weight") is None
    assert not layer.weight.flags.writeable
    assert (layer.nonzeros, layer.shape, layer.has_bias) == (3, (2, 3), False)
    assert layer.sparsity == 0.5


def test_a_layer_does_not_change_with_the_array_it_was_made_from():
    weight = WEIGHT.copy()
    layer = linear(weight=weight)
    weight[0, 0] = 9
    assert layer.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 9
    assert linear(weight=layer.weight).weight is layer.weight


def test_a_convolution_has_every_attribute_as_a_pair_of_numbers():
    assert conv().attributes == DEFAULTS["conv2d"]
    assert conv(attributes={"stride": [2, 1]}).attributes["stride"] == (2, 1)


def test_layers_survive_the_trip_to_another_process():
    for layer in (linear(), coded(bias_codes=CODES[:, 0]), conv()):
        trace = Trace(name="t", layers=(layer,))
        assert pickle.loads(pickle.dumps(trace)).sha256 == trace.sha256


WRONG_TRACES = [
    ({"name": ""}, "trace name must be a nonempty string of printable characters, not ''"),
    ({"layers": ()}, "trace net: at least one layer is needed, not 0"),
    (
        {"layers": (linear(), linear())},
        "trace net: layer names must differ, and 'fc1' occurs twice; rename one",
    ),
    ({"provenance": [1]}, "trace net: provenance must be a dict, not list"),
    (
        {"provenance": {"recipe": {"rates": [1.0, float("nan")]}}},
        "trace net: provenance.recipe.rates[1] must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not nan",
    ),
    (
        {"provenance": {"when": np.float32(1)}},
        "trace net: provenance.when must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not np.float32(1.0)",
    ),
    (
        {"provenance": {"seed": 2**64}},
        "trace net: provenance.seed must be plain JSON data (finite numbers, text, lists, dicts by name), "
        "not 18446744073709551616",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_TRACES)
def test_a_trace_that_breaks_a_rule_is_refused(changes, message):
    with pytest.raises(InputError) as error:
        Trace(**{"name": "net", "layers": (linear(),)} | changes)
    assert str(error.value) == message


def test_the_hash_tells_all_that_differs_and_nothing_that_does_not():
    def trace(layer, **changes):
        return Trace(**{"name": "net", "layers": (layer,), "provenance": {"a": 1, "b": (2, 3)}} | changes)

    same = [
        trace(linear()),
        trace(linear(), provenance={"b": [2, 3], "a": 1}),
        trace(linear(weight=np.asfortranarray(WEIGHT))),
        trace(linear(weight=np.where(WEIGHT == 0, np.float32(-0.0), WEIGHT))),
    ]
    assert len({t.sha256 for t in same}) == 1
    others = [
        same[0],
        trace(linear(name="fc2")),
        trace(linear(), name="other"),
        trace(linear(), provenance={}),
        trace(linear(weight=WEIGHT * 2)),
        trace(linear(inputs=INPUTS * 2)),
        trace(linear(inputs=INPUTS.reshape(1, 1, 3))),
        trace(linear(bias=np.zeros(2, np.float32))),
        trace(linear(mask=WEIGHT != 0)),
        trace(linear(pattern=Pattern("dense"))),
        trace(coded()),
        trace(conv()),
        trace(conv(attributes={"stride": (2, 1)})),
    ]
    assert len({t.sha256 for t in others}) == len(others)


def test_a_trace_and_its_layers_are_frozen():
    trace = Trace(name="net", layers=[linear()])
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.layers[0].name = "other"
    assert trace.sparsity == 0.5
