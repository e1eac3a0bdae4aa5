"""What a small model says with strings, patterns, trees and sequences is refused before it takes time or memory."""

import sys

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.drawn import Draw

pytest.importorskip("onnx", reason="the extra onnx is not installed")
from onnx import TensorProto, helper, numpy_helper

from gossamer.workloads.importers import onnx_costs
from gossamer.workloads.importers.onnx import trace_of_onnx
from gossamer.workloads.importers.onnx_graph import read_model, values

from .onnx_models import W, X, drawn, node, save

ML = "ai.onnx.ml"
HOW = (
    "the model must run on these samples in onnx's reference evaluator, and does not ({}); pip install onnxruntime, "
    "which runs more models"
)


def strings(*each):
    return np.array(each, dtype=object)


def model(tmp_path, nodes, weights, opset=22, **given):
    """Write a model of a layer, and of ``nodes`` beside it."""
    made = [node("MatMul", "x fc.weight"), *nodes]
    return save(tmp_path, made, {"fc.weight": W.T.copy()} | weights, {"x": [3, 8]}, opset=opset, **given)


def refused(tmp_path, nodes, weights, opset=22):
    path = model(tmp_path, nodes, weights, opset)
    with pytest.raises(InputError) as told:
        trace_of_onnx(path, X)
    assert str(told.value).startswith(f"{path}: ")
    return str(told.value).removeprefix(f"{path}: ")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(onnx_costs, "ALWAYS", 100)
    monkeypatch.setattr(onnx_costs, "TEXT_EACH", 1)


LONG = strings("a" * 300, *["b"] * 99)  # 399 characters that would be 30,000


def wide(what, most, width):
    return (
        f"{what}: strings, each as wide as the longest, must come to at most {most} characters, not {width}; "
        "shorten the longest"
    )


@pytest.mark.parametrize("kind", ["StringSplit", "StringNormalizer", "Identity"])
def test_strings_of_a_tensor_are_not_padded_to_a_longest_that_few_have(tmp_path, narrow, kind):
    reads = node(kind, "s", "o p" if kind == "StringSplit" else "o")
    assert refused(tmp_path, [reads], {"s": LONG}) == wide("tensor s", 499, 30_000)


def test_nor_are_those_of_constants_and_of_inner_graphs(tmp_path, narrow):
    listed = helper.make_node("Constant", [], ["o"], name="k", value_strings=LONG.tolist())
    assert refused(tmp_path, [listed], {}) == wide("operator Constant k, value_strings", 499, 30_000)
    whole = helper.make_node("Constant", [], ["o"], value=numpy_helper.from_array(LONG, "t"))
    assert refused(tmp_path, [whole], {}) == wide("tensor t", 499, 30_000)
    body = helper.make_graph([whole], "b", [], [helper.make_tensor_value_info("o", TensorProto.STRING, None)])
    inner = node("If", "yes", "o", then_branch=body, else_branch=body)
    assert refused(tmp_path, [inner], {"yes": np.array(True)}) == wide("tensor t", 898, 30_000)


def test_many_tensors_that_are_just_narrow_enough_are_too_much_together(tmp_path, narrow):
    some = {f"s{i}": strings("a" * 10, *["b"] * 30) for i in range(40)}  # 310 wide with 40 there, so 1,700 in all
    assert refused(tmp_path, [], some) == (
        "strings of the model, those of a tensor each as wide as its longest, must come to at most 6800 characters, "
        "and come to more; shorten the longest"
    )


@pytest.mark.parametrize(
    ("made", "weights", "width"),
    [
        (node("StringConcat", "s t", "o", "join"), {"s": strings("a" * 30), "t": strings(*"b" * 9)}, 9 * 31),
        (node("Expand", "s n", "o", "grow"), {"s": strings("a" * 30), "n": np.array([9])}, 9 * 30),
        (node("StringSplit", "s", "o p", "cut"), {"s": strings("a b", "c")[:, None]}, 2 * 4 * 3 * 8),
        (node("Cast", "n", "o", "text", to=TensorProto.STRING), {"n": np.ones(9)}, 9 * 32),
    ],
    ids=["joined", "repeated", "split", "numbers"],
)
def test_strings_that_operators_make_are_bounded(tmp_path, narrow, made, weights, width):
    if made.op_type == "StringSplit":
        weights = {"s": np.tile(weights["s"], (1, 8))}
    there = sum(len(each) for value in weights.values() if value.dtype == object for each in value.flat)
    what = f"operator {made.op_type} {made.name}"
    assert refused(tmp_path, [made], weights) == wide(what, 100 + there, width)


