"""Networks of any calls, caught exceptions and idle parts: the layers hold every product that torch computes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.workloads.importers import notes_of
from gossamer.workloads.importers.torch_module import trace_of_module
from gossamer.workloads.lowering import lower
from gossamer.workloads.training.capture import capture, capture_all

from .captured import by_name, drawn, product, rows, seeded
from .refusals import message

F = nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")

X = drawn(4, 8)
IMAGE = drawn(2, 4, 6, 6, seed=1)
WHOLE = {"fc": "fc.weight", "w": "w", "my_weight": "my_weight", "weight": "weight"}
CUTS = {
    "whole": lambda w: w,
    "turned": lambda w: w.transpose(0, 1),
    "top": lambda w: w[:4],
    "scaled": lambda w: w * 0.5,
    "sign": lambda w: w.sign(),
}
PRODUCTS = {
    "linear": F.linear,
    "matmul": lambda x, w, b: x @ w.T,
    "einsum": lambda x, w, b: torch.einsum("ti,oi->to", x, w),
    "left": lambda x, w, b: (w @ x.T).T,
    "addmm": lambda x, w, b: x @ w.T if b is None else torch.addmm(b, x, w.T),
}


class Calls(nn.Module):
    """Modules and parameters, applied as ``calls`` say."""

    def __init__(self, calls):
        super().__init__()
        self.fc, self.conv = nn.Linear(8, 8), nn.Conv2d(4, 4, 3)
        self.w, self.my_weight, self.weight = (nn.Parameter(drawn(8, 8, seed=seed)) for seed in (2, 3, 4))
        self.kernel = nn.Parameter(drawn(4, 4, 3, 3, seed=5))
        self.b, self.c = nn.Parameter(drawn(8, seed=6)), nn.Parameter(drawn(8, seed=7))
        self.calls = calls

    def forward(self, x, image):
        return [call(self, x, image) for call in self.calls]


def get(net, name):
    for part in name.split("."):
        net = getattr(net, part)
    return net


@st.composite
def modules(draw):
    """A call of a module: where its layer's name comes from, what is alike in one layer, and the call."""
    name = draw(st.sampled_from(["fc", "conv"]))
    count = draw(st.integers(1, 2))
    if name == "fc":
        return name, ("whole", name, (1, 0, 1, 1)), lambda net, x, image: net.fc(x[:count])
    return name, ("whole", name, (1, 0, 1, 1)), lambda net, x, image: net.conv(image[:count])


@st.composite
def linears(draw):
    """The same of a product with a matrix."""
    name, cut, way = (draw(st.sampled_from(list(each))) for each in (WHOLE, CUTS, PRODUCTS))
    bias = draw(st.sampled_from([None, "b", "c", "fc.bias"])) if way in ("linear", "addmm") else None
    count = draw(st.integers(1, 4))

    def call(net, x, image):
        weight = CUTS[cut](get(net, WHOLE[name]))
        return PRODUCTS[way](x[:count], weight, None if bias is None else get(net, bias)[: len(weight)])

    same = "fc" if (name, bias) == ("fc", "fc.bias") else bias
    return name, (cut, same, (1, 0, 1, 1)), call


@st.composite
def convolutions(draw):
    """The same of a convolution."""
    name = draw(st.sampled_from(["conv", "kernel"]))
    cut = draw(st.sampled_from(["whole", "turned", "half", "scaled"]))
    bias = draw(st.sampled_from([None, "b", "c", "conv.bias"]))
    stride, padding, dilation = draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
    groups = 2 if cut == "half" else 1
    count = draw(st.integers(1, 2))

    def call(net, x, image):
        weight = get(net, "conv.weight" if name == "conv" else name)
        weight = weight[:, :2] if cut == "half" else CUTS[cut](weight)
        added = None if bias is None else get(net, bias)[:4]
        return F.conv2d(image[:count], weight, added, stride, padding, dilation, groups)

    same = "conv" if (name, bias) == ("conv", "conv.bias") else bias
    return name, (cut, same, (stride, padding, dilation, groups)), call


