"""A small model that would run on and on, or fill the memory, is refused before it does."""

import numpy as np
import pytest

from gossamer.workloads.errors import InputError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from gossamer.workloads.importers.onnx import trace_of_onnx  # noqa: E402

KERNEL = np.ones((2, 1, 3, 3), np.float32)
SAMPLES = np.ones((1, 1, 6, 6), np.float32)


def value(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def refused(tmp_path, nodes, functions=(), **given):
    """Write a model of ``nodes`` that make h of x, and a convolution behind them; return why it is refused."""
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in {"c": KERNEL, **given}.items()]
    nodes = [*nodes, helper.make_node("Conv", ["h", "c"], ["y"], name="conv", kernel_shape=[3, 3])]
    graph = helper.make_graph(nodes, "net", [value("x", [1, 1, 6, 6])], [value("y")], constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as caught:
        trace_of_onnx(path, SAMPLES)
    return str(caught.value).removeprefix(f"{path}: ")


def loop(inputs, body, out):
    """Return a loop that hands a state through ``body``, from s to ``out``."""
    nodes = [helper.make_node("Identity", ["go"], ["on"]), *body]
    given = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("s")]
    graph = helper.make_graph(nodes, "body", given, [value("on", [], TensorProto.BOOL), value(out)])
    return helper.make_node("Loop", inputs, ["h"], name="loop", body=graph)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr("gossamer.workloads.importers.onnx_bounds.STEPS_LIMIT", 500)


RELU = helper.make_node("Relu", ["s"], ["t"], name="relu")


@pytest.mark.parametrize("inputs", [["rounds", "yes", "x"], ["", "yes", "x"]], ids=["counted", "endless"])
def test_a_loop_ends_when_too_many_operators_have_run(tmp_path, few, inputs):
    said = refused(tmp_path, [loop(inputs, [RELU], "t")], rounds=np.int64(2**40), yes=np.array(True))
    assert said.endswith("at most 500 operators may run, rounds of loops counted, and more do")


def test_loops_within_loops_are_counted_together(tmp_path, few):
    inner = loop(["rounds", "yes", "s"], [helper.make_node("Relu", ["s"], ["t"])], "t")
    inner.output[0] = "u"
    said = refused(tmp_path, [loop(["rounds", "yes", "x"], [inner], "u")], rounds=np.int64(20), yes=np.array(True))
    assert said.endswith("at most 500 operators may run, rounds of loops counted, and more do")


def test_a_scan_is_held_to_the_same(tmp_path, few):
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"])], "body", [value("s"), value("e")], [value("t")]
    )
    long = helper.make_node("Expand", ["zero", "length"], ["steps"])
    scan = helper.make_node("Scan", ["x", "steps"], ["h"], name="scan", num_scan_inputs=1, body=body)
    said = refused(tmp_path, [long, scan], zero=np.float32(0), length=np.array([2**20]))
    assert said.endswith("at most 500 operators may run, rounds of loops counted, and more do")


def test_a_state_that_doubles_in_every_round_comes_to_an_end(tmp_path):
    double = helper.make_node("Concat", ["s", "s"], ["t"], name="double", axis=0)
    said = refused(tmp_path, [loop(["rounds", "yes", "x"], [double], "t")], rounds=np.int64(64), yes=np.array(True))
    assert said == (
        "operator Concat double: an array must come to at most 67166208 numbers, and would be (2097152, 1, 6, 6)"
    )


def test_a_size_that_the_samples_lead_to_is_bounded_too(tmp_path):
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["n"], keepdims=0),  # 36
        helper.make_node("Pow", ["n", "ten"], ["m"]),
        helper.make_node("Cast", ["m"], ["k"], to=TensorProto.INT64),
        helper.make_node("Concat", ["one", "one", "k1"], ["short"], axis=0),
        helper.make_node("Unsqueeze", ["k", "axis"], ["k1"]),
        helper.make_node("Concat", ["one", "one", "k1", "k1"], ["size"], axis=0),
        helper.make_node("Expand", ["x0", "size"], ["h"], name="grow"),
    ]
    nodes[3], nodes[4] = nodes[4], nodes[3]
    said = refused(
        tmp_path, nodes, ten=np.float32(3), one=np.array([1]), axis=np.array([0]), x0=np.ones((1, 1, 1, 1), np.float32)
    )
    assert said == (
        "operator Expand grow: an array must come to at most 67168256 numbers, and would be (1, 1, 46656, 46656)"
    )


def test_what_a_size_is_given_must_fit(tmp_path):
    said = refused(
        tmp_path, [helper.make_node("Expand", ["x", "size"], ["h"], name="grow")], size=np.array([7, 7, 7, 7])
    )
    assert said.startswith(("operator Expand grow: what it is given must fit together", "the shapes of the model must"))


