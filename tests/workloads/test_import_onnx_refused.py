import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
from onnx import helper  # noqa: E402

from gossamer.workloads.importers.onnx import trace_of_onnx  # noqa: E402

from .onnx_models import W, X, drawn, node, save  # noqa: E402


def test_weights_in_another_file_are_read_from_the_folder_of_the_model_alone(tmp_path):
    path = save(tmp_path, [node("MatMul", "x fc.weight")], {"fc.weight": W.T.copy()}, {"x": [3, 8]})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    np.testing.assert_array_equal(trace_of_onnx(path, X).layers[0].weight, W)
    for place in ("../secret.data", "/etc/hostname", "", "sub/../../x"):
        model = onnx.load_model_from_string(path.read_bytes())
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = place
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(model.SerializeToString())
        with pytest.raises(InputError) as error:
            trace_of_onnx(bad, X)
        assert str(error.value) == (
            f"{bad}: external data must lie in the folder of the model, and tensor fc.weight names {place!r}; "
            "put it there"
        )
    (tmp_path / "w.data").unlink()
    with pytest.raises(InputError) as error:
        trace_of_onnx(path, X)
    assert str(error.value) == f"{path}: external data must be there, and 'w.data' is not; put it beside the model"


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        ({"z": X}, "samples must be given for the inputs x (3, 8), and are for z"),
        (X[:2], "samples of x (3, 8) must have its shape, not (2, 8)"),
        (X[0], "samples of x (3, 8) must have its shape, not (8,)"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, samples, rule):
    path = save(tmp_path, [node("MatMul", "x fc.weight")], {"fc.weight": W.T.copy()}, {"x": [3, 8]})
    with pytest.raises(InputError) as error:
        trace_of_onnx(path, samples)
    assert str(error.value) == f"{path}: {rule}"


def test_a_model_without_a_layer_is_an_error(tmp_path):
    path = save(tmp_path, [node("Einsum", "x x", name="own", equation="ij,kj->ik")], {}, {"x": [3, 8]})
    with pytest.raises(InputError) as error:
        trace_of_onnx(path, X)
    assert str(error.value) == (
        f"{path}: the model must have a MatMul, Gemm, Conv, LSTM, GRU or RNN with constant weights, and has none: "
        "own, Einsum"
    )
    path = save(tmp_path, [node("MatMul", "x fc.weight")], {"fc.weight": drawn(3, 4)}, {"x": [None, 3]})
    with pytest.raises(InputError) as error:
        trace_of_onnx(path, X[:, :3], prune="2:4")
    assert str(error.value) == (
        f"{path}: prune 2:4 must find a layer to prune, and finds none: "
        "fc, 3 input channels are no whole number of groups of 4"
    )


def refusal(path, samples=X):
    with pytest.raises(InputError) as error:
        trace_of_onnx(path, samples)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_a_model_that_does_not_run_is_one_line(tmp_path):
    made = helper.make_node("Strange", ["x"], ["h"], domain="mine")
    path = save(tmp_path, [made, node("MatMul", "h fc.weight")], {"fc.weight": W.T.copy()}, {"x": [3, 8]})
    assert "the model must run on these samples" in refusal(path)
    path = save(tmp_path, [node("MatMul", "x fc.weight")], {"fc.weight": W.copy()}, {"x": None})
    assert "the model must run on these samples" in refusal(path)
    path = save(tmp_path, [node("ConstantOfShape", "x", "h"), node("MatMul", "h w")], {"w": W}, {"x": ("INT64", [1])})
    assert refusal(path, np.array([2**62])).startswith(f"{path}: ")


def test_an_array_too_large_is_refused_before_the_model_runs(tmp_path):
    nodes = [node("ConstantOfShape", "size", "h"), node("MatMul", "h fc.weight")]
    weights = {"fc.weight": W.T.copy(), "size": np.array([2**40, 8])}
    path = save(tmp_path, nodes, weights, {"x": [3, 8]})
    assert refusal(path) == (
        f"{path}: operator ConstantOfShape: an array must come to at most 67160064 numbers, and would be "
        "(1099511627776, 8)"
    )
    padded = node("Conv", "x c.weight", pads=[2**20] * 4)
    path = save(tmp_path, [padded], {"c.weight": drawn(2, 3, 3, 3)}, {"x": [1, 3, 4, 4]})
    assert refusal(path, drawn(1, 3, 4, 4)) == (
        f"{path}: operator Conv: pads must be at most 65536, not [1048576, 1048576, 1048576, 1048576]"
    )


def test_a_size_that_inputs_do_not_tell_is_refused(tmp_path):
    made = helper.make_node("Resize", ["a", "", "", "n"], ["o"], "grow", mode="linear")
    weights = {"fc.weight": W.T.copy(), "a": drawn(1, 1, 4, 4), "n": np.array([1, 1, 10**9, -1])}
    path = save(tmp_path, [made, node("MatMul", "x fc.weight")], weights, {"x": [3, 8]})
    assert refusal(path) == (
        f"{path}: operator Resize grow: what it is given must tell how large its output is, and does not"
    )


@pytest.mark.parametrize("kind", ["LabelEncoder", "DictVectorizer", "TreeEnsemble", "RegexFullMatch"])
def test_an_operator_of_what_has_no_type_does_not_end_the_program(tmp_path, kind):
    made = helper.make_node(kind, ["h"], ["o"], domain="" if kind == "RegexFullMatch" else "ai.onnx.ml")
    strange = helper.make_node("Strange", ["x"], ["h"], domain="mine")
    path = save(
        tmp_path, [strange, made, node("MatMul", "x fc.weight")], {"fc.weight": W.T.copy()}, {"x": [3, 8]}, opset=20
    )
    assert refusal(path).startswith(f"{path}: the model must run on these samples")


def test_a_number_may_have_the_shape_of_nothing(tmp_path):
    nodes = [node("ConstantOfShape", "none", "h"), node("Add", "h x", "g"), node("MatMul", "g fc.weight")]
    weights = {"fc.weight": W.T.copy(), "none": np.zeros(0, np.int64)}
    (layer,) = trace_of_onnx(save(tmp_path, nodes, weights, {"x": [3, 8]}), X).layers
    np.testing.assert_array_equal(layer.inputs, X)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_model_is_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("onnx")
    path = save(folder, [node("MatMul", "x fc.weight")], {"fc.weight": W.T.copy()}, {"x": [3, 8]})
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        trace_of_onnx(path, X)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
