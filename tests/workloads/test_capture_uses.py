"""Uses of one weight: which are one layer, which are layers of their own, and what these are called."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gossamer.workloads.importers import notes_of
from gossamer.workloads.importers.torch_module import trace_of_module
from gossamer.workloads.lowering import lower
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training.capture import capture_all

from .captured import by_name, drawn, product, rows, seeded

F = nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")

X = drawn(3, 8)
IMAGE = drawn(2, 4, 12, 12)


class Net(nn.Module):
    """Whatever ``act`` does with the module and its inputs."""

    def __init__(self, act, **own):
        super().__init__()
        self.act = act
        for name, value in own.items():
            setattr(self, name, value)

    def forward(self, *x):
        return self.act(self, *x)


def parameter(*shape, seed=1):
    return nn.Parameter(drawn(*shape, seed=seed))


def macs(layers):
    """Multiplications, zeros and all."""
    return sum(len(part.vectors) * part.weight.size for layer in layers for part in lower(layer))


def flops(net, *samples):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = net(*samples)
    return counter.get_total_flops(), outputs


USES = {
    "dilation": (
        lambda: Net(lambda net, x: [F.conv2d(x, net.w, padding=d, dilation=d, stride=d) for d in (1, 2)],
                    w=parameter(8, 4, 3, 3)), IMAGE, ["w", "w (2)"]),
    "slice": (
        lambda: Net(lambda net, x: [net.proj(x), F.linear(x, net.proj.weight[:4])], proj=nn.Linear(8, 16)),
        X, ["proj", "proj (2)"]),
    "slice first": (
        lambda: Net(lambda net, x: [F.linear(x, net.proj.weight[:4]), net.proj(x)], proj=nn.Linear(8, 16)),
        X, ["proj (2)", "proj"]),
    "stride": (
        lambda: Net(lambda net, x: [net.c(x), F.conv2d(x, net.c.weight, stride=2)], c=nn.Conv2d(4, 3, 3, bias=False)),
        IMAGE, ["c", "c (2)"]),
    "transposed": (
        lambda: Net(lambda net, x: [y := net.enc(x), F.linear(y, net.enc.weight.t())], enc=nn.Linear(8, 8)),
        X, ["enc", "enc (2)"]),
    "scaled": (
        lambda: Net(lambda net, x: [net.enc(x), F.linear(x, net.enc.weight * 0.5, net.enc.bias)], enc=nn.Linear(8, 8)),
        X, ["enc", "enc (2)"]),
    "bias": (
        lambda: Net(lambda net, x: [F.linear(x, net.w, net.b), F.linear(x, net.w, net.c), F.linear(x, net.w)],
                    w=parameter(4, 8), b=parameter(4), c=parameter(4, seed=2)), X, ["w", "w (2)", "w (3)"]),
    "groups": (
        lambda: Net(lambda net, x: [F.conv2d(x[:, :2], net.w), F.conv2d(x, net.w, groups=2)], w=parameter(4, 2, 3, 3)),
        IMAGE, ["w", "w (2)"]),
}  # fmt: skip


@pytest.mark.parametrize("case", USES)
def test_uses_that_differ_in_more_than_their_inputs_are_layers_of_their_own(case):
    make, x, names = USES[case]
    net = seeded(make)
    trace = trace_of_module(net, x)
    total, outputs = flops(net, x)
    assert list(trace.names) == names and not notes_of(trace)
    assert 2 * macs(trace.layers) == total
    for layer, output in zip(trace.layers, outputs, strict=True):
        np.testing.assert_allclose(product(layer), rows(output, 1), rtol=1e-4, atol=1e-5)


def test_uses_that_are_alike_stay_one_layer():
    def act(net, x):
        return [F.linear(x, net.w, net.b), F.linear(2 * x, net.w, net.b), net.c(x), net.c(x)]

    net = seeded(lambda: Net(act, w=parameter(4, 8), b=parameter(4), c=nn.Linear(8, 4)))
    trace = trace_of_module(net, X)
    assert trace.provenance["uses"] == {"w": 2, "c": 2} and list(trace.names) == ["w", "c"]
    np.testing.assert_allclose(product(trace.layers[0]), torch.cat(net(X)[:2]).detach(), rtol=1e-4, atol=1e-5)


def test_a_module_whose_weight_changes_between_its_calls_is_a_layer_for_each_weight():
    def act(net, x):
        first = net.fc(x)
        net.fc.weight.data.mul_(2)
        second = net.fc(x)
        net.fc.weight.data.mul_(0.5)
        return [first, second, net.fc(x)]

    net = seeded(lambda: Net(act, fc=nn.Linear(8, 4)))
    trace = trace_of_module(net, X)
    assert list(trace.names) == ["fc", "fc (2)"] and trace.provenance["uses"] == {"fc": 2}
    np.testing.assert_array_equal(trace.layers[1].weight, 2 * trace.layers[0].weight)


def test_a_numbered_name_passes_over_a_module_that_is_called_so():
    net = seeded(lambda: Net(lambda net, x: [net.fc(x), F.linear(x, net.fc.weight[:2]), getattr(net, "fc (2)")(x)]))
    net.fc = nn.Linear(8, 4)
    net.add_module("fc (2)", nn.Linear(8, 4))
    assert trace_of_module(net, X).names == ("fc", "fc (3)", "fc (2)")


@pytest.mark.parametrize(
    ("own", "act", "names"),
    [
        ({"my_weight": parameter(4, 8)}, lambda net, x: F.linear(x, net.my_weight), ["my_weight"]),
        ({"fcweight": parameter(4, 8), "fc": nn.Linear(8, 4)},
         lambda net, x: F.linear(x, net.fcweight) + net.fc(x), ["fcweight", "fc"]),
        ({"weight": parameter(4, 8), "linear": nn.Linear(8, 4)},
         lambda net, x: F.linear(x, net.weight) + net.linear(x), ["weight", "linear"]),
        ({"linear": nn.Linear(8, 8)}, lambda net, x: net.linear(x) @ torch.eye(8), ["linear", "linear (2)"]),
        ({"linear": nn.Linear(8, 8)}, lambda net, x: x @ torch.eye(8) + net.linear(x), ["linear (2)", "linear"]),
        ({"v": parameter(8)}, lambda net, x: x @ net.v, ["v"]),
        ({"v": parameter(8)}, lambda net, x: x @ torch.diag(net.v), ["v"]),
        ({"t": parameter()}, lambda net, x: x @ (net.t * torch.eye(8)), ["linear"]),
        ({"inner": Net(lambda net, x: x @ net.v, v=parameter(8))}, lambda net, x: net.inner(x), ["inner.v"]),
    ],
    ids=["ends in weight", "beside", "root", "unnamed", "unnamed first", "vector", "diagonal", "number", "inner"],
)  # fmt: skip
def test_a_layer_is_called_as_its_parameter_is_and_no_two_are_called_alike(own, act, names):
    net = Net(act, **own)
    trace = trace_of_module(net, X)
    assert list(trace.names) == names and "uses" not in trace.provenance
    weights = dict(net.named_parameters())
    for layer in trace.layers:
        found = weights.get(layer.name, weights.get(f"{layer.name}.weight"))
        if found is not None and found.ndim == 2:
            np.testing.assert_array_equal(layer.weight, found.detach())


def test_parameters_that_share_one_array_are_told_apart():
    flat = drawn(128)
    first, second = nn.Parameter(flat[:64].view(8, 8)), nn.Parameter(flat[64:].view(8, 8))
    net = Net(lambda net, x: F.linear(F.linear(x, net.first), net.second * 2), first=first, second=second)
    trace = trace_of_module(net, X)
    assert list(trace.names) == ["first", "second"] and not notes_of(trace)
    np.testing.assert_array_equal(trace.layers[1].weight, 2 * flat[64:].view(8, 8))


@pytest.mark.parametrize("way", [{}, {"alpha": 0.5, "beta": 2}], ids=["plain", "scaled"])
def test_the_bias_of_a_product_is_kept_with_its_scale(way):
    net = Net(lambda net, x: torch.addmm(net.b, x, net.w, **way), w=parameter(8, 4), b=parameter(4))
    trace = trace_of_module(net, X)
    assert not notes_of(trace)
    np.testing.assert_allclose(product(trace.layers[0]), net(X).detach(), rtol=1e-4, atol=1e-5)
    net = Net(lambda net, x: torch.addmv(net.b, net.w, x[0], **way), w=parameter(4, 8), b=parameter(4))
    np.testing.assert_allclose(product(trace_of_module(net, X).layers[0])[0], net(X).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("act", "shape"),
    [
        (lambda net, x: torch.einsum("bti,oi->bto", x, net.w * 0.5), (6, 8)),
        (lambda net, x: torch.einsum("bti,hio->btho", x, net.w), (3, 8, 2)),
        (lambda net, x: torch.einsum("bti,hio->bto", x, net.w), (3, 8, 6)),
        (lambda net, x: torch.bmm(x, (net.w * 0.5).expand(2, -1, -1)), (8, 6)),
    ],
    ids=["scaled", "heads", "heads joined", "expanded"],
)
def test_a_computed_matrix_that_a_batch_shares_is_a_layer(act, shape):
    x = drawn(2, 5, 8)
    net = Net(act, w=parameter(*shape))
    trace = trace_of_module(net, x)
    total, output = flops(net, x)
    assert trace.names == ("w",) and not notes_of(trace)
    assert 2 * macs(trace.layers) == total
    np.testing.assert_allclose(product(trace.layers[0]), output.reshape(10, 6), rtol=1e-4, atol=1e-5)


# Masks.


def test_parts_of_a_pruned_weight_keep_what_is_left_of_its_mask():
    def act(net, x):
        w = net.fc.weight
        return [net.fc(x), F.linear(x, w[:4]), F.linear(x[:, :8], w[:, 2:]), F.linear(x, w.sign()), x[:, :8] @ w]

    net = seeded(lambda: Net(act, fc=nn.Linear(10, 8)))
    weight = net.fc.weight
    mask = np.tile(np.array([1, 1, 0, 0, 1, 1, 0, 0, 1, 1], bool), (8, 1))
    patterns = {"fc.weight": Pattern("n:m", n=2, m=4, axis=1)}
    captured = capture_all(net, drawn(3, 10), masks={"fc.weight": mask}, patterns=patterns, products=True)
    whole, top, right, sign, turned = captured.layers
    assert [layer.name for layer in captured.layers] == ["fc", *(f"fc ({n})" for n in range(2, 6))]
    assert [layer.pattern.kind for layer in captured.layers] == ["n:m", "n:m", "n:m", "n:m", "unstructured"]
    assert captured.padded == dict.fromkeys(["fc", "fc (2)", "fc (4)"], "input channels from 10 to 12")
    np.testing.assert_array_equal(whole.mask[:, :10], mask)
    np.testing.assert_array_equal(top.mask[:, :10], mask[:4])
    np.testing.assert_array_equal(right.mask, mask[:, 2:])
    np.testing.assert_array_equal(sign.weight[:, :10], np.sign(weight.detach().numpy()) * mask + 0.0)
    np.testing.assert_array_equal(turned.mask, mask.T)


@pytest.mark.parametrize("first", ["straight", "turned"])
def test_a_parameter_that_is_applied_both_ways_is_pruned_as_it_lies(first):
    def act(net, x):
        return F.linear(x @ net.w, net.w) if first == "turned" else F.linear(x, net.w) @ net.w

    trace = trace_of_module(Net(act, w=parameter(8, 8)), X, prune="2:4")
    layers = by_name(trace.layers)
    assert layers["w"].pattern == Pattern("n:m", n=2, m=4, axis=1)
    np.testing.assert_array_equal(layers["w (2)"].mask, layers["w"].mask.T)
    assert layers["w (2)"].pattern.kind == "unstructured"


class Binary(nn.Linear):
    """A Linear of signs, as XNOR-Net has it."""

    def forward(self, x):
        return F.linear(x, self.weight.sign() * self.weight.abs().mean(), self.bias)


class Shuffled(nn.Linear):
    """A Linear whose rows go round."""

    def forward(self, x):
        return F.linear(x, self.weight.roll(1, 0), self.bias)


class Centred(nn.Linear):
    """A Linear without a mean, which is dense again whatever was pruned."""

    def forward(self, x):
        return F.linear(x, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(("kind", "left"), [(Binary, False), (Shuffled, False), (Centred, True)])
def test_what_is_said_to_be_left_dense_is_dense(kind, left):
    trace = trace_of_module(seeded(lambda: nn.Sequential(nn.Linear(8, 8), kind(8, 8))), X, prune="2:4")
    layer = trace.layers[1]
    assert np.count_nonzero(layer.weight) == (64 if left else 32)
    assert (layer.pattern == Pattern("n:m", n=2, m=4, axis=1)) is not left
    assert notes_of(trace) == (["left dense, computed, or in use besides: 1"] if left else [])
