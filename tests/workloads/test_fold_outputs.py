"""A layer whose output leaves the network keeps its batch norm apart, in whatever it leaves."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

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
        (lambda conv, norm: norm, {"conv": "norm"}),
        (lambda conv, norm: Output(norm, Named(shape=conv.shape)), {"conv": "norm"}),
        (lambda conv, norm: Plain(norm), {"conv": "norm"}),
    ],
)
def test_a_norm_is_folded_where_nothing_else_takes_what_its_layer_gives(wrap, folded):
    captured = capture_all(seeded(lambda: Net(wrap)), drawn(2, 4, 6, 6), fold_batch_norm=True)
    assert captured.folded == folded
    assert ("norm" in captured.not_simulated) is not bool(folded)
