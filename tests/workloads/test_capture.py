import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads.data import load_data
from gossamer.workloads.networks import build_network
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Layer, Trace
from gossamer.workloads.training.capture import capture, capture_all

from .captured import BUNDLED, by_name, drawn, product, rows, seeded, watched
from .refusals import message

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "data"), BUNDLED.items())
def test_the_layers_of_every_bundled_network_compute_what_torch_computes(name, data):
    samples = load_data(data)
    network = seeded(lambda: build_network(name, samples.shape, samples.classes))
    batch = torch.from_numpy(samples.test_inputs[:3])
    seen, outputs = watched(network, batch)
    captured = capture_all(network, batch)
    assert torch.equal(captured.outputs, outputs)
    layers = by_name(captured.layers)
    assert [layer.name for layer in captured.layers if layer.name in seen] == list(seen)  # the order of use
    for key, output in seen.items():
        assert product(layers[key]) == pytest.approx(output, rel=1e-5, abs=1e-5)
    kernels = {key for key, value in network.named_parameters() if value.ndim > 1 and key != "position"}
    assert sum(layer.weight.size for layer in captured.layers) == sum(network.get_parameter(k).numel() for k in kernels)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(deadline=None, max_examples=100, derandomize=True)
@given(data=st.data())
def test_a_convolution_of_any_kind_is_captured_as_torch_computes_it(data):
    draw = data.draw
    sides = draw(st.sampled_from([1, 2]))
    groups = draw(st.sampled_from([1, 2, 3]))
    each = st.tuples(*[st.integers(1, 3)] * sides)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    padding = draw(st.sampled_from(["valid", "same", (0,) * sides, (1,) * sides, (2, 1)[:sides]]))
    if padding == "same":
        stride = 1
    mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    kind = nn.Conv2d if sides == 2 else nn.Conv1d
    module = seeded(
        lambda: kind(
            2 * groups, 3 * groups, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()),
            padding_mode=mode,
        )
    )  # fmt: skip
    samples = drawn(2, 2 * groups, *(8, 9)[:sides])
    (layer,) = capture(module, samples)
    assert layer.op == "conv2d"
    assert layer.shape == (3 * groups, 2, *([1] * (2 - sides)), *kernel)
    assert product(layer) == pytest.approx(rows(module(samples), 1), rel=1e-5, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dilation", [1, 3])
def test_padding_that_is_not_alike_on_both_sides_is_put_into_the_inputs(dilation):
    module = seeded(lambda: nn.Conv2d(2, 3, (2, 4), padding="same", dilation=dilation))
    samples = drawn(2, 2, 8, 8)
    (layer,) = capture(module, samples)
    before = (dilation // 2, 3 * dilation // 2)
    assert layer.attributes["padding"] == before
    assert layer.inputs.shape == (2, 2, 8 + 1, 8 + 1)  # one more cell below and on the right, on top of the padding
    assert product(layer) == pytest.approx(rows(module(samples), 1), abs=1e-5)


def test_a_layer_used_twice_gets_the_inputs_of_both_uses_along_the_batch():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x) + self.head(torch.relu(self.first(x)))

    module, samples = seeded(Twice), drawn(4, 3)
    captured = capture_all(module, samples)
    assert [layer.name for layer in captured.layers] == ["head", "first"]
    assert captured.uses == {"head": 2}
    again = torch.relu(module.first(samples)).detach().numpy()
    assert captured.layers[0].inputs == pytest.approx(np.concatenate([samples.numpy(), again]), abs=1e-6)


def test_a_layer_fed_with_several_sizes_is_a_layer_for_each():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return self.head(x).mean() + self.head(x[:, :, ::2, ::2]).mean() + self.head(x).sum()

    captured = capture_all(seeded(Pyramid), drawn(2, 2, 8, 8))
    assert [(layer.name, layer.inputs.shape) for layer in captured.layers] == [
        ("head", (4, 2, 8, 8)),
        ("head (2)", (2, 2, 4, 4)),
    ]
    assert captured.uses == {"head": 2}


def test_inputs_are_kept_as_they_were_when_the_layer_got_them():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            x = x.clone()
            y = self.fc(x)
            x += y
            return x

    samples = drawn(2, 3)
    (layer,) = capture(seeded(InPlace), samples)
    assert np.array_equal(layer.inputs, samples.numpy())


def test_zeros_behind_a_relu_stay_and_none_is_negative():
    network = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 2))
    samples = drawn(4, 6)
    samples[0] = -0.0
    first, second = capture(seeded(lambda: copy.deepcopy(network)), samples)
    assert not np.signbit(first.inputs[0]).any()
    assert 0.2 < (second.inputs == 0).mean() < 0.8
    assert not np.signbit(second.inputs).any()


