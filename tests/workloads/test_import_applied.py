"""Weights that a network applies by itself: `F.linear`, `@`, an einsum, a convolution of its own."""

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers import notes_of
from gossamer.workloads.importers.torch_module import trace_of_module
from gossamer.workloads.patterns import Pattern

from .captured import by_name, drawn, product, rows, seeded

F = nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")

X = drawn(2, 5, 8)


class Net(nn.Module):
    """A Linear, then whatever ``act`` does with the module and the outputs of the Linear."""

    def __init__(self, act, **own):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.act = act
        for name, value in own.items():
            if type(value) is torch.Tensor:
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.act(self, self.first(x))


def parameter(*shape):
    return nn.Parameter(drawn(*shape, seed=1))


def net_of(act, **own):
    return seeded(lambda: Net(act, **own)).eval()


def captured(net, x=X, **options):
    trace = trace_of_module(net, x, **options)
    with torch.no_grad():
        return trace, by_name(trace.layers), net(x)


@pytest.mark.parametrize(
    ("act", "shape"),
    [
        (lambda net, x: F.linear(x, net.w), (6, 8)),
        (lambda net, x: x @ net.w, (8, 6)),
        (lambda net, x: torch.einsum("bti,oi->bto", x, net.w), (6, 8)),
        (lambda net, x: (net.w @ x.transpose(1, 2)).transpose(1, 2), (6, 8)),
        (lambda net, x: torch.addmm(torch.zeros(6), x.reshape(-1, 8), net.w).reshape(2, 5, 6), (8, 6)),
        (lambda net, x: torch.inference_mode()(F.linear)(x, net.w), (6, 8)),
    ],
    ids=["linear", "matmul", "einsum", "on the left", "addmm", "inference mode"],
)
def test_a_matrix_that_the_network_multiplies_by_is_a_layer_called_after_it(act, shape):
    net = net_of(act, w=parameter(*shape))
    trace, layers, outputs = captured(net)
    assert list(layers) == ["first", "w"] and not notes_of(trace)
    assert (layers["w"].op, layers["w"].shape, layers["w"].inputs.shape) == ("linear", (6, 8), (2, 5, 8))
    np.testing.assert_allclose(product(layers["w"]), rows(outputs, -1), rtol=1e-4, atol=1e-5)
    pruned, layers, _ = captured(net, prune="2:4")
    assert layers["w"].pattern == Pattern("n:m", n=2, m=4, axis=1)  # along the inputs, however the parameter lies
    assert np.count_nonzero(layers["w"].weight) == 24
    assert "not_pruned" not in pruned.provenance


@pytest.mark.parametrize("sides", [1, 2])
def test_a_convolution_by_function_is_a_layer(sides):
    function = F.conv1d if sides == 1 else F.conv2d
    x = drawn(2, 8, *[8] * sides)
    net = Net(lambda net, y: function(y, net.w, net.b, stride=2, padding=1, groups=2), w=parameter(4, 4, *[3] * sides))
    net.first, net.b = nn.Identity(), parameter(4)
    trace, layers, outputs = captured(net.eval(), x)
    assert list(layers) == ["w"] and not notes_of(trace)
    assert layers["w"].attributes["groups"] == 2
    np.testing.assert_allclose(product(layers["w"]), rows(outputs, 1), rtol=1e-4, atol=1e-5)


class Standardized(nn.Conv2d):
    """A convolution that computes its kernel, as those of normalizer-free networks do."""

    def forward(self, x):
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return F.conv2d(x, weight, self.bias)