@pytest.mark.parametrize(
    "longest", [{"values_strings": ["v" * 40]}, {"values_strings": ["v"], "default_string": "d" * 40}]
)
def test_labels_are_bounded(tmp_path, narrow, longest):
    made = helper.make_node("LabelEncoder", ["n"], ["o"], name="labels", domain=ML, keys_int64s=[1], **longest)
    most = 100 + len(longest["values_strings"][0])
    assert refused(tmp_path, [made], {"n": np.arange(9)}) == wide("operator LabelEncoder labels", most, 9 * 40)


def test_a_string_that_doubles_in_every_round_comes_to_an_end(tmp_path, narrow):
    info = helper.make_tensor_value_info
    given = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("s", TensorProto.STRING, None)]
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("StringConcat", "s s", "t", "twice")], "b", given,
        [info("on", TensorProto.BOOL, []), info("t", TensorProto.STRING, None)],
    )  # fmt: skip
    loop = node("Loop", "n yes s0", "o", body=body)
    said = refused(tmp_path, [loop], {"n": np.array(60), "yes": np.array(True), "s0": strings("ab")})
    assert said == wide("operator StringConcat twice", 102, 128)


def test_strings_of_an_ordinary_size_are_computed(tmp_path):
    nodes = [
        node("StringNormalizer", "s", "low", case_change_action="LOWER", locale="xx_XX"),
        node("StringConcat", "low t", "both"),
        node("StringSplit", "both", "parts counts", delimiter=" "),
    ]
    path = model(tmp_path, nodes, {"s": strings("A", "B C"), "t": strings("!", " d")})
    found = values(read_model(path), {"x": X})
    assert found["parts"].tolist() == [["a!", "", ""], ["b", "c", "d"]]
    assert found["counts"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (node("RegexFullMatch", "s", "o", "match", pattern="(a+)+$"), "a short pattern may take any time"),
        (node("ImageDecoder", "b", "o", "match"), "a small picture may stand for one of any size"),
        (
            helper.make_node(
                "TreeEnsembleRegressor", ["f"], ["o"], name="match", domain=ML, nodes_treeids=[0], nodes_nodeids=[0],
                nodes_featureids=[0], nodes_modes=["BRANCH_LEQ"], nodes_values=[0.0], nodes_truenodeids=[0],
                nodes_falsenodeids=[0], nodes_missing_value_tracks_true=[0], target_treeids=[0], target_nodeids=[0],
                target_ids=[0], target_weights=[1.0], n_targets=1,
            ),
            "trees may lead round in circles",
        ),
    ],
    ids=["pattern", "picture", "tree"],
)  # fmt: skip
def test_operators_that_nothing_bounds_are_not_computed(tmp_path, made, why):
    weights = {"s": strings("a" * 40 + "b"), "b": np.zeros(4, np.uint8), "f": np.zeros((1, 1), np.float32)}
    assert refused(tmp_path, [made], weights) == HOW.format(f"operator {made.op_type} match: is not computed, as {why}")
    trace = trace_of_onnx(model(tmp_path, [made], weights), None, draw=Draw(act_density=1.0))
    beside = {} if made.domain else {made.op_type: 1}  # and without samples nothing needs it
    assert trace.provenance.get("operators_beside", {}) == beside


def test_nor_are_they_within_a_loop(tmp_path):
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("RegexFullMatch", "s", "t", "match", pattern="(a+)+$")], "b",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, [])],
        [info("on", TensorProto.BOOL, []), info("t", TensorProto.BOOL, None)],
    )  # fmt: skip
    weights = {"n": np.array(1), "yes": np.array(True), "s": strings("a" * 40 + "b")}
    why = "operator RegexFullMatch match: is not computed, as a short pattern may take any time"
    assert refused(tmp_path, [node("Loop", "n yes", "o", body=body)], weights) == HOW.format(why)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("ngram_counts", [0, 10**12], "0 to 2"),
        ("ngram_indexes", [10**10], "below 2^26"),
        ("max_skip_count", 2**40, "0 to 65536"),
    ],
)
def test_grams_are_bounded_before_their_table_is_made(tmp_path, name, value, rule):
    attributes = {"ngram_counts": [0, 0], "ngram_indexes": [0], "max_skip_count": 0} | {name: value}
    grams = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "pool_int64s": [0, 1]}
    made = node("TfIdfVectorizer", "n", "o", "grams", **grams, **attributes)
    said = refused(tmp_path, [made], {"n": np.array([0, 1])})
    assert said == f"operator TfIdfVectorizer grams: {name} must be {rule}, not {value}"


