"""Which parameters of a module a rule prunes, and along which side."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from gossamer.workloads.importers.torch_module import trace_of_module

from .captured import by_name, drawn, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

X = drawn(2, 5, 8)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def pruned_away(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)


def halved(layer):
    parametrize.register_parametrization(layer, "weight", Halved())


@pytest.mark.parametrize("change", [pruned_away, halved])
@pytest.mark.parametrize("first", [0, 1])
def test_what_shares_a_weight_with_a_masked_or_computed_one_keeps_it(change, first):
    net = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    net[1].weight = net[0].weight
    change(net[first])
    trace = trace_of_module(net, X)
    assert [layer.name for layer in trace.layers] == ["0", "1"]
    for layer, part in zip(trace.layers, net, strict=True):
        np.testing.assert_array_equal(layer.weight, part.weight.detach() + 0)
    assert not np.array_equal(trace.layers[0].weight, trace.layers[1].weight)
    np.testing.assert_allclose(trace.layers[1].inputs, net[0](X).detach(), rtol=1e-5, atol=1e-6)


class Turned(nn.Linear):
    """A Linear in name that holds its weight as (in, out), with a bypass of low rank of its own."""

    def __init__(self):
        super().__init__(8, 8)
        self.down, self.up = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        return x @ self.weight + x @ self.down @ self.up.T


def test_a_layer_of_a_class_of_somebodys_own_is_pruned_along_its_inputs():
    net = seeded(lambda: nn.Sequential(Turned(), nn.Linear(8, 4)))
    trace = trace_of_module(net, X, prune="2:4")
    layers = by_name(trace.layers)
    assert sorted(layers) == ["0", "0.down", "0.up", "1"]
    for layer in layers.values():
        assert (layer.pattern.kind, layer.pattern.n, layer.pattern.m, layer.pattern.axis) == ("n:m", 2, 4, 1)
        assert layer.mask.mean() == 0.5
    for name, whole in (("0", net[0].weight.T), ("0.down", net[0].down.T), ("0.up", net[0].up)):
        weight = whole.detach().numpy()
        np.testing.assert_array_equal(layers[name].weight, np.where(layers[name].mask, weight, 0))


@pytest.mark.parametrize("rule", ["0.5", "global:0.5"])
def test_keys_and_values_that_an_attention_adds_are_not_pruned(rule):
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    trace = trace_of_module(seeded(Added), X, prune=rule, products=True)
    product = by_name(trace.layers)["attention.matmul1"]
    assert product.weight.shape == (4, 6, 4)
    assert (product.weight[:, 5] != 0).all()  # the key that is added
