"""A layer whose output leaves the network keeps its batch norm apart, in whatever it leaves."""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn
from torch.utils._pytree import register_pytree_node

from gossamer.workloads.training.capture import capture_all

from .captured import drawn, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Output:
    features: Any
    logits: Any = None


class Plain:
    def __init__(self, features):
        self.features = features
        self.whole = self


class Named(OrderedDict):
    """As transformers returns."""


@dataclass(slots=True)
class Slotted:
    features: Any
    logits: Any


class Lazy(Mapping):
    """Refuses to be read, and has what it holds as an attribute."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, key):
        raise RuntimeError("lazy")

    def __iter__(self):
        return iter(["a"])

    def __len__(self):
        return 1


class Node:
    """A container that torch knows by `register_pytree_node`, and whose attributes do not hold what is in it."""

    def __init__(self, *values):
        self.flatten = lambda: (list(values), None)


register_pytree_node(Node, lambda node: node.flatten(), lambda values, context: Node(*values))


class Net(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.conv, self.norm, self.wrap = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), wrap

    def forward(self, x):
        x = self.conv(x)
        return self.wrap(x, self.norm(x))


@pytest.mark.parametrize(
    ("wrap", "folded"),
    [
        (lambda conv, norm: (conv, norm), {}),
        (lambda conv, norm: {"deep": [conv], "norm": norm}, {}),
        (Output, {}),
        (lambda conv, norm: Output(norm, [{"it": Plain(conv)}]), {}),
        (lambda conv, norm: Named(features=conv, logits=norm), {}),
        (lambda conv, norm: deque([conv, norm]), {}),
        (lambda conv, norm: Plain(deque([conv, norm])), {}),
        (lambda conv, norm: frozenset([conv, norm]), {}),
        (Slotted, {}),
        (Node, {}),
        (lambda conv, norm: Plain(Node(conv, norm)), {}),
        (lambda conv, norm: (norm, Lazy(conv)), {}),
        (lambda conv, norm: (norm, Lazy(None)), {"conv": "norm"}),
        (lambda conv, norm: Slotted(None, norm), {"conv": "norm"}),
        (lambda conv, norm: norm, {"conv": "norm"}),
        (lambda conv, norm: Output(norm, Named(shape=conv.shape)), {"conv": "norm"}),
        (lambda conv, norm: Plain(norm), {"conv": "norm"}),
    ],
)
def test_a_norm_is_folded_where_nothing_else_takes_what_its_layer_gives(wrap, folded):
    captured = capture_all(seeded(lambda: Net(wrap)), drawn(2, 4, 6, 6), fold_batch_norm=True)
    assert captured.folded == folded
    assert ("norm" in captured.not_simulated) is not bool(folded)