def test_as_many_parts_are_split_off_as_there_are_outputs(tmp_path):
    said = refused(tmp_path, [node("Split", "x", "o", "cut", num_outputs=10**9)], {})
    assert said == "operator Split cut: num_outputs must be its 1 outputs, not 1000000000"


def test_long_lists_are_not_followed_number_by_number_before_they_are_bounded(tmp_path):
    nodes = [node("Expand", "one n", "a", "grow"), node("Cast", "a", "o", to=TensorProto.INT64)]
    said = refused(tmp_path, nodes, {"one": np.float32(1), "n": np.array([10**9])})
    assert said.startswith("operator Expand grow: an array must come to at most ")
    assert said.endswith(" numbers, and would be (1000000000,)")


RESIZE = helper.make_node("Resize", ["a", "", "", "n"], ["o"], "much", mode="linear")
MANY, PAIR = np.array([10**9]), np.array([1, 1])


@pytest.mark.parametrize(
    ("made", "weights", "opset"),
    [
        (node("LSTM", "a w r", "o", "much", hidden_size=1), {"a": (2**21, 1, 1), "w": (1, 4, 1), "r": (1, 4, 1)}, 22),
        (node("GridSample", "p a", "o", "much"), {"p": (1, 1, 2, 2), "a": (1, 700, 700, 2)}, 22),
        (node("RoiAlign", "p r b", "o", "much", output_height=1, output_width=1, sampling_ratio=1000),
         {"p": (1, 99, 2, 2), "r": np.ones((1, 4), np.float32), "b": np.zeros(1, np.int64)}, 22),
        (node("NonMaxSuppression", "p s k", "o", "much"), {"p": (1, 10**4, 4), "s": (1, 1, 10**4), "k": MANY}, 22),
        (node("Col2Im", "p n k", "o", "much", pads=[65536] * 4), {"p": (1, 1, 4), "n": 9 * PAIR, "k": PAIR}, 22),
        (node("DeformConv", "p w d", "o", "much", pads=[400] * 4),
         {"p": (1, 1, 3, 3), "w": (1, 1, 3, 3), "d": (1, 18, 801, 801)}, 22),
        (RESIZE, {"a": (1, 1, 1, 3), "n": np.array([1, 1, 1, 2**22])}, 22),
    ],
    ids=["steps", "samples", "ratio", "boxes", "columns", "deformed", "resized"],
)  # fmt: skip
def test_loops_of_the_evaluator_take_a_known_time(tmp_path, made, weights, opset):
    nodes = []
    for name, what in list(weights.items()):
        if isinstance(what, tuple):  # so long that it would not lie in a file
            nodes.append(node("Expand", f"one {name}_shape", name))
            weights = {key: value for key, value in weights.items() if key != name} | {f"{name}_shape": np.array(what)}
    said = refused(tmp_path, [*nodes, made], {"one": np.float32(1)} | weights, opset)
    told, _, rest = said.partition("takes about ")
    assert told.endswith(f"and does not (operator {made.op_type} much: ")
    seconds, _, rest = rest.partition(" s in its own loops, of 20 s for all operators")
    assert float(seconds) >= 20
    assert rest == "); pip install onnxruntime, which runs more models"


@pytest.mark.parametrize(
    ("made", "shape", "holds"),
    [
        (node("SplitToSequence", "a", "o", "much"), (10**7,), (64, 10**7)),
        (node("NonMaxSuppression", "boxes a", "o", "much"), (1, 1, 10**7), (64, 10**7)),
        (node("Attention", "a a a", "o", "much"), (1, 1, 60000, 8), (4, 1, 1, 60000, 60000)),
        (node("Attention", "a a a", "o", "much", q_num_heads=2, kv_num_heads=2), (1, 9000, 8), (4, 1, 2, 9000, 9000)),
        (node("NonZero", "a", "o", "much"), (10**5, 100, 1, 1, 1), (2, 5, 10**7)),
        (node("TopK", "a one_more", "o p", "much", axis=0), (10**5, 100, 1, 1, 1), (10, 10**5, 100, 1, 1, 1)),
        (RESIZE, (1, 1, 1, 60000), (2, 1, 1, 60000, 60000)),
        (node("Conv", "a k", "o", "much"), (1, 1, 3000, 3000), (1, 1, 8, 8, 2993, 2993)),
        (node("MaxUnpool", "a i", "o", "much", kernel_shape=PAIR, strides=[60000] * 2), (1,) * 4, (1, 1, 60001, 60001)),
    ],
    ids=["parts", "boxes", "scores", "scores of heads", "places", "order", "one side first", "windows", "unpooled"],
)  # fmt: skip
def test_what_an_operator_holds_on_the_way_is_bounded(tmp_path, made, shape, holds):
    grow = node("Expand", "one n0", "a")
    weights = {"one": np.float32(1), "n0": np.array(shape), "one_more": np.array([1]), "n": np.array([1, 1, 60000, 1]),
               "k": drawn(1, 1, 8, 8), "i": np.zeros((1, 1, 1, 1), np.int64), "boxes": drawn(1, 1, 4)}  # fmt: skip
    said = refused(tmp_path, [grow, made], weights, 24)
    told, _, rest = said.partition(": an array must come to at most ")
    assert told == f"operator {made.op_type} much"
    assert rest.partition(" numbers, and would be ")[2] == str(holds)


