"""Networks that hold other tensors than plain ones: sparse, opaque, complex, without elements, of a copied class."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers import import_model
from gossamer.workloads.importers.torch_module import trace_of_module
from gossamer.workloads.training.capture import capture

from .captured import by_name, drawn, seeded

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:The PyTorch API of nested:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse BSR:UserWarning"),
]

X = drawn(4, 8)
ADJACENCY = torch.eye(4) + torch.eye(4).flip(0)
FORMS = {
    "coo": lambda dense: dense.to_sparse(),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
    "bsr": lambda dense: dense.to_sparse_bsr((2, 2)),
}
rules = pytest.mark.parametrize("rule", [None, "2:4"])


class Graph(nn.Module):
    """A layer of a graph network: what its neighbours are told, summed."""

    def __init__(self, adjacency, multiply=torch.matmul):
        super().__init__()
        self.fc, self.last, self.multiply = nn.Linear(8, 8), nn.Linear(8, 4), multiply
        self.register_buffer("adjacency", adjacency)

    def forward(self, x):
        return self.last(self.multiply(self.adjacency, self.fc(x)).relu())


@rules
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("multiply", [torch.matmul, torch.sparse.mm])
def test_products_with_a_sparse_matrix_are_listed_and_the_layers_around_them_are_there(form, multiply, rule):
    if form == "bsr" and multiply is torch.sparse.mm:
        multiply = torch.matmul
    net = seeded(lambda: Graph(FORMS[form](ADJACENCY), multiply))
    trace = trace_of_module(net, X, prune=rule)
    assert [layer.name for layer in trace.layers] == ["fc", "last"]
    layout = str(net.adjacency.layout).removeprefix("torch.")
    assert trace.provenance["not_simulated"] == {"adjacency": f"a product with a tensor of layout {layout}"}
    fc, last = trace.layers
    summed = ADJACENCY.numpy() @ (fc.inputs @ fc.weight.T + fc.bias)
    np.testing.assert_allclose(last.inputs, np.maximum(summed, 0), rtol=1e-5, atol=1e-6)


def test_a_graph_network_comes_in_by_the_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graph_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.fc = nn.Linear(8, 8)\n"
        "        self.register_buffer('adj', torch.eye(4).to_sparse())\n\n    def forward(self, x):\n"
        "        return torch.sparse.mm(self.adj, self.fc(x))\n"
    )
    np.save("x.npy", X)
    trace = import_model("graph_net:Net", inputs="x.npy")
    assert trace.provenance["not_simulated"] == {"adj": "a product with a tensor of layout sparse_coo"}


@rules
@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_weight_of_a_layer_is_taken_with_its_places_for_a_mask(form, rule):
    dense = torch.block_diag(*[torch.ones(2, 2)] * 4)
    net = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)))
    net[0].weight = nn.Parameter(FORMS[form](dense), requires_grad=False)
    net.register_buffer("other", ADJACENCY.to_sparse_csr())  # which torch does not copy
    weight = net[0].weight
    trace = trace_of_module(net, X, prune=rule)
    assert net[0].weight is weight
    first, second = trace.layers
    np.testing.assert_array_equal(first.weight, dense)
    np.testing.assert_array_equal(first.mask, dense != 0)
    assert (first.pattern.kind, first.pattern.n, first.pattern.m) == ("n:m", 2, 4 if rule else 8)
    np.testing.assert_allclose(second.inputs, X @ dense.T + net[0].bias.detach(), rtol=1e-5, atol=1e-6)


class Held(nn.Module):
    def __init__(self, held, act):
        super().__init__()
        self.fc, self.act = nn.Linear(8, 8), act
        self.held = nn.Parameter(held, requires_grad=False)

    def forward(self, x):
        return self.act(self.fc(x), self.held)


@rules
@pytest.mark.parametrize(
    ("held", "act", "layers", "listed"),
    [
        (torch.eye(8).to_mkldnn(), lambda x, w: functional.linear(x, w.to_dense()), ["fc", "held"], {}),
        (
            torch.eye(8, dtype=torch.complex64),
            lambda x, w: (x.to(w.dtype) @ w).real,
            ["fc"],
            {"held": "a product of complex64"},
        ),
        (torch.zeros(0, 8), functional.linear, ["fc"], {"held": "fed with nothing by these samples"}),
        (
            torch.eye(8),
            lambda x, w: functional.linear(torch.nested.nested_tensor([x, x[:2]]), w).to_padded_tensor(0),
            ["fc"],
            {"held": "parameter of Held"},
        ),
        (
            torch.eye(8),
            lambda x, w: torch.sparse.mm(x.relu().to_sparse(), w),
            ["fc"],
            {"held": "a product with a tensor of layout sparse_coo"},
        ),
        (
            torch.eye(8),
            lambda x, w: functional.linear((x * 1j) @ (x * 1j).T, (w[:4, :4] + 0j)).real,
            ["fc"],
            {"network": "a product of complex64, of activations", "held": "a product of complex64"},
        ),
        (torch.eye(8).to(torch.float8_e4m3fn), lambda x, w: functional.linear(x, w.float()), ["fc", "held"], {}),
    ],
    ids=["mkldnn", "complex", "empty", "nested", "sparse activations", "complex activations", "one byte"],
)
def test_what_no_layer_can_hold_is_listed_and_the_rest_is_there(held, act, layers, listed, rule):
    trace = trace_of_module(seeded(lambda: Held(held, act)), X, prune=rule)
    assert [layer.name for layer in trace.layers] == layers
    assert trace.provenance.get("not_simulated", {}) == listed
    if "held" in layers:
        np.testing.assert_array_equal(by_name(trace.layers)["held"].weight, torch.eye(8))


def test_sparse_products_of_activations_are_listed():
    net = seeded(lambda: Held(torch.eye(8), lambda x, w: torch.sparse.mm((x @ x.T).relu().to_sparse(), x) @ w))
    trace = trace_of_module(net, X, products=True)
    assert [layer.name for layer in trace.layers] == ["fc", "matmul1", "held"]
    assert trace.provenance["not_simulated"] == {
        "network": "a product with a tensor of layout sparse_coo, of activations"
    }


def test_a_layer_without_weights_or_of_complex_numbers_is_listed():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.none = nn.Linear(8, 8), nn.Linear(8, 1)
            self.none.weight = nn.Parameter(torch.empty(0, 8))
            self.none.bias = nn.Parameter(torch.empty(0))
            self.complex = nn.Linear(8, 8, dtype=torch.complex64)

        def forward(self, x):
            x = self.fc(x)
            return self.none(x), self.complex(x.to(torch.complex64))

    for rule in (None, "2:4"):
        trace = trace_of_module(seeded(Both), X, prune=rule)
        assert [layer.name for layer in trace.layers] == ["fc"]
        assert trace.provenance["not_simulated"] == {
            "none": "Linear without weights",
            "complex": "Linear of complex numbers",
        }


def test_layers_inside_of_vmap_are_listed():
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.each = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return torch.vmap(self.each)(self.fc(x))

    trace = trace_of_module(seeded(Mapped), X)
    assert [layer.name for layer in trace.layers] == ["fc"]
    assert trace.provenance["not_simulated"] == {"each": "Linear inside of vmap"}


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.held = nn.Linear(8, 8), nn.Parameter(torch.ones(4, 8))

    def forward(self, x):
        return functional.linear(self.fc(x).relu(), self.held)


@rules
def test_a_network_as_a_graph_gives_the_layers_of_the_network(rule):
    import torch.fx

    net = seeded(Chain)
    plain = trace_of_module(net, X, prune=rule)
    exported = torch.export.export(net, (X,)).module()
    for graph in (torch.fx.symbolic_trace(net), exported):
        trace = trace_of_module(graph, X, prune=rule)
        assert [layer.name for layer in trace.layers] == ["fc", "held"]
        for layer, other in zip(trace.layers, plain.layers, strict=True):
            np.testing.assert_array_equal(layer.weight, other.weight)
            np.testing.assert_array_equal(layer.inputs, other.inputs)
    with pytest.raises(NotImplementedError):  # as before
        exported.eval()


def test_a_graph_among_the_parts_is_asked_for_no_mode():
    exported = torch.export.export(seeded(Chain), (X,)).module()
    net = nn.Sequential(exported, nn.Linear(4, 8))
    own = {key: vars(exported)[key] for key in ("eval", "train")}
    assert [layer.name for layer in trace_of_module(net, X).layers] == ["0.fc", "0.held", "1"]
    assert {key: vars(exported)[key] for key in ("eval", "train")} == own


class Fixed(nn.Sequential):
    def train(self, mode=True):
        raise NotImplementedError("fixed")


def test_a_network_that_has_one_mode_is_refused_and_left_without_hooks():
    net = Fixed(nn.Linear(8, 8))
    for function in (trace_of_module, capture):
        with pytest.raises(InputError) as told:
            function(net, X)
        assert str(told.value) == ("the network must take the mode of evaluation, and does not: fixed")
        assert not net[0]._forward_hooks and not net._forward_pre_hooks


def test_a_layer_called_by_functional_call_has_the_weight_that_it_is_called_with():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return torch.func.functional_call(self.fc, {"weight": self.fc.weight * 2}, (x,))

    net = seeded(Twice)
    (layer,) = trace_of_module(net, X).layers
    np.testing.assert_array_equal(layer.weight, net.fc.weight.detach() * 2)


def test_a_buffer_without_numbers_is_refused_by_its_name():
    net = Graph(torch.empty(4, 4, device="meta"))
    with pytest.raises(InputError) as told:
        trace_of_module(net, X)
    assert str(told.value) == "adjacency must hold numbers, and is on the device meta; load the weights"
