import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers import import_model, notes_of
from gossamer.workloads.importers.torch_module import baked, load_factory, trace_of_module
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training.capture import capture

pytestmark = pytest.mark.usefixtures("one_thread")

TWO_OF_FOUR = Pattern("n:m", n=2, m=4, axis=1)


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def chain():
    return seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))


X = np.random.default_rng(0).standard_normal((3, 8), np.float32)


def test_a_module_without_masks_is_what_capture_gives():
    net = chain()
    trace = trace_of_module(net, X, name="mine")
    assert (trace.name, trace.provenance) == ("mine", {"source": "PyTorch module mine", "network": "Sequential"})
    for layer, other in zip(trace.layers, capture(net, torch.from_numpy(X)), strict=True):
        assert (layer.name, layer.op, layer.pattern) == (other.name, other.op, other.pattern)
        for array in ("weight", "bias", "inputs"):
            np.testing.assert_array_equal(getattr(layer, array), getattr(other, array))


def test_masks_of_every_tool_are_found_and_the_module_stays_as_it_was():
    net = chain()
    prune.l1_unstructured(net[0], "weight", amount=0.3)
    seeded(lambda: prune.random_unstructured(net[0], "weight", amount=0.05))  # a second method on the same weight
    from torch.ao.pruning import WeightNormSparsifier

    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(net, [{"tensor_fqn": "2.weight"}])
    sparsifier.step()
    mask = torch.arange(32).reshape(4, 8) % 4 < 2
    with torch.no_grad():
        net[4].weight.mul_(mask)
    net[4].register_buffer("__weight_mma_mask", mask)
    net(torch.from_numpy(X))  # with a gradient, which copies refuse
    before = {name: value.clone() for name, value in net.named_buffers()} | dict(net.named_parameters())
    trace = trace_of_module(net, X)
    assert [layer.name for layer in trace.layers] == ["0", "2", "4"]
    assert [layer.pattern for layer in trace.layers] == [Pattern(), TWO_OF_FOUR, TWO_OF_FOUR]
    for layer in trace.layers:
        np.testing.assert_array_equal(layer.weight, net[int(layer.name)].weight.detach() + 0)
    with torch.no_grad():
        np.testing.assert_allclose(trace.layers[2].inputs, net[:4](torch.from_numpy(X)), rtol=1e-6)
    assert parametrize.is_parametrized(net[2])
    after = dict(net.named_buffers()) | dict(net.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_are_computed_are_taken_as_they_are_computed():
    net = chain()
    parametrizations.weight_norm(net[0])
    torch.nn.utils.weight_norm(net[2])
    prune.l1_unstructured(net[4], "bias", amount=0.5)
    plain, masks = baked(net)
    assert masks == {}  # a bias is no layer's weight
    x = torch.from_numpy(X)
    torch.testing.assert_close(plain(x), net(x))
    assert [name for name, _ in plain.named_parameters()] == [
        "0.bias", "0.weight", "2.bias", "2.weight", "4.weight", "4.bias",
    ]  # fmt: skip
    trace = trace_of_module(net, X, prune="2:4")
    assert [layer.pattern for layer in trace.layers] == [TWO_OF_FOUR] * 3


@pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*:FutureWarning")
@pytest.mark.parametrize("rule", [None, "2:4"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        torch.nn.utils.spectral_norm,
        torch.nn.utils.weight_norm,
    ],
)
def test_norms_of_weights_are_those_of_evaluation_in_any_layer(norm, training, rule):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.steps, self.last = nn.Linear(8, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            return self.last(self.steps(self.first(x))[0])

    net = seeded(Recurrent)
    norm(net.first)
    norm(net.steps, "weight_hh_l0")
    steps = torch.from_numpy(X)[None]
    net(steps)  # with a gradient, which copies refuse
    net.eval()
    seen = []
    handle = net.last.register_forward_hook(lambda module, given, output: seen.append(given[0].detach()))
    net(steps)
    handle.remove()
    weights = [net.first.weight.detach().clone(), net.steps.weight_hh_l0.detach().clone()]
    trace = trace_of_module(net.train(training), X[None], prune=rule)
    layers = {layer.name: layer for layer in trace.layers}
    assert list(layers) == ["first", "steps.ih_l0", "steps.hh_l0", "last"]
    for layer, weight in zip((layers["first"], layers["steps.hh_l0"]), weights, strict=True):
        kept = True if rule is None else layer.mask
        np.testing.assert_allclose(layer.weight, np.where(kept, weight, 0), rtol=1e-6)
        assert layer.pattern.kind == ("dense" if rule is None else "n:m")
    if rule is None:
        np.testing.assert_allclose(layers["last"].inputs, seen[0], rtol=1e-5, atol=1e-6)


def test_a_module_with_nothing_to_take_out_is_not_copied():
    net = chain()
    assert baked(net)[0] is net


def test_samples_go_through_the_pruned_network():
    net = chain()
    trace = trace_of_module(net, X, prune="2:4", exclude=["4"])
    pruned = copy.deepcopy(net)
    with torch.no_grad():
        for index in (0, 2):
            groups = pruned[index].weight.reshape(-1, 4)
            groups[groups.abs() < groups.abs().sort(1).values[:, 2:3]] = 0
        expected = pruned[:4](torch.from_numpy(X))
    np.testing.assert_allclose(trace.layers[2].inputs, expected, rtol=1e-6)
    assert [layer.pattern.kind for layer in trace.layers] == ["n:m", "n:m", "dense"]
    assert trace.provenance["pruned"] == {"rule": "2:4", "activations": "those after pruning"}
    assert notes_of(trace) == ["left dense, excluded: 4.weight"]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)
        self.out.weight = self.query.weight
        self.up = nn.ConvTranspose1d(8, 8, 2)
        self.norm = nn.LayerNorm(8)
        self.table = nn.Embedding(5, 8)

    def forward(self, tokens, mask=None, *, scale=None):
        x = self.norm(self.table(tokens))
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        if mask is not None:
            scores = scores * mask[:, None]
        x = self.out(self.out(scores.softmax(-1) @ x))
        return self.up(x.transpose(1, 2))


TOKENS = np.array([[0, 1, 2], [3, 4, 0]])


def test_what_is_no_layer_is_listed_and_products_are_kept_where_asked_for():
    net = seeded(Attention)
    given = {"mask": np.ones((2, 3), np.float32), "tokens": TOKENS}
    trace = trace_of_module(net, given)
    assert [layer.name for layer in trace.layers] == ["query", "key", "out"]
    assert trace.provenance["not_simulated"] == {
        "up": "ConvTranspose1d",
        "norm": "LayerNorm",
        "table": "Embedding",
        "matmul1": "a product of activations",
        "matmul2": "a product of activations",
    }
    assert trace.provenance["uses"] == {"out": 2}
    assert notes_of(trace) == [
        "not simulated, ConvTranspose1d: up",
        "not simulated, LayerNorm: norm",
        "not simulated, Embedding: table",
        "not simulated, a product of activations: matmul1, matmul2",
        "used 2 times, its inputs one after another: out",
    ]
    whole = trace_of_module(net, given, products=True)
    assert [layer.op for layer in whole.layers].count("matmul") == 2
    assert "matmul1" not in whole.provenance["not_simulated"]


def test_a_shared_weight_is_pruned_once_for_all_its_layers():
    trace = trace_of_module(seeded(Attention), TOKENS, prune="2:4")
    query, _, out = trace.layers
    np.testing.assert_array_equal(query.weight, out.weight)
    assert query.pattern == out.pattern == TWO_OF_FOUR


def test_samples_are_matched_to_the_arguments_by_name_or_order():
    net = seeded(Attention)
    mask = np.array([[1, 0, 1], [1, 1, 1]], np.float64)
    named = trace_of_module(net, {"tokens": TOKENS.astype(np.int32), "mask": mask})
    ordered = trace_of_module(net, {"arr_0": TOKENS, "arr_1": mask})
    bare = trace_of_module(net, (torch.from_numpy(TOKENS), torch.from_numpy(mask)))
    for other in (ordered, bare):
        assert other.sha256 == named.sha256
    with pytest.raises(InputError) as error:
        trace_of_module(net, {"ids": TOKENS})
    assert str(error.value) == (
        "samples must be named as forward's arguments, tokens, mask, scale: there is no argument ids; rename them, or "
        "leave them out of the file"
    )


def test_a_network_of_products_alone_needs_them_asked_for():
    class Square(nn.Module):
        def forward(self, x):
            return x @ x.transpose(-1, -2)

    with pytest.raises(InputError) as error:
        trace_of_module(Square(), X[None])
    assert str(error.value) == "Square forms products of activations alone; give products to keep them"


def test_nothing_left_is_an_error():
    with pytest.raises(InputError) as error:
        trace_of_module(nn.Sequential(nn.Linear(3, 4)), X[:, :3], prune="2:4")
    assert str(error.value) == (
        "prune 2:4 must find a layer of Sequential to prune, and finds none: "
        "0.weight, 3 input channels are no whole number of groups of 4"
    )
    with pytest.raises(InputError) as error:
        trace_of_module(chain(), X, exclude=["0"])
    assert str(error.value) == "exclude is for prune, and there is none; leave it out"


FACTORY = """
from torch import nn, manual_seed
import torch

def build():
    with torch.random.fork_rng(devices=[]):
        manual_seed(0)
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

class Nets:
    small = staticmethod(build)

ready = build()
number = 3

def fails():
    return 3

def later():
    from parts_of_the_net import Part
    return Part(8, 4)
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebodys_net.py").write_text(FACTORY)
    (tmp_path / "parts_of_the_net.py").write_text("from torch.nn import Linear as Part\n")
    (tmp_path / "old_net.py").write_text("import torch\n\ntorch.no_such_thing\n")
    np.save("x.npy", X)
    yield "somebodys_net"
    import sys

    for name in ("somebodys_net", "parts_of_the_net"):
        sys.modules.pop(name, None)


def test_a_factory_is_imported_from_where_one_is(factory):
    import sys

    before = list(sys.path)
    assert isinstance(load_factory(f"{factory}:later"), nn.Linear)  # which imports from there when it is called
    for attribute in ("build", "Nets.small", "ready"):
        assert isinstance(load_factory(f"{factory}:{attribute}"), nn.Sequential)
    assert sys.path == before
    trace = import_model(f"{factory}:build", inputs="x.npy", prune="0.5")
    assert (trace.name, trace.sparsity) == (f"{factory}-0.5", 0.5)
    np.testing.assert_array_equal(trace.layers[0].inputs, X)


@pytest.mark.parametrize(
    ("source", "options", "rule"),
    [
        (
            "no_such_net:build",
            {"inputs": "x.npy"},
            "the module must be importable from here, and is not: No module named",
        ),
        (
            "old_net:build",
            {"inputs": "x.npy"},
            "the module must be importable from here, and is not: AttributeError module 'torch' has no attribute",
        ),
        ("somebodys_net:nope", {"inputs": "x.npy"}, "the module must have the function, and has not: module"),
        ("somebodys_net:fails", {"inputs": "x.npy"}, "the function must return a torch.nn.Module, not int"),
        ("somebodys_net:number", {"inputs": "x.npy"}, "the function must return a torch.nn.Module, not int"),
        ("somebodys_net:build", {}, "a module must be fed with samples; give inputs, a .npy, .npz or .safetensors"),
        (
            "somebodys_net:build",
            {"inputs": "x.npy", "draw": {"act_density": 0.5}},
            "act_density is for inputs that are drawn, and these are given; leave it out",
        ),
        (
            "somebodys_net:build",
            {"inputs": "wide.npy"},
            "the network must take samples of shape (2, 9), and does not: ",
        ),
    ],
)
def test_a_factory_that_does_not_work_is_one_line(factory, source, options, rule):
    np.save("wide.npy", np.ones((2, 9), np.float32))
    with pytest.raises(InputError) as error:
        import_model(source, **options)
    assert str(error.value).startswith(f"{source}: {rule}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("none.npy", "none.npy: an .npy file must be a readable file, and No such file or directory; check the path"),
        ("x.txt", "x.txt: the name of a file of samples must end in .npy, .npz, .safetensors, not '.txt'"),
        ("nan.npy", "nan.npy: the array must hold finite numbers, and its dtype is float64; mend it"),
        ("empty.npz", "empty.npz: a file of samples must hold at least one array, and holds none"),
    ],
)
def test_samples_that_are_none_are_refused(factory, name, rule):
    np.save("nan.npy", np.array([np.nan]))
    np.savez("empty.npz")
    with pytest.raises(InputError) as error:
        import_model(f"{factory}:build", inputs=name)
    assert str(error.value) == rule