@pytest.mark.parametrize("kind", ["EyeLike", "Trilu"])
def test_a_matrix_is_not_made_of_a_list(tmp_path, kind):
    said = refused(tmp_path, [node("Expand", "one n", "a"), node(kind, "a", "o", "much")],
                   {"one": np.float32(1), "n": np.array([60000])})  # fmt: skip
    assert said.startswith(f"operator {kind} much: what it is given must fit together, and does not (")


def test_what_does_not_fit_and_still_spreads_out_is_bounded(tmp_path):
    grown = [node("Expand", "one n", "a"), node("Expand", "one m", "b")]
    made = node("BatchNormalization", "a b b b b", "o", "much")
    said = refused(tmp_path, [*grown, made], {"one": np.float32(1), "n": np.array([60000, 1]), "m": np.array([60001])})
    assert said.startswith("operator BatchNormalization much: an array must come to at most ")
    assert said.endswith(" numbers, and would be (60000, 60001)")


@pytest.mark.parametrize("region", [[0, 0, 1e8, 1e8], [0, 0, np.inf, 1], [0, 0, np.nan, 1]])
def test_a_grid_as_large_as_its_region_is_bounded(tmp_path, region):
    made = node("RoiAlign", "p r b", "o", "much", output_height=1, output_width=1)
    weights = {"p": drawn(1, 1, 2, 2), "r": np.array([region], np.float32), "b": np.zeros(1, np.int64)}
    told, _, rest = refused(tmp_path, [made], weights).partition(": an array must come to at most ")
    assert told == "operator RoiAlign much"
    assert rest.endswith(f" numbers, and would be (64, {2**31})")


def test_an_array_named_many_times_in_a_sequence_counts_as_often(tmp_path):
    nodes = [node("Expand", "one n", "a"), node("SequenceConstruct", " ".join(["a"] * 1000), "q"),
             node("ConcatFromSequence", "q", "o", "join", axis=0)]  # fmt: skip
    said = refused(tmp_path, nodes, {"one": np.float32(1), "n": np.array([10**6])})
    assert said.startswith("operator ConcatFromSequence join: an array must come to at most ")
    assert said.endswith(" numbers, and would be (1000000000,)")


@pytest.mark.parametrize("inputs", ["n yes x", " yes x"], ids=["counted", "endless"])
def test_rounds_without_an_operator_are_counted_too(tmp_path, monkeypatch, inputs):
    monkeypatch.setattr("gossamer.workloads.importers.onnx_bounds.STEPS_LIMIT", 500)
    info = helper.make_tensor_value_info
    given = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, None)]
    body = helper.make_graph([], "b", given, given[1:])
    made = helper.make_node("Loop", inputs.split(" "), ["o"], body=body)
    said = refused(tmp_path, [made], {"n": np.array(2**40), "yes": np.array(True)})
    assert said == "at most 500 operators may run, rounds of loops counted, and more do"


def test_what_every_round_gives_is_counted(tmp_path):
    info = helper.make_tensor_value_info
    given = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, None)]
    body = helper.make_graph([], "b", given, [*given[1:], info("a", TensorProto.FLOAT, None)])
    nodes = [node("Expand", "one big", "a"), node("Loop", "n yes x", "o p", body=body)]
    weights = {"one": np.float32(1), "big": np.array([10**6]), "n": np.array(60000), "yes": np.array(True)}
    assert refused(tmp_path, nodes, weights) == "all arrays together must come to at most 4 x 67186688 numbers"
