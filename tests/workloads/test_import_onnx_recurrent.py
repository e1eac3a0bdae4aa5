import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training.capture import capture

pytest.importorskip("onnx", reason="the extra onnx is not installed")
from gossamer.workloads.importers.onnx import trace_of_onnx

from .onnx_models import drawn, node, save


def onnx_gates(weight, order):
    return np.concatenate([np.split(weight, len(order))[gate] for gate in order])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_recurrent_layer_is_what_torch_and_capture_make_of_it(tmp_path, kind, direction):
    two = direction == "bidirectional"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = getattr(nn, kind)(5, 4, bidirectional=two)
    # iofc of torch's ifgo, zrh of torch's rzn.
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]
    ways = ("l0", "l0_reverse") if two else ("l0",)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    w, r = (np.stack([onnx_gates(state[f"weight_{each}_{way}"], order) for way in ways]) for each in ("ih", "hh"))
    b = np.stack([
        np.concatenate([onnx_gates(state[f"bias_{each}_{way}"], order) for each in ("ih", "hh")]) for way in ways
    ])  # fmt: skip
    attributes = {"hidden_size": 4, "direction": direction} | ({"linear_before_reset": 1} if kind == "GRU" else {})
    made = node(kind, "x w r b", " h", name="steps", **attributes)  # the states themselves are not asked for
    made.output[:] = ["", "y"]
    path = save(tmp_path, [made], {"w": w, "r": r, "b": b}, {"x": None})
    x = drawn(6, 3, 5)
    trace = trace_of_onnx(path, x)
    given = torch.from_numpy(x[::-1].copy() if direction == "reverse" else x)
    expected = capture(net, given)
    for layer, other in zip(trace.layers, expected, strict=True):
        suffix = "_reverse" if direction == "reverse" else ""
        assert layer.name == f"w.{other.name}{suffix}"
        np.testing.assert_array_equal(layer.weight, other.weight)
        np.testing.assert_array_equal(layer.bias, other.bias)
        np.testing.assert_allclose(layer.inputs, other.inputs, rtol=1e-5, atol=1e-6)


def test_a_mask_reaches_the_gates_of_each_direction(tmp_path):
    w, r = drawn(2, 16, 8), drawn(2, 16, 4)
    made = node("LSTM", "x w.weight r.weight", hidden_size=4, direction="bidirectional")
    path = save(tmp_path, [made], {"w.weight": w, "r.weight": r}, {"x": None})
    x = drawn(5, 2, 8)
    pruned = trace_of_onnx(path, x, prune="2:4")
    gates = np.arange(16).reshape(4, 4)[[0, 3, 1, 2]].ravel()  # torch's ifgo as iofc
    weights = [layer.weight[gates] for layer in pruned.layers]
    again = save(
        tmp_path,
        [made],
        {"w.weight": np.stack(weights[::2]), "r.weight": np.stack(weights[1::2])},
        {"x": None},
        name="again.onnx",
    )
    for layer, other in zip(pruned.layers, trace_of_onnx(again, x).layers, strict=True):
        np.testing.assert_array_equal(layer.weight, other.weight)
        np.testing.assert_array_equal(layer.inputs, other.inputs)
        assert layer.pattern == other.pattern == Pattern("n:m", n=2, m=4, axis=1)