class Odd(nn.Module):
    """A bit of everything that no layer stands for."""

    def __init__(self):
        super().__init__()

        class Scaled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        self.embedding = nn.Embedding(10, 4)
        self.token = nn.Parameter(torch.zeros(4))
        self.norm = nn.LayerNorm(4)
        self.scaled = Scaled(4, 4)
        self.fc = nn.Linear(4, 2)
        self.spare = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.scaled(self.norm(self.embedding(x) + self.token)))


def test_what_is_not_simulated_is_named_with_its_kind():
    captured = capture_all(seeded(Odd), torch.tensor([[1, 2], [3, 4]]))
    assert [layer.name for layer in captured.layers] == ["fc"]
    assert captured.not_simulated == {
        "token": "parameter of Odd",
        "embedding": "Embedding",
        "norm": "LayerNorm",
        "scaled.weight": "parameter of Scaled",
        "scaled.bias": "parameter of Scaled",
        "spare": "Linear, not used",
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_cannot_be_captured_is_refused_in_one_line():
    network = nn.Sequential(nn.Linear(4, 2))
    wrong = np.ones((4, 2), bool)
    assert message(capture, network, drawn(2, 5)) == (
        "the network must take samples of shape (2, 5), and does not: "
        "mat1 and mat2 shapes cannot be multiplied (2x5 and 4x2)"
    )
    assert message(capture, network, drawn(2, 4), masks={"fc.weight": wrong}) == (
        "a mask must be of a parameter of the network, and 'fc.weight' is none of them"
    )
    assert message(capture, network, drawn(2, 4), patterns={"1.weight": Pattern()}) == (
        "a pattern must be of a parameter of the network, and '1.weight' is none of them"
    )
    assert message(capture, network, drawn(2, 4), masks={"0.weight": wrong}) == (
        "the mask of 0.weight must be bool (2, 4), not bool (4, 2)"
    )
    assert message(capture, nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), drawn(2, 4)) == (
        "the network must use at least one of Linear, Conv2d, Conv1d, SparseConv3d, MultiheadAttention, LSTM, GRU, "
        "RNN, LSTMCell, GRUCell, RNNCell, and has Sequential, BatchNorm1d, ReLU; use one of them"
    )
    packed = nn.utils.rnn.pack_padded_sequence(drawn(2, 5, 3), [5, 4], batch_first=True)
    assert message(capture, nn.LSTM(3, 4, batch_first=True), packed) == (
        "the network must have a layer that can be simulated, and has none: lstm, LSTM of a packed sequence; give "
        "padded samples of one length"
    )
    assert message(capture, nn.LSTM(3, 4, proj_size=2), drawn(5, 2, 3)) == (
        "the network must have a layer that can be simulated, and has none: lstm, LSTM with a proj_size; use a Linear"
    )


def cut(layer, positions):
    """The layer with its first inputs alone: stepping is slow."""
    inputs = layer.inputs[:1, :, :positions, :positions] if layer.op == "conv2d" else layer.inputs[:1]
    if layer.op == "linear" and inputs.ndim == 3:
        inputs = inputs[:, :positions]
    return Layer(
        name=layer.name, op=layer.op, inputs=inputs, weight=layer.weight, bias=layer.bias, mask=layer.mask,
        pattern=layer.pattern, attributes=layer.attributes,
    )  # fmt: skip


@pytest.mark.parametrize("machine", [("eie-64pe", {"pe_count": 8}), ("systolic-8x8", {})], ids=lambda m: m[0])
@pytest.mark.parametrize("name", ["convnet-digits", "convnet-1d", "vit-digits", "lstm-64"])
def test_both_engines_and_numpy_agree_on_captured_layers(name, machine):
    samples = load_data(BUNDLED[name])
    network = seeded(lambda: build_network(name, samples.shape))
    rng = np.random.default_rng(0)
    masks = {
        key: rng.random(value.shape) < 0.1
        for key, value in network.named_parameters()
        if "weight" in key and value.ndim > 1
    }
    layers = capture(network, torch.from_numpy(samples.test_inputs[:1]), masks=masks)[:9]
    trace = Trace(name=name, layers=[cut(layer, 4) for layer in layers])
    for found in check(load_machine(machine[0], **machine[1]), trace):
        assert found.passed, found


@pytest.mark.parametrize("name", ["convnet-digits", "vit-digits"])
def test_machines_return_what_torch_computes(name):
    samples = torch.from_numpy(load_data("digits-images").test_inputs[:2])
    network = seeded(lambda: build_network(name))
    seen, _ = watched(network, samples)
    trace = Trace(name=name, layers=capture(network, samples))
    for layer in simulate(load_machine("systolic-16x16"), trace).layers:
        assert layer.output == pytest.approx(seen[layer.name], rel=1e-5, abs=1e-5)
    # 16 bits a word: the errors of a sum are some steps of the finest format in which it fits.
    for layer in simulate(load_machine("eie-64pe", weights="exact"), trace).layers:
        largest = float(np.abs(seen[layer.name]).max())
        assert layer.output == pytest.approx(seen[layer.name], abs=2e-3 * largest)