def test_many_arrays_of_the_largest_size_are_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("gossamer.workloads.importers.onnx_bounds.room", lambda numbers: 1000)
    nodes = [helper.make_node("Expand", ["one", "size"], [f"a{i}"], name=f"a{i}") for i in range(5)]
    nodes.append(helper.make_node("Relu", ["x"], ["h"]))
    said = refused(tmp_path, nodes, one=np.ones((1, 1, 1, 1), np.float32), size=np.array([1, 1, 30, 30]))
    assert said == "operator Expand a4: all arrays together must come to at most 4 x 1000 numbers"


@pytest.mark.parametrize("name", ["pads", "strides", "dilations"])
def test_attributes_are_bounded(tmp_path, name):
    numbers = [2**20, 0, 2**20, 0] if name == "pads" else [2**20, 1]
    pool = helper.make_node("MaxPool", ["x"], ["h"], name="pool", kernel_shape=[1, 1], **{name: numbers})
    assert refused(tmp_path, [pool]) == f"operator MaxPool pool: {name} must be at most 65536, not {numbers}"


@pytest.mark.parametrize(("name", "numbers"), [("kernel_shape", [2, 0]), ("strides", [4, -1]), ("dilations", [0, 1])])
def test_windows_have_a_size_and_move(tmp_path, name, numbers):
    pool = helper.make_node("MaxPool", ["x"], ["h"], name="pool", **{"kernel_shape": [1, 1], name: numbers})
    assert refused(tmp_path, [pool]) == f"operator MaxPool pool: {name} must be at least 1, not {numbers}"


def test_a_window_fits_its_input(tmp_path):
    pool = helper.make_node("MaxPool", ["x"], ["h"], name="pool", kernel_shape=[2, 60000])
    said = refused(tmp_path, [pool])
    assert said == "operator MaxPool pool: an output must have sides of 0 or more, and would be (1, 1, 5, -59993)"


def test_windows_of_a_pooling_are_bounded(tmp_path):
    pool = helper.make_node(
        "AveragePool", ["x"], ["h"], name="pool", kernel_shape=[6000, 6000], pads=[3000] * 4, count_include_pad=1
    )
    said = refused(tmp_path, [pool])
    assert said.startswith("operator AveragePool pool: windows must hold at most ")
    assert said.endswith("numbers in all, not 36000000 for each of 49 outputs")


def test_multiplications_are_bounded(tmp_path):
    big = helper.make_node("Expand", ["one", "size"], ["a"])
    square = helper.make_node("MatMul", ["a", "a"], ["b"], name="square")
    said = refused(
        tmp_path, [big, square, helper.make_node("Relu", ["x"], ["h"])], one=np.float32(1), size=np.array([8000, 8000])
    )
    assert (
        said == "operator MatMul square: the model must take fewer multiply-adds than its weights and samples explain"
    )
    sums = helper.make_node("Einsum", ["v"] * 6, ["b"], name="sum", equation="a,b,c,d,e,f->")
    said = refused(tmp_path, [sums, helper.make_node("Relu", ["x"], ["h"])], v=np.ones(1000, np.float32))
    assert said == "operator Einsum sum: the model must take fewer multiply-adds than its weights and samples explain"


def test_a_convolution_padded_on_one_side_only_is_bounded(tmp_path):
    path = tmp_path / "net.onnx"
    conv = helper.make_node("Conv", ["x", "c"], ["y"], name="conv", pads=[0, 0, 60000, 60000], strides=[60000, 60000])
    graph = helper.make_graph(
        [conv], "net", [value("x", [1, 1, 6, 6])], [value("y")], [numpy_helper.from_array(KERNEL, "c")]
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    with pytest.raises(InputError) as caught:
        trace_of_onnx(path, SAMPLES)
    assert str(caught.value) == (
        f"{path}: operator Conv conv: inputs and padding must come to at most 67145728 numbers, and would be "
        "(1, 1, 60006, 60006)"
    )


def test_functions_that_double_at_each_level_are_not_put_in_place(tmp_path):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]

    def function(name, inner, domain):
        twice = [
            helper.make_node(inner, ["a"], ["b"], domain=domain),
            helper.make_node(inner, ["b"], ["c"], domain=domain),
        ]
        return helper.make_function("mine", name, ["a"], ["c"], twice, imports)

    ladder = [function("f0", "Relu", "")] + [function(f"f{i}", f"f{i - 1}", "mine") for i in range(1, 40)]
    said = refused(tmp_path, [helper.make_node("f39", ["x"], ["h"], domain="mine")], ladder)
    assert said == f"the model must come to at most 65536 operators, functions in place, not {2**40 + 1}"
    said = refused(tmp_path, [helper.make_node("g", ["x"], ["h"], domain="mine")], [function("g", "g", "mine")])
    assert said == "functions must not call themselves, and 'g' does"
