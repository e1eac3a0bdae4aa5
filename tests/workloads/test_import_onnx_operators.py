"""Operators of older versions, and those that the reference evaluator gets wrong, against torch."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.errors import InputError

pytest.importorskip("onnx", reason="the extra onnx is not installed")
from onnx import helper

from gossamer.workloads.importers.onnx import trace_of_onnx
from gossamer.workloads.importers.onnx_graph import read_model, values

from .onnx_models import B, W, X, drawn, node, save

F = nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


def run(tmp_path, made, inputs, opset):
    """What one operator gives for its inputs, the first from outside."""
    (first, x), *rest = inputs.items()
    kind = {"f": "FLOAT", "i": "INT64"}[x.dtype.kind]
    path = save(tmp_path, [made], dict(rest), {first: (kind, list(x.shape))}, opset=opset)
    return values(read_model(path), {first: x})["y"]


def same(found, wanted):
    wanted = wanted.numpy() if isinstance(wanted, torch.Tensor) else wanted
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (1, 3, 4, 3, 2)])
def test_a_batch_norm_takes_the_mean_it_holds_in_every_version(tmp_path, opset, shape):
    scale, bias, mean, var = drawn(3), drawn(3), drawn(3), np.abs(drawn(3)) + 0.1
    x = drawn(*shape)
    made = node("BatchNormalization", "x s b m v", epsilon=1e-3, momentum=0.7)
    found = run(tmp_path, made, {"x": x, "s": scale, "b": bias, "m": mean, "v": var}, opset)
    given = (torch.from_numpy(each) for each in (x, mean, var, scale, bias))
    same(found, F.batch_norm(*given, eps=1e-3))


@pytest.mark.parametrize(("opset", "axis"), [(7, None), (11, 1), (12, 2), (11, 3), (11, -1), (13, 1), (13, None)])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_before_13_is_over_all_axes_from_its_own(tmp_path, kind, opset, axis):
    x = drawn(2, 3, 4, 5)
    found = run(tmp_path, node(kind, "x", **({} if axis is None else {"axis": axis})), {"x": x}, opset)
    function = F.softmax if kind == "Softmax" else F.log_softmax
    if opset >= 13:
        same(found, function(torch.from_numpy(x), dim=-1 if axis is None else axis))
        return
    first = 1 if axis is None else axis % 4
    same(found, function(torch.from_numpy(x).flatten(first), dim=first).reshape(x.shape))


def test_a_hardmax_before_13_has_a_single_one_in_all_axes_from_its_own(tmp_path):
    x = drawn(2, 3, 4)
    found = run(tmp_path, node("Hardmax", "x"), {"x": x}, 11)
    same(found.reshape(2, -1), np.eye(12, dtype=np.float32)[x.reshape(2, -1).argmax(1)])


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_a_global_maximum_is_one_number_a_channel(tmp_path, sides):
    x = drawn(2, 4, *[5] * sides)
    same(
        run(tmp_path, node("GlobalMaxPool", "x"), {"x": x}, 17), x.reshape(2, 4, -1).max(2).reshape(2, 4, *[1] * sides)
    )


@pytest.mark.parametrize("sides", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [(3, 2, 1, 1, False), (3, 2, 1, 1, True), (3, 1, 1, 2, False), (2, 2, 0, 1, True), (2, 3, 1, 1, True)],
)
def test_a_maximum_over_windows_is_what_torch_computes(tmp_path, sides, kernel, stride, padding, dilation, ceil):
    x = drawn(2, 3, *[9, 8, 7][:sides])
    attributes = {"kernel_shape": [kernel] * sides, "strides": [stride] * sides, "pads": [padding] * 2 * sides}
    made = node("MaxPool", "x", dilations=[dilation] * sides, ceil_mode=int(ceil), **attributes)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[sides - 1]
    same(run(tmp_path, made, {"x": x}, 12), pool(torch.from_numpy(x), kernel, stride, padding, dilation, ceil))


@pytest.mark.parametrize(("auto", "before"), [("SAME_UPPER", 0), ("SAME_LOWER", 1)])
def test_windows_of_the_same_size_have_one_cell_more_on_their_side(tmp_path, auto, before):
    x = drawn(1, 2, 6)
    made = node("MaxPool", "x", kernel_shape=[3], strides=[2], auto_pad=auto)
    padded = np.pad(x, [(0, 0), (0, 0), (before, 1 - before)], constant_values=-np.inf)
    same(run(tmp_path, made, {"x": x}, 12), F.max_pool1d(torch.from_numpy(padded), 3, 2))


def test_where_a_maximum_was_is_told_as_by_the_reference(tmp_path):
    x = drawn(1, 2, 6, 6)
    made = node("MaxPool", "x", "y at", kernel_shape=[2, 2], strides=[2, 2])
    wanted, at = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    path = save(tmp_path, [made], {}, {"x": [1, 2, 6, 6]}, opset=12)
    found = values(read_model(path), {"x": x})
    same(found["y"], wanted)
    np.testing.assert_array_equal(found["at"][0], at[0].numpy() + np.array([0, 36])[:, None, None])


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution_in_groups_is_what_torch_computes(tmp_path, sides, groups):
    x, weight, bias = drawn(2, 4, *[5, 4][:sides]), drawn(4, 3, *[3] * sides), drawn(3 * groups)
    attributes = {"strides": [2] * sides, "pads": [1] * 2 * sides, "output_padding": [1] * sides}
    made = node("ConvTranspose", "x w b", group=groups, **attributes)
    function = F.conv_transpose1d if sides == 1 else F.conv_transpose2d
    given = (torch.from_numpy(each) for each in (x, weight, bias))
    same(run(tmp_path, made, {"x": x, "w": weight, "b": bias}, 11), function(*given, 2, 1, 1, groups))


def test_a_transposed_convolution_may_say_its_size_instead(tmp_path):
    x, weight = drawn(1, 2, 5), drawn(2, 3, 4)
    found = run(tmp_path, node("ConvTranspose", "x w", strides=[2], output_shape=[10]), {"x": x, "w": weight}, 11)
    same(found, F.conv_transpose1d(torch.from_numpy(x), torch.from_numpy(weight), None, 2, 1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_elements_are_gathered_along_any_axis_and_fewer_along_the_others(tmp_path, axis):
    x = drawn(40, 3, 5)
    places = np.random.default_rng(1).integers(0, 3, (7, 2, 4))
    found = run(tmp_path, node("GatherElements", "x at", axis=axis), {"x": x, "at": places}, 13)
    same(found, torch.gather(torch.from_numpy(x), axis, torch.from_numpy(places)))


@pytest.mark.parametrize(("opset", "kind"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_sizes_grow_as_before_version_11(tmp_path, opset, kind, mode):
    x = drawn(1, 2, 3, 4)
    scales = [1.0, 1.0, 2.0, 3.0]
    rest = {} if opset == 7 else {"s": np.array(scales, np.float32)}
    made = node(kind, "x" if opset == 7 else "x s", mode=mode, **({"scales": scales} if opset == 7 else {}))
    found = run(tmp_path, made, {"x": x} | rest, opset)
    if mode == "nearest":
        same(found, F.interpolate(torch.from_numpy(x), scale_factor=(2, 3), mode="nearest"))
        return
    assert found.shape == (1, 2, 6, 12)
    np.testing.assert_allclose(found[..., ::2, ::3], x, rtol=1e-6)  # what was there stays where it is
    np.testing.assert_allclose(found[..., 1, ::3], (x[..., 0, :] + x[..., 1, :]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[..., 5, ::3], x[..., 2, :], rtol=1e-6)  # nothing lies behind the last


@pytest.mark.parametrize(("batch", "size"), [(1, 5), (2, 3), (3, 99)])
def test_a_local_response_is_normalized_in_every_channel(tmp_path, batch, size):
    x = drawn(batch, 7, 3, 4)
    made = node("LRN", "x", size=size, alpha=0.5, beta=0.6, bias=2.0)
    same(run(tmp_path, made, {"x": x}, 13), F.local_response_norm(torch.from_numpy(x), size, 0.5, 0.6, 2.0))


def test_an_error_function_is_the_same_a_block_at_a_time(tmp_path):
    x = drawn(3, 2**15 + 7)
    same(run(tmp_path, node("Erf", "x"), {"x": x}, 13), torch.erf(torch.from_numpy(x)))
    assert run(tmp_path, node("Erf", "x"), {"x": drawn(0, 4)}, 13).shape == (0, 4)


@pytest.mark.parametrize("approximate", ["none", "tanh", None])
def test_a_gelu_takes_no_more_than_blocks_beside_its_numbers(tmp_path, approximate):
    x = drawn(3, 2**15 + 7) * 4
    said = {} if approximate is None else {"approximate": approximate}
    expected = F.gelu(torch.from_numpy(x), approximate=approximate or "none")
    same(run(tmp_path, node("Gelu", "x", **said), {"x": x}, 20), expected)


def test_one_of_many_takes_a_depth_in_a_list(tmp_path):
    made = node("OneHot", "x d v", axis=0)
    places, ends = np.array([0, 2, -1]), np.array([-1, 1], np.float32)
    found = run(tmp_path, made, {"x": places, "d": np.array([4]), "v": ends}, 11)
    same(found, np.eye(4, dtype=np.float32)[:, [0, 2, 3]] * 2 - 1)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_of_several_lengths_are_not_run_as_if_of_one(tmp_path, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    weights = {"w": drawn(1, gates * 3, 8), "r": drawn(1, gates * 3, 3), "n": np.array([5, 2], np.int32)}
    made = helper.make_node(kind, ["x", "w", "r", "", "n"], ["h"], name="rnn", hidden_size=3)
    path = save(tmp_path, [made, node("MatMul", "h fc.weight")], weights | {"fc.weight": drawn(3, 2)}, {"x": [5, 2, 8]})
    with pytest.raises(InputError) as told:
        trace_of_onnx(path, drawn(5, 2, 8))
    assert str(told.value) == (
        f"{path}: the model must run on these samples in onnx's reference evaluator, and does not (operator {kind} "
        "rnn: sequences of several lengths are not known to the reference evaluator); pip install onnxruntime, which "
        "runs more models"
    )
    weights["n"] = np.array([5, 5], np.int32)
    path = save(tmp_path, [made, node("MatMul", "h fc.weight")], weights | {"fc.weight": drawn(3, 2)}, {"x": [5, 2, 8]})
    (layer,) = trace_of_onnx(path, drawn(5, 2, 8)).layers
    assert layer.inputs.shape == (5, 1, 2, 3)


def test_a_window_that_stands_for_too_much_is_refused(tmp_path):
    attributes = {"kernel_shape": [4096, 4096], "dilations": [4096, 4096], "auto_pad": "SAME_UPPER"}
    path = save(tmp_path, [node("MaxPool", "x", **attributes)], {}, {"x": [1, 1, 8, 8]}, opset=12)
    with pytest.raises(InputError, match=r"^operator MaxPool"):
        values(read_model(path), {"x": drawn(1, 1, 8, 8)})
    attributes = {"strides": [4096, 4096], "pads": [4096] * 4, "output_shape": [1, 1]}
    made = node("ConvTranspose", "x w", **attributes)
    path = save(tmp_path, [made], {"w": drawn(1, 1, 1, 1)}, {"x": [1, 1, 64, 64]}, opset=12)
    with pytest.raises(InputError, match=r"^operator ConvTranspose : inputs and padding must come to at most"):
        values(read_model(path), {"x": drawn(1, 1, 64, 64)})


def test_sides_of_minus_one_are_any(tmp_path):
    path = save(
        tmp_path, [node("Gemm", "x fc.weight fc.bias", transB=1)], {"fc.weight": W, "fc.bias": B}, {"x": [-1, 8]}
    )
    assert trace_of_onnx(path, X).layers[0].inputs.shape == X.shape
    with pytest.raises(InputError) as told:
        trace_of_onnx(path, drawn(2, 7))
    assert str(told.value) == f"{path}: samples of x (?, 8) must have its shape, not (2, 7)"


def test_a_constant_that_another_tool_folded_is_no_name(tmp_path):
    weights = {"const_fold_opt__12": W.T.copy()}
    path = save(tmp_path, [node("MatMul", "x const_fold_opt__12", name="encoder/dense")], weights, {"x": [None, 8]})
    assert trace_of_onnx(path, X).layers[0].name == "encoder/dense"