@settings(deadline=None, max_examples=60, derandomize=True)
@given(calls=st.lists(st.one_of(modules(), linears(), convolutions()), min_size=1, max_size=8), pruned=st.booleans())
def test_layers_of_any_calls_hold_every_product_once(calls, pruned):
    net = seeded(lambda: Calls([call for _, _, call in calls]))
    masks = {}
    if pruned:
        rng = np.random.default_rng(0)
        masks = {name: rng.random(each.shape) < 0.5 for name, each in net.named_parameters() if each.ndim > 1}
    captured = capture_all(net, (X, IMAGE), masks=masks, products=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(X, IMAGE)
    parts = [part for layer in captured.layers for part in lower(layer)]
    assert 2 * sum(len(part.vectors) * part.weight.size for part in parts) == counter.get_total_flops()
    expected = {}
    for (name, about, _), output in zip(calls, captured.outputs, strict=True):
        expected.setdefault((name, about), []).append(rows(output, 1))
    assert len({layer.name for layer in captured.layers}) == len(captured.layers) == len(expected)
    for layer, ((name, (cut, *_)), outputs) in zip(captured.layers, expected.items(), strict=True):
        assert layer.name == name or layer.name.startswith(f"{name} (")
        assert captured.uses.get(layer.name, 1) == len(outputs)
        np.testing.assert_allclose(product(layer), np.concatenate(outputs), rtol=1e-4, atol=1e-4)
        assert (layer.mask is not None) is pruned  # none of the cuts makes a weight dense again
        assert cut != "whole" or name in by_name(captured.layers)  # no part takes the name from it


# Parts that are fed with nothing.


class Mixture(nn.Module):
    """Experts, each given the samples that a router sends to it; without ``some``, none gets any but the last."""

    def __init__(self, make, some=(2, 2)):
        super().__init__()
        self.experts = nn.ModuleList(make() for _ in range(3))
        self.some = some

    def forward(self, x):
        route = torch.full((len(x),), self.some[0])
        route[1:] = self.some[1]
        return [expert(x[route == i]) for i, expert in enumerate(self.experts)]


class Own(nn.Module):
    """A matrix of its own."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(drawn(4, 8))

    def forward(self, x):
        return F.linear(x, self.w)


class Attended(nn.Module):
    """An attention of each sample to itself."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x[:, None], x[:, None], x[:, None])[0] @ x[:, :, None]


IDLE = "fed with nothing by these samples"


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: nn.Linear(8, 4), ""),
        (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), ".0"),
        (Own, ".w"),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 2, 3)), ".1"),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 1)), ".1"),
        (lambda: nn.LSTMCell(8, 4), ""),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, 8)), nn.GRU(8, 4, batch_first=True)), ".1"),
    ],
    ids=["linear", "sequential", "parameter", "conv1d", "conv2d", "cell", "gru"],
)
@pytest.mark.parametrize("fold", [False, True])
def test_an_expert_that_gets_no_sample_is_listed_and_the_others_are_layers(make, part, fold):
    trace = trace_of_module(seeded(lambda: Mixture(make)), X, fold_batch_norm=fold)
    assert trace.names and all(name.startswith("experts.2") for name in trace.names)
    assert trace.provenance["not_simulated"] == {f"experts.{i}{part}": IDLE for i in range(2)}
    assert notes_of(trace) == [f"not simulated, {IDLE}: experts.0{part}, experts.1{part}"]


def test_an_idle_attention_is_listed_once_and_its_products_too():
    captured = capture_all(seeded(lambda: Mixture(Attended)), X, products=True)
    assert {layer.name.split(".")[1] for layer in captured.layers} == {"2"}
    assert captured.not_simulated == {
        f"experts.{i}.{part}": IDLE for i in range(2) for part in ("attention", "matmul1")
    }


def test_a_batch_norm_of_an_idle_expert_does_not_keep_others_from_folding():
    make = lambda: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))  # noqa: E731
    captured = capture_all(seeded(lambda: Mixture(make)), X, fold_batch_norm=True)
    assert captured.folded == {"experts.2.0": "experts.2.1"}
    shared = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    mixed = capture_all(seeded(lambda: Mixture(lambda: shared)), X, fold_batch_norm=True)
    assert mixed.folded == {"experts.0.0": "experts.0.1"} and not mixed.not_simulated


def test_a_layer_that_is_fed_once_is_no_idle_one():
    def act(net, x):
        return [net.fc(x[:0]), net.fc(x), F.linear(x[:0], net.fc.weight[:2]), F.linear(x[:0], net.fc.weight)]

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return act(self, x)

    trace = trace_of_module(seeded(Once), X)
    assert trace.names == ("fc",) and "uses" not in trace.provenance and not notes_of(trace)


def test_no_samples_at_all_are_refused():
    told = message(capture, nn.Sequential(nn.Linear(8, 4)), X[:0])
    assert told == f"the network must have a layer that can be simulated, and has none: 0, {IDLE}"
    told = message(capture, nn.Linear(8, 4), X[:0])
    assert told == f"the network must have a layer that can be simulated, and has none: linear, {IDLE}"


# Exceptions that the network catches.


class Raises(nn.Module):
    """Takes whatever ``kind`` of layer is too narrow for it, after one that is not."""

    def __init__(self, kind):
        super().__init__()
        self.fine, self.narrow = nn.Linear(8, 8), kind

    def forward(self, x):
        return self.narrow(self.fine(x))


class Catches(nn.Module):
    """Does without the part that fails, and applies a matrix of its own."""

    def __init__(self, kind):
        super().__init__()
        self.part, self.w = Raises(kind), nn.Parameter(drawn(4, 8))
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 8)

    def forward(self, x):
        try:
            x = self.part(x)
        except (ValueError, RuntimeError):
            x = x + 1
        x = self.norm(self.last(x)) @ x.T @ x
        return F.linear(x, self.w)


@pytest.mark.parametrize(
    "kind",
    [nn.Linear(5, 5), nn.Conv2d(5, 5, 3), nn.BatchNorm1d(5), nn.LSTM(5, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 5))],
    ids=lambda kind: type(kind).__name__,
)
def test_layers_behind_an_exception_that_the_network_catches_are_captured(kind):
    net = seeded(lambda: Catches(kind)).eval()
    captured = capture_all(net, X, products=True, fold_batch_norm=True)
    # What comes behind is under the module at work then, and the norm is folded into what feeds it.
    assert [layer.name for layer in captured.layers] == ["part.fine", "last", "matmul1", "matmul2", "w"]
    assert captured.folded == {"last": "norm"}
    np.testing.assert_allclose(product(captured.layers[-1]), captured.outputs, rtol=1e-4, atol=1e-4)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_hook_of_the_users_that_fails_leaves_the_modules_in_order():
    net = seeded(lambda: Catches(nn.Linear(8, 8)))

    def refuse(*_):
        raise ValueError("not today")

    net.part.narrow.register_forward_pre_hook(refuse)
    assert [layer.name for layer in capture_all(net, X, products=True).layers][-1] == "w"
