import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.errors import InputError
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.importers import import_model, notes_of
from gossamer.workloads.patterns import Pattern

pytest.importorskip("onnx", reason="the extra onnx is not installed")
from onnx import TensorProto, helper, numpy_helper

from gossamer.workloads.importers.onnx import trace_of_onnx

from .onnx_models import RNG, B, W, X, drawn, node, product, save


@pytest.mark.parametrize(
    ("made", "weights"),
    [
        (node("Gemm", "x fc.weight fc.bias", transB=1), {"fc.weight": W, "fc.bias": B}),
        (node("Gemm", "x fc.weight fc.bias"), {"fc.weight": W.T.copy(), "fc.bias": B[None]}),
        (node("Gemm", "x fc.weight fc.bias", transB=1, alpha=0.5, beta=2.0), {"fc.weight": W * 2, "fc.bias": B / 2}),
        (node("MatMul", "x fc.weight"), {"fc.weight": W.T.copy()}),
    ],
    ids=["transposed", "as it is", "scaled", "matmul"],
)
def test_a_product_with_a_constant_matrix_is_a_linear_layer(tmp_path, made, weights):
    (layer,) = trace_of_onnx(save(tmp_path, [made], weights, {"x": [None, 8]}), X).layers
    assert (layer.name, layer.op, layer.pattern) == ("fc", "linear", Pattern("dense"))
    np.testing.assert_allclose(layer.weight, W, rtol=1e-6)
    np.testing.assert_array_equal(layer.inputs, X)
    if made.op_type == "Gemm":
        np.testing.assert_allclose(layer.bias, B, rtol=1e-6)