class Cast(nn.Linear):
    """A Linear with a forward of its own."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def test_layers_that_override_forward_are_layers_under_their_names():
    net = nn.Sequential(Standardized(4, 4, 3), nn.Flatten(), Cast(16, 4)).eval()
    x = drawn(2, 4, 4, 4)
    trace, layers, outputs = captured(net, x)
    assert list(layers) == ["0", "2"] and not notes_of(trace)
    with torch.no_grad():
        np.testing.assert_allclose(product(layers["0"]), rows(net[0](x), 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(product(layers["2"]), outputs, rtol=1e-4, atol=1e-5)
    pruned, layers, _ = captured(net, x, prune="2:4")
    assert layers["2"].pattern.kind == "n:m" and np.all(layers["0"].weight != 0)
    assert notes_of(pruned) == ["left dense, computed, or in use besides: 0"]


def test_a_module_whose_weight_is_used_by_function_too_is_one_layer_used_twice():
    net = net_of(lambda net, x: F.linear(x, net.first.weight, net.first.bias))
    trace, layers, outputs = captured(net)
    assert list(layers) == ["first"]
    assert trace.provenance["uses"] == {"first": 2}
    np.testing.assert_allclose(product(layers["first"])[10:], rows(outputs, -1), rtol=1e-4, atol=1e-5)


def test_a_module_whose_weight_alone_is_used_is_no_unused_one():
    net = net_of(lambda net, x: x @ net.second.weight.T + net.second.bias, second=nn.Linear(8, 4))
    trace, layers, _ = captured(net)
    assert list(layers) == ["first", "second"] and not notes_of(trace)


def test_a_table_that_is_the_last_matrix_too_is_a_layer_and_stays_dense():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.mix = nn.Embedding(12, 8), nn.Linear(8, 8)

        def forward(self, words):
            return F.linear(self.mix(self.table(words)), self.table.weight)

    trace = trace_of_module(seeded(Tied), np.arange(6).reshape(2, 3), prune="2:4")
    assert [(layer.name, layer.shape, layer.pattern.kind) for layer in trace.layers] == [
        ("mix", (8, 8), "n:m"),
        ("table", (12, 8), "dense"),
    ]
    assert notes_of(trace) == [
        "not simulated, Embedding: table",
        "left dense, computed, or in use besides: table",
    ]


def test_buffers_and_slices_of_parameters_are_layers():
    fixed = drawn(8, 4, seed=2)
    net = net_of(lambda net, x: F.linear(x, net.w[:6]) @ net.w[:6] @ net.fixed, w=parameter(12, 8), fixed=fixed)
    _, layers, outputs = captured(net)
    assert list(layers) == ["first", "w", "w (2)", "fixed"]
    np.testing.assert_array_equal(layers["w (2)"].weight, layers["w"].weight.T)
    np.testing.assert_allclose(product(layers["fixed"]), rows(outputs, -1), rtol=1e-4, atol=1e-4)


def test_what_only_depends_on_parameters_is_no_layer():
    net = net_of(lambda net, x: F.linear(x, net.up @ net.down), up=parameter(8, 2), down=parameter(2, 8))
    _, layers, outputs = captured(net)
    assert list(layers) == ["first", "up"]  # of the two, one stands for their product
    np.testing.assert_allclose(product(layers["up"]), rows(outputs, -1), rtol=1e-4, atol=1e-5)


def dynamic(network):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.ao.quantization.quantize_dynamic(network, {nn.LSTM}, torch.qint8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: net_of(lambda net, x: torch.bmm(x, net.w), w=parameter(2, 8, 6)),
         "a batch of products, each with a weight of its own: w"),
        (lambda: net_of(lambda net, x: F.conv1d(x, x[:, :, :2].contiguous())),
         "a convolution whose kernel is computed as the samples go through: network"),
        (lambda: net_of(lambda net, x: F.conv_transpose1d(x, net.w), w=parameter(5, 3, 2)),
         "a transposed convolution by function: w"),
        (lambda: net_of(lambda net, x: F.conv3d(x[:, None, None], net.w), w=parameter(1, 1, 1, 1, 1)),
         "a convolution of 3 dimensions by function: w"),
        (lambda: net_of(lambda net, x: net.second(x.to(torch.complex64)).abs(),
                        second=nn.Linear(8, 4, dtype=torch.complex64)), "Linear of complex numbers: second"),
        (lambda: net_of(lambda net, x: x.to(torch.complex64) @ net.w, w=drawn(8, 4).to(torch.complex64)),
         "a product of complex64: w"),
        (lambda: net_of(lambda net, x: net.second(x)[0], second=nn.LSTM(8, 4, proj_size=2)),
         "LSTM with a proj_size; use a Linear: second"),
        (lambda: dynamic(net_of(lambda net, x: net.second(x)[0], second=nn.LSTM(8, 4))),
         "aten::quantized_lstm: second"),
    ],
    ids=["batch", "computed", "transposed", "3d", "complex module", "complex", "proj_size", "quantized"],
)  # fmt: skip
def test_what_multiplies_and_is_no_layer_is_listed(make, note):
    trace = trace_of_module(make(), X)
    assert [layer.name for layer in trace.layers] == ["first"]
    assert notes_of(trace) == [f"not simulated, {note}"]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_computed_weight_is_one_however_it_was_spread_and_however_many_samples_there_are(batch):
    def act(net, x):
        return x @ F.normalize(net.p)[None].repeat(len(x), 1, 1).transpose(1, 2)

    _, layers, outputs = captured(net_of(act, p=parameter(4, 8)), drawn(batch, 5, 8))
    assert list(layers) == ["first", "p"]
    np.testing.assert_allclose(product(layers["p"]), rows(outputs, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_first_state_is_no_weight(batch):
    def act(net, x):
        state = torch.zeros(len(x), 8, 8)
        for step in range(2):
            token = x[:, step, :, None]
            x, state = x @ state + 1, state + token @ token.transpose(1, 2)
        return x

    _, layers, _ = captured(net_of(act), drawn(batch, 5, 8), products=True)
    assert list(layers) == ["first", "matmul1", "matmul2", "matmul3", "matmul4"]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_buffer_that_caches_keys_is_no_weight(batch):
    def act(net, x):
        net.keys[: len(x), :5] = x
        return x @ net.keys[: len(x)].transpose(1, 2) + x @ net.keys[0, :5].T @ net.fixed

    net = net_of(act, keys=torch.zeros(4, 5, 8), fixed=drawn(5, 5, seed=3))
    trace, layers, _ = captured(net, drawn(batch, 5, 8), products=True)
    assert list(layers) == ["first", "matmul1", "matmul2", "fixed"] and not notes_of(trace)


def test_a_table_that_is_clipped_as_it_is_looked_up_stays_a_weight():
    net = net_of(lambda net, x: F.linear(x, net.table.weight) + net.table(torch.arange(6)).sum(),
                 table=nn.Embedding(6, 8, max_norm=1.0))  # fmt: skip
    _, layers, _ = captured(net)
    assert list(layers) == ["first", "table"]


def test_a_module_of_torch_that_multiplies_inside_is_listed_by_its_kind():
    trace = trace_of_module(net_of(lambda net, x: net.two(x, x), two=nn.Bilinear(8, 8, 4)), X)
    assert notes_of(trace) == ["not simulated, Bilinear: two"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_network_of_such_alone_is_refused_with_the_reason():
    with pytest.raises(InputError) as told:
        trace_of_module(nn.LSTM(8, 4, proj_size=2), X)
    assert str(told.value) == (
        "the network must have a layer that can be simulated, and has none: lstm, LSTM with a proj_size; use a Linear"
    )
