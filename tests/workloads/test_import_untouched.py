"""A module that becomes a trace is afterwards what it was: its weights, buffers, parts, hooks, flags and class."""

import contextlib
import copy
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers.torch_module import trace_of_module

from .captured import drawn, seeded

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*spectral_norm.*:FutureWarning"),
]

X = drawn(3, 8)


class Cell(nn.Module):
    """Counts, remembers, clips its own weight and puts parts and hooks into itself, as networks of users do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("calls", torch.zeros(1))
        self.seen, self.count = [], 0
        self.fails = None

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.seen.append(x.shape)
        self.last = self.inner(x) * self.scale
        self.scale.data = self.scale.data.clamp(-0.5, 0.5)
        self.added = nn.Identity()
        self.register_forward_hook(lambda *given: None)
        if self.fails is not None:
            raise self.fails
        return self.last


def state(module):
    """Everything that is in the parts of a module: objects, and the numbers of those that are tensors."""
    found = {}
    for name, part in module.named_modules():
        found[name, "class"] = type(part)
        for key, value in vars(part).items():
            held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            found[name, key] = value if not isinstance(value, dict | list) else [(at, id(each)) for at, each in held]
            for at, each in [*held, (None, value)]:
                if isinstance(each, torch.Tensor):
                    about = (each.dtype, each.requires_grad, each.data_ptr(), each.stride())
                    found[name, key, at] = (id(each), about, each.detach().clone().numpy().tobytes())
    return {key: id(value) if isinstance(value, torch.Tensor) else value for key, value in found.items()}


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


def linear():
    return nn.Linear(8, 8)


BLOCKS = {
    "linear": linear,
    "cell": lambda: Cell(linear()),
    "norm": lambda: nn.Sequential(linear(), nn.BatchNorm1d(8), nn.Dropout()),
    "frozen": lambda: nn.Sequential(linear().requires_grad_(False), nn.BatchNorm1d(8).eval()),
    "pruned": lambda: pruned(linear()),
    "parametrized": lambda: parametrizations.orthogonal(linear()),
    "weight-normed": lambda: parametrizations.weight_norm(linear()),
    "weight-normed, old": lambda: nn.utils.weight_norm(linear()),
    "spectral, old": lambda: nn.utils.spectral_norm(linear()),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
    "parallel": lambda: nn.DataParallel(linear()),
}


@st.composite
def networks(draw):
    """Chains of blocks, some of them the same module again, or one that shares its weight, or deeper down."""
    blocks = []
    for _ in range(draw(st.integers(1, 4))):
        how = draw(st.sampled_from(["new", "again", "tied", "nested"])) if blocks else "new"
        block = seeded(BLOCKS[draw(st.sampled_from(sorted(BLOCKS)))]) if how != "again" else blocks[0]
        if how == "tied":
            block = linear()
            block.weight = next(each for each in blocks[0].parameters() if each.ndim == 2)
        blocks.append(nn.Sequential(block, blocks[-1]) if how == "nested" else block)
    return nn.Sequential(*blocks)


@settings(max_examples=60, deadline=None)
@given(
    networks(),
    st.sampled_from([None, "2:4", "0.5", "global:0.5"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, ValueError("no"), KeyboardInterrupt(), "shape"]),
)
def test_a_module_is_what_it_was_in_every_case(net, rule, fold, training, fails):
    net.train(training)
    for part in net.modules():
        if isinstance(part, Cell) and fails != "shape":
            part.fails = fails
    before, kept = state(net), copy.deepcopy(torch.random.get_rng_state())
    with contextlib.suppress(InputError, KeyboardInterrupt):
        trace_of_module(net, X[:, :7] if fails == "shape" else X, prune=rule, fold_batch_norm=fold)
    after = state(net)
    assert after.keys() == before.keys()
    assert [key for key in before if after[key] != before[key]] == []
    assert torch.equal(torch.random.get_rng_state(), kept)


def test_a_layer_that_is_used_twice_is_not_left_pruned():
    lin = seeded(linear)
    weight, numbers = lin.weight, lin.weight.detach().clone()
    net = nn.Sequential(lin, nn.ReLU(), lin)
    first = trace_of_module(net, X, prune="2:4")
    assert lin.weight is weight and torch.equal(weight, numbers)
    assert first.provenance["uses"] == {"0": 2}
    assert trace_of_module(net, X).sparsity == 0
    assert trace_of_module(net, X, prune="2:4").sha256 == first.sha256


def test_what_merges_its_weights_for_evaluation_takes_them_apart_again():
    class Merged(nn.Linear):  # as adapters of low rank do
        def train(self, mode=True):
            self.weight.data += 1 if self.training and not mode else 0
            return super().train(mode)

    net = nn.Sequential(seeded(lambda: Merged(8, 8)))
    numbers = net[0].weight.detach().clone()
    (layer,) = trace_of_module(net, X).layers
    np.testing.assert_array_equal(layer.weight, numbers + 1)
    assert net.training and torch.equal(net[0].weight, numbers)


def test_a_buffer_that_is_made_longer_is_made_short_again():
    class Observed(nn.Linear):
        def __init__(self):
            super().__init__(8, 8)
            self.register_buffer("least", torch.zeros(1))
            self.register_buffer("none", torch.zeros(0))

        def forward(self, x):
            scale = torch.ones(8)
            self.least.resize_(8).copy_(scale)
            self.none.resize_(8).copy_(scale)
            return torch.nn.functional.linear(x, self.weight * self.least)

    net = seeded(lambda: nn.Sequential(Observed()))
    (layer,) = trace_of_module(net, X).layers
    np.testing.assert_array_equal(layer.weight, net[0].weight.detach())
    assert net[0].least.tolist() == [0] and net[0].none.tolist() == []


def test_samples_go_through_a_network_that_keeps_a_state_as_if_for_the_first_time():
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 8))
            self.register_buffer("state", torch.zeros(1))

        def forward(self, x):
            x += 1
            self.state += 1
            return torch.nn.functional.linear(x * self.state, self.weight)

    x = X.clone()
    for rule in (None, "2:4"):
        (layer,) = trace_of_module(seeded(Stateful), x, prune=rule).layers
        np.testing.assert_array_equal(layer.inputs, X + 1)
        assert torch.equal(x, X)


def test_handles_of_hooks_still_take_them_off():
    net = seeded(linear)
    fed = []
    handle = net.register_forward_hook(lambda module, given, output: fed.append(given))
    trace_of_module(net, X)
    assert len(fed) == 1
    handle.remove()
    net(X)
    assert len(fed) == 1
    assert not net._forward_hooks


def test_a_module_that_cannot_be_copied_and_must_be_is_refused_in_one_line():
    class Locked(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle '_thread.lock' object")

    net = nn.Sequential(Locked(8, 8), pruned(linear()))
    with pytest.raises(InputError) as told:
        trace_of_module(net, X)
    assert str(told.value) == (
        "the network must be copied to make its masked, computed or sparse weights plain, and cannot be: cannot pickle "
        "'_thread.lock' object; make them plain where it is made, as torch.nn.utils.prune.remove does"
    )


@pytest.mark.parametrize("inference", [False, True])
def test_statistics_are_as_before_where_a_norm_is_set_to_train(inference):
    class Adapting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)

        def forward(self, x):
            self.norm.train()
            with torch.inference_mode(inference):
                norm = self.norm
                x = norm(self.fc(x))
                return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, training=True)

    net = Adapting()
    trace_of_module(net, X)
    assert net.norm.running_mean.tolist() == [0] * 8 and net.norm.running_var.tolist() == [1] * 8
    assert net.norm.num_batches_tracked == 0


def test_containers_of_the_library_are_as_before_and_those_inside_of_them():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.last, self.named, self.counts = deque([1, 2], maxlen=2), defaultdict(list, a=[1]), Counter("ab")
            self.caches = [{"k": torch.zeros(8)}]
            self.pair = ([1], {"deep": deque()})

        def forward(self, x):
            self.last.append(3)
            self.named["a"].append(2), self.named["b"].append(1)
            self.counts.update("bc")
            self.caches[0]["k"].add_(1)
            self.caches[0] |= {"k": self.caches[0]["k"] + 1, "v": x}
            self.pair[0].append(2), self.pair[1]["deep"].append(3)
            return self.fc(x)

    net = Keeping()
    kept = net.caches[0]["k"]
    trace_of_module(net, X)
    assert (net.last, net.last.maxlen, net.named, net.counts) == (deque([1, 2]), 2, {"a": [1]}, Counter("ab"))
    assert list(net.caches[0]) == ["k"] and net.caches[0]["k"] is kept and not kept.any()
    assert net.pair == ([1], {"deep": deque()})