@pytest.mark.parametrize("flip", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_matrix_may_stand_on_the_left(tmp_path, flip):
    weight = W.T.copy() if flip[0] else W
    path = save(
        tmp_path, [node("Gemm", "fc.weight x", transA=flip[0], transB=flip[1])], {"fc.weight": weight}, {"x": None}
    )
    (layer,) = trace_of_onnx(path, X if flip[1] else X.T.copy()).layers
    np.testing.assert_array_equal(layer.weight, W)
    np.testing.assert_array_equal(layer.inputs, X)
    path = save(tmp_path, [node("MatMul", "fc.weight x")], {"fc.weight": W}, {"x": None})
    (layer,) = trace_of_onnx(path, drawn(2, 8, 5)).layers
    assert layer.inputs.shape == (2, 5, 8)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("weight", [(8,), (6, 8)], ids=["vector", "matrix"])
@pytest.mark.parametrize("given", [(8,), (3, 8), (2, 3, 8)], ids=["vector", "matrix", "batch"])
@pytest.mark.parametrize("prune", [None, "2:4"])
def test_vectors_and_matrices_are_multiplied_on_either_side(tmp_path, side, weight, given, prune):
    array, x = drawn(*weight), drawn(*given)
    if side == "left":
        x = x if x.ndim == 1 else x.swapaxes(-1, -2)
    else:
        array = array.T.copy()
    path = save(tmp_path, [node("MatMul", "w x" if side == "left" else "x w")], {"w": array}, {"x": None})
    (layer,) = trace_of_onnx(path, x, prune=prune).layers
    kept = array if prune is None else (layer.weight if side == "left" else layer.weight.T).reshape(array.shape)
    wanted = kept @ x if side == "left" else x @ kept
    outputs = len(layer.weight)
    if side == "left" and len(weight) == 2 and len(given) > 1:
        wanted = wanted.swapaxes(-1, -2)  # a sample lies in a column
    assert (layer.shape, layer.inputs.shape[-1]) == ((6 if len(weight) == 2 else 1, 8), 8)
    np.testing.assert_allclose(product(layer).reshape(-1, outputs), wanted.reshape(-1, outputs), rtol=1e-4, atol=1e-5)


def test_a_bias_of_a_matrix_on_the_left_lies_in_a_column(tmp_path):
    nodes = [node("MatMul", "w x", "h"), node("Add", "h b")]
    (layer,) = trace_of_onnx(save(tmp_path, nodes, {"w": W, "b": B[:, None]}, {"x": [8, 3]}), X.T.copy()).layers
    np.testing.assert_array_equal(layer.bias, B)
    (layer,) = trace_of_onnx(save(tmp_path, nodes, {"w": W, "b": B}, {"x": [8]}), X[0].copy()).layers
    np.testing.assert_array_equal(layer.bias, B)
    (layer,) = trace_of_onnx(save(tmp_path, nodes, {"w": W, "b": B}, {"x": [8, 6]}), drawn(8, 6)).layers
    assert layer.bias is None  # one for each sample


def test_a_bias_that_is_added_next_belongs_to_the_layer(tmp_path):
    weights = {"a.weight": W.T.copy(), "a.bias": B, "b.weight": drawn(6, 6), "b.bias": drawn(6)}
    nodes = [node("MatMul", "x a.weight", "h"), node("Add", "a.bias h", "g"), node("MatMul", "g b.weight", "z")]
    nodes += [node("Add", "z b.bias"), node("Relu", "z", "other")]  # whose sum without the bias is used too
    layers = trace_of_onnx(save(tmp_path, nodes, weights, {"x": [3, 8]}, ("y", "other")), X).layers
    np.testing.assert_array_equal(layers[0].bias, B)
    assert layers[1].bias is None
    np.testing.assert_allclose(layers[1].inputs, product(layers[0]), rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(st.data())
def test_a_convolution_is_what_torch_computes(tmp_path_factory, data):
    sides = data.draw(st.sampled_from([1, 2]))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    kernel = data.draw(st.tuples(*[st.integers(1, 3)] * sides))
    stride = data.draw(st.tuples(*[st.integers(1, 3)] * sides))
    dilation = data.draw(st.tuples(*[st.integers(1, 2)] * sides))
    pads = data.draw(st.lists(st.integers(0, 2), min_size=2 * sides, max_size=2 * sides))
    auto = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto.startswith("SAME"):
        dilation = (1,) * sides
    size = [7, 9][:sides]
    weight, bias, x = drawn(8, 4 // groups, *kernel), drawn(8), drawn(2, 4, *size)
    attributes = {"strides": stride, "dilations": dilation, "group": groups}
    attributes |= {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    made = node("Conv", "x c.weight c.bias", **attributes)
    path = save(tmp_path_factory.mktemp("conv"), [made], {"c.weight": weight, "c.bias": bias}, {"x": None})
    (layer,) = trace_of_onnx(path, x).layers
    assert (layer.name, layer.op, layer.shape[-sides:]) == ("c", "conv2d", kernel)
    before, after = pads[:sides], pads[sides:]
    if auto == "VALID":
        before = after = [0] * sides
    elif auto != "NOTSET":
        whole = [max((-(-s // t) - 1) * t + k - s, 0) for s, t, k in zip(size, stride, kernel, strict=True)]
        before = [each // 2 if auto == "SAME_UPPER" else each - each // 2 for each in whole]
        after = [each - first for each, first in zip(whole, before, strict=True)]
    padding = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
    act = nn.functional.conv1d if sides == 1 else nn.functional.conv2d
    padded = nn.functional.pad(torch.from_numpy(x), padding)
    expected = act(padded, torch.from_numpy(weight), torch.from_numpy(bias), stride, 0, dilation, groups)
    rows = expected.movedim(1, -1).flatten(end_dim=-2)
    np.testing.assert_allclose(product(layer), rows, rtol=1e-4, atol=1e-4)


def test_products_of_activations_are_kept_where_asked_for_and_listed_elsewhere(tmp_path):
    nodes = [
        node("MatMul", "x q.weight", "q"),
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "s", name="/scores"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p x", name="/mix"),
    ]
    path = save(tmp_path, nodes, {"q.weight": drawn(8, 8)}, {"x": [2, 5, 8]})
    x = drawn(2, 5, 8)
    trace = trace_of_onnx(path, x)
    assert [layer.name for layer in trace.layers] == ["q"]
    assert notes_of(trace) == [
        "not simulated, a product of activations: /scores, /mix",
        "not simulated, operators that only work on values: Softmax 1, Transpose 1",
    ]
    whole = trace_of_onnx(path, x, products=True)
    assert [(layer.name, layer.op, layer.shape, layer.samples) for layer in whole.layers[1:]] == [
        ("/scores", "matmul", (2, 5, 8), 2),
        ("/mix", "matmul", (2, 8, 5), 2),
    ]
    scores = product(whole.layers[0]).reshape(2, 5, 8) @ x.transpose(0, 2, 1)
    np.testing.assert_allclose(product(whole.layers[1]).reshape(2, 5, 5), scores, rtol=1e-4, atol=1e-5)
    assert [layer.macs for layer in simulate(load_machine("a100-sparse"), whole).layers][1] == 2 * 5 * 5 * 8


def test_a_weight_used_twice_is_one_layer_and_one_of_another_size_another(tmp_path):
    nodes = [
        node("MatMul", "x fc.weight", "a"),
        node("MatMul", "a fc.weight", "b"),
        node("Unsqueeze", "b axis", "c"),
        node("MatMul", "c fc.weight"),
    ]
    path = save(tmp_path, nodes, {"fc.weight": drawn(8, 8), "axis": np.array([1])}, {"x": [3, 8]})
    trace = trace_of_onnx(path, X)
    assert [(layer.name, layer.inputs.shape) for layer in trace.layers] == [("fc", (6, 8)), ("fc (2)", (3, 1, 8))]
    assert trace.provenance["uses"] == {"fc": 2}
    pruned = trace_of_onnx(path, X, prune="2:4")
    np.testing.assert_array_equal(pruned.layers[0].weight, pruned.layers[1].weight)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul", "Conv"])
def test_a_weight_used_with_another_bias_is_another_layer(tmp_path, kind):
    nodes = [node(kind, "x fc.weight b1", "a"), node(kind, "x fc.weight b2", "b"), node(kind, "x fc.weight b1", "c"),
             node(kind, "x fc.weight", "d")]  # fmt: skip
    if kind == "MatMul":
        for i, made in enumerate(nodes[:3]):
            bias = made.input.pop()
            nodes.append(node("Add", f"{made.output[0]} {bias}", f"sum{i}"))
    weight, x = (drawn(4, 8, 1, 1), drawn(3, 8, 1, 1)) if kind == "Conv" else (drawn(8, 4), X)
    path = save(tmp_path, nodes, {"fc.weight": weight, "b1": drawn(4), "b2": drawn(4)}, {"x": None})
    layers = trace_of_onnx(path, x).layers
    assert [layer.name for layer in layers] == ["fc", "fc (2)", "fc (3)"]
    first, second, third = layers
    assert (first.samples, second.samples, third.bias) == (6, 3, None)
    assert not np.array_equal(first.bias, second.bias)
    pruned = trace_of_onnx(path, x, prune="2:4", draw=Draw())
    assert len({layer.weight.tobytes() for layer in pruned.layers}) == 1


def test_names_of_layers_that_share_a_weight_do_not_meet(tmp_path):
    nodes = [node("Gemm", "x tied b1", "a"), node("Gemm", "x tied b2", "b"), node("Gemm", "x tied b1", "c", transB=1),
             node("Gemm", "x tied b2", "y", transB=1)]  # fmt: skip
    path = save(tmp_path, nodes, {"tied": drawn(8, 8), "b1": drawn(8), "b2": drawn(8)}, {"x": [3, 8]})
    trace = trace_of_onnx(path, X)
    assert sorted(layer.name for layer in trace.layers) == ["tied", "tied (2)", "tied (2) (2)", "tied (3)"]


def test_a_weight_used_both_ways_round_is_two_layers(tmp_path):
    square = drawn(8, 8)
    nodes = [node("MatMul", "x tied", "a"), node("Gemm", "a tied", "b", transB=1), node("Gemm", "b tied", "y")]
    path = save(tmp_path, nodes, {"tied": square}, {"x": [3, 8]})
    trace = trace_of_onnx(path, X, prune="2:4")
    assert [layer.name for layer in trace.layers] == ["tied", "tied (2)"]
    assert trace.provenance["uses"] == {"tied": 2}
    there, back = (
        np.where(layer.mask, whole, 0) for layer, whole in zip(trace.layers, (square.T, square), strict=True)
    )
    np.testing.assert_array_equal(trace.layers[0].weight, there)
    np.testing.assert_array_equal(trace.layers[1].weight, back)
    np.testing.assert_allclose(trace.layers[1].inputs, X @ there.T, rtol=1e-5, atol=1e-5)


def test_constants_are_folded_and_names_are_those_of_the_weights_under_them(tmp_path):
    quantized = RNG.integers(-127, 127, (8, 6)).astype(np.int8)
    weights = {
        "fc.weight_quantized": quantized,
        "scale": np.float32(0.01),
        "zero": np.int8(3),
        "onnx::MatMul_12": W.T.copy(),
    }
    nodes = [
        node("DequantizeLinear", "fc.weight_quantized scale zero", "w"),
        node("MatMul", "x w", "a"),
        node("Constant", "", "k", value=numpy_helper.from_array(drawn(6, 8))),
        node("MatMul", "a k", "b"),
        node("MatMul", "b onnx::MatMul_12", name="/head/MatMul"),
    ]
    nodes[2].input[:] = []
    trace = trace_of_onnx(save(tmp_path, nodes, weights, {"x": [3, 8]}), X)
    assert [layer.name for layer in trace.layers] == ["fc", "k", "/head/MatMul"]
    np.testing.assert_allclose(trace.layers[0].weight, (quantized.T.astype(np.float32) - 3) * 0.01, rtol=1e-6)
    assert "not_simulated" not in trace.provenance
    assert trace.provenance["source"] == "ONNX model net.onnx"


def test_whole_numbers_are_multiplied_without_their_zero_points(tmp_path):
    weight, zero = RNG.integers(0, 255, (8, 6)).astype(np.uint8), np.uint8(120)
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q fc.weight z zero", "i"),
        node("Cast", "i", to=TensorProto.FLOAT),
    ]
    path = save(tmp_path, nodes, {"fc.weight": weight, "zero": np.array(zero)}, {"x": [3, 8]})
    (layer,) = trace_of_onnx(path, X).layers
    low, high = min(X.min(), 0), max(X.max(), 0)
    scale = np.float32((high - low) / 255)
    np.testing.assert_array_equal(layer.weight, weight.T.astype(np.float32) - 120)
    np.testing.assert_allclose(layer.inputs * scale, X, atol=scale)
    assert np.array_equal(layer.inputs, layer.inputs.round())
    (pruned,) = trace_of_onnx(path, X, prune="2:4").layers
    assert (pruned.sparsity, pruned.pattern) == (0.5, Pattern("n:m", n=2, m=4, axis=1))
    computed = [node("Cast", "x", "w8", to=TensorProto.UINT8), node("MatMulInteger", "w8 fc.weight zero w8")]
    path = save(
        tmp_path,
        [*computed, node("MatMul", "x b", "z")],
        {"fc.weight": weight, "b": drawn(8, 2), "zero": zero},
        {"x": [3, 8]},
        ("z",),
    )
    assert trace_of_onnx(path, None, draw=Draw(act_density=1.0)).provenance["not_simulated"] == {
        "MatMulInteger_1": "MatMulInteger whose zero point is computed"
    }


def test_the_branch_that_the_samples_take_is_the_network(tmp_path):
    def branch(name, weight):
        inner = [node("MatMul", f"x {name}.weight", "t"), node("Relu", "t", "r")]
        value = [numpy_helper.from_array(weight, f"{name}.weight")]
        return helper.make_graph(inner, name, [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)], value)

    large, small = drawn(8, 6), drawn(8, 6)
    inner = node(
        "If", "flag", "y", name="choice", then_branch=branch("large", large), else_branch=branch("small", small)
    )
    nodes = [node("Cast", "rate", "flag", to=TensorProto.BOOL), inner, node("MatMul", "y head.weight", "z")]
    path = save(tmp_path, nodes, {"head.weight": drawn(6, 4)}, {"x": [3, 8], "rate": ("INT64", [])}, ("z",))
    for rate, name, weight in ((1, "large", large), (0, "small", small)):
        layers = trace_of_onnx(path, {"x": X, "rate": np.array(rate)}).layers
        assert [layer.name for layer in layers] == [name, "head"]
        np.testing.assert_array_equal(layers[0].weight, weight.T)
        np.testing.assert_allclose(layers[1].inputs, np.maximum(X @ weight, 0), rtol=1e-5, atol=1e-6)
    trace = trace_of_onnx(path, None, draw=Draw(act_density=1.0))
    assert trace.provenance["not_simulated"] == {"choice": "If, with operators inside"}


def test_functions_of_the_model_are_put_in_place(tmp_path):
    function = helper.make_function(
        "mine", "Dense", ["a", "w"], ["b"], [node("MatMul", "a w", "b")], [helper.make_opsetid("", 17)]
    )
    made = helper.make_node("Dense", ["x", "fc.weight"], ["y"], domain="mine")
    path = save(tmp_path, [made], {"fc.weight": W.T.copy()}, {"x": [3, 8]}, functions=[function])
    assert [layer.name for layer in trace_of_onnx(path, X).layers] == ["fc"]


def test_what_is_no_layer_is_listed_with_the_reason(tmp_path):
    nodes = [
        node("Gather", "table ids", "e", name="embed"),
        node("MatMul", "e fc.weight", "a"),
        node("LayerNormalization", "a gain", "b", name="norm"),
        node("MatMul", "b three", "c", name="heads"),
        node("Transpose", "c", "d", perm=[0, 2, 1]),
        node("ConvTranspose", "d up", "f", name="up"),
        node("Slice", "d zero one axis", "k"),
        node("Einsum", "f f", "g", name="own", equation="bij,bkj->bik"),
        node("Conv", "d k", "h", name="dynamic"),
    ]
    weights = {
        "table": drawn(5, 8),
        "fc.weight": drawn(8, 4),
        "gain": drawn(4),
        "three": drawn(2, 4, 4),
        "up": drawn(4, 2, 2),
    }
    weights |= {"zero": np.array([0]), "one": np.array([1]), "axis": np.array([2])}
    path = save(tmp_path, nodes, weights, {"ids": ("INT64", [2, 3])}, ("g", "h"))
    trace = trace_of_onnx(path, np.array([[0, 1, 2], [3, 4, 0]]))
    assert [layer.name for layer in trace.layers] == ["fc"]
    assert trace.provenance["not_simulated"] == {
        "embed": "Gather with a table (5, 8)",
        "norm": "LayerNormalization with a parameter (4,)",
        "heads": "MatMul with a constant of 3 dimensions",
        "up": "ConvTranspose",
        "own": "Einsum",
        "dynamic": "Conv whose kernel is computed",
    }
    assert trace.provenance["operators_beside"] == {"Transpose": 1, "Slice": 1}


def test_a_product_written_out_by_elements_is_listed(tmp_path):
    nodes = [
        node("MatMul", "x fc.weight", "a"),
        node("Unsqueeze", "a one", "b"),
        node("Mul", "b by_hand", "c", name="outer"),
        node("ReduceSum", "c two", "d", keepdims=0),
        node("Mul", "gain d", "e", name="dot"),
        node("ReduceSum", "e one", "f", keepdims=0),
        node("Mul", "d gain", "g", name="scale"),
        node("Div", "g by_rows", "h", name="shares"),
    ]
    weights = {"fc.weight": drawn(8, 4), "by_hand": drawn(5, 4), "gain": drawn(5), "by_rows": drawn(3, 5)}
    weights |= {"one": np.array([1]), "two": np.array([2])}
    trace = trace_of_onnx(save(tmp_path, nodes, weights, {"x": [3, 8]}, ("f", "h")), X)
    assert trace.provenance["not_simulated"] == {
        "outer": "Mul with a parameter (5, 4), an elementwise product",
        "dot": "Mul with a parameter (5,), an elementwise product",
        "shares": "Div with a parameter (3, 5), an elementwise product",
    }
    assert trace.provenance["operators_beside"] == {"Unsqueeze": 1, "ReduceSum": 2, "Mul": 1}


def test_inputs_are_drawn_where_no_samples_are_given(tmp_path):
    nodes = [node("Conv", "x c.weight", "a"), node("Flatten", "a", "b"), node("MatMul", "b fc.weight")]
    path = save(tmp_path, nodes, {"c.weight": drawn(2, 3, 3, 3), "fc.weight": drawn(8, 4)}, {"x": [1, 3, 4, 4]})
    trace = import_model(path, draw={"act_density": 0.5, "samples": 2, "input_size": (4, 4)}, prune="0.5")
    assert [layer.inputs.shape for layer in trace.layers] == [(2, 3, 4, 4), (2, 8)]
    assert trace.provenance["drawn_inputs"]["layers"] == ["c", "fc"]
    with pytest.raises(InputError) as error:
        import_model(path)
    assert str(error.value) == (
        f"{path}: layer c: inputs are needed; give samples that go through the model, or act_density to draw some"
    )


def test_numbers_that_the_model_draws_are_the_same_each_time(tmp_path):
    nodes = [node("RandomNormalLike", "x", "r"), node("Add", "x r", "n"), node("MatMul", "n fc.weight")]
    path = save(tmp_path, nodes, {"fc.weight": W.T.copy()}, {"x": [3, 8]})
    first, again = (trace_of_onnx(path, X) for _ in range(2))
    assert first.sha256 == again.sha256
    assert not np.array_equal(first.layers[0].inputs, X)
