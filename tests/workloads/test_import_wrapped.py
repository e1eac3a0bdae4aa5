"""What PyTorch or a user's own code puts around a network, and networks whose layers cannot be seen."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers.torch_module import load_factory, trace_of_module

from .captured import drawn, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

X = drawn(3, 8)


def chain():
    return seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what torch.compile imports
def test_what_is_compiled_or_parallel_has_the_names_of_the_network():
    plain = trace_of_module(chain(), X, prune="2:4")
    inner = chain()
    inner[0] = torch.compile(inner[0])
    wrapped = inner[0]
    in_place = chain()
    in_place.compile()
    for net in (torch.compile(chain()), nn.DataParallel(chain()), inner, in_place):
        trace = trace_of_module(net, X, prune="2:4")
        assert [layer.name for layer in trace.layers] == ["0", "2"]
        for layer, other in zip(trace.layers, plain.layers, strict=True):
            np.testing.assert_array_equal(layer.weight, other.weight)
            np.testing.assert_array_equal(layer.inputs, other.inputs)
    assert inner[0] is wrapped and in_place._compiled_call_impl is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_functions_that_are_compiled_run_as_they_are_written():
    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)
            self.act = torch.compile(lambda x: self.first(x).relu(), fullgraph=True)

        def forward(self, x):
            return self.second(self.act(x))

    net = seeded(Compiled)
    trace = trace_of_module(net, X, prune="2:4")
    assert [layer.name for layer in trace.layers] == ["first", "second"]
    assert (trace.layers[1].inputs >= 0).all()


def test_operators_that_take_functions_are_listed_and_the_layers_in_them_are_there():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            from torch._higher_order_ops.cond import cond_op

            return cond_op(torch.tensor(True), lambda x: self.first(x), lambda x: self.second(x), (x,))

    trace = trace_of_module(seeded(Branched), X)
    assert [layer.name for layer in trace.layers] == ["first"]
    assert trace.provenance["not_simulated"] == {"second": "Linear, not used", "network": "operations inside of cond"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: torch.jit.script(chain()),
         "the network must be a module in Python, and is compiled to TorchScript, which shows no layers; give the "
         "module that it was made of, or an ONNX file"),
        (lambda: nn.Sequential(nn.Linear(8, 8), torch.jit.script(nn.Linear(8, 4))),
         "part '1' must be a module in Python, and is compiled to TorchScript, which shows no layers; give the module "
         "that it was made of, or an ONNX file"),
        (lambda: nn.Sequential(nn.LazyLinear(4)),
         "0.weight must have a shape, and is lazy; let samples go through the network where it is made"),
        (lambda: nn.Linear(8, 4, device="meta"),
         "weight must hold numbers, and is on the device meta; load the weights"),
    ],
    ids=["script", "part", "lazy", "meta"],
)  # fmt: skip
@pytest.mark.parametrize("prune", [None, "2:4"])
def test_a_network_whose_layers_cannot_be_seen_is_refused(make, told, prune):
    with pytest.raises(InputError) as refused:
        trace_of_module(make(), X, prune=prune)
    assert str(refused.value) == told


class Failing(nn.Linear):
    def __init__(self, error):
        super().__init__(8, 4)
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyError("mask"), "KeyError 'mask'"),
        (AssertionError(), "AssertionError"),
        (AttributeError("no attribute 'foo'"), "AttributeError no attribute 'foo'"),
        (ValueError("9 is no size"), "9 is no size"),
    ],
)
def test_whatever_the_network_itself_raises_is_told_in_one_line(error, why):
    with pytest.raises(InputError) as told:
        trace_of_module(Failing(error), X)
    assert str(told.value) == f"the network must take samples of shape (3, 8), and does not: {why}"


def test_a_network_that_exits_is_refused():
    with pytest.raises(InputError) as told:
        trace_of_module(Failing(SystemExit("done")), X)
    assert str(told.value) == "the network must take samples, and exits: SystemExit done"


def test_whatever_the_function_raises_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_net.py").write_text("def build(path):\n    pass\n\ndef load():\n    open('weights.pt')\n")
    with (tmp_path / "failing_net.py").open("a") as file:
        file.write("\ndef leave():\n    raise SystemExit('done')\n")
    (tmp_path / "program_net.py").write_text("import sys\n\nsys.exit(0)\n")
    (tmp_path / "broken_net.py").write_text("def build(:\n")
    told = {}
    for text in ("failing_net:build", "failing_net:load", "failing_net:leave", "broken_net:build", "program_net:build"):
        with pytest.raises(InputError) as refused:
            load_factory(text)
        told[text] = str(refused.value)
    sys.modules.pop("failing_net")
    assert told["failing_net:build"] == (
        "failing_net:build: the function must make a module without arguments, and fails: build() missing 1 required "
        "positional argument: 'path'"
    )
    assert told["failing_net:load"] == (
        "failing_net:load: the function must make a module without arguments, and fails: FileNotFoundError [Errno 2] "
        "No such file or directory: 'weights.pt'"
    )
    assert told["program_net:build"] == (
        "program_net:build: the module must be importable from here, and exits (0); put what it runs as a program "
        "under if __name__ == '__main__'"
    )
    assert told["failing_net:leave"] == (
        "failing_net:leave: the function must make a module without arguments, and fails: SystemExit done"
    )
    assert told["broken_net:build"].startswith(
        "broken_net:build: the module must be importable from here, and is not: SyntaxError invalid syntax"
    )


@pytest.mark.parametrize("kind", ["ImportError", "RuntimeError", "SystemExit"])
def test_a_module_that_refuses_to_be_asked_is_told_in_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"asked_{kind}.py").write_text(f"def __getattr__(name):\n    raise {kind}('needs x')\n")
    with pytest.raises(InputError) as told:
        load_factory(f"asked_{kind}:build")
    why = "needs x" if kind == "RuntimeError" else f"{kind} needs x"
    assert str(told.value) == f"asked_{kind}:build: the module must give the function, and fails: {why}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what torch.compile imports
def test_a_torch_without_stances_is_enough(monkeypatch):
    net = chain()
    net[0] = torch.compile(net[0])
    monkeypatch.delattr(torch.compiler, "set_stance")
    assert [layer.name for layer in trace_of_module(net, X).layers] == ["0", "2"]


class Eighths(torch.Tensor):
    """Numbers kept as whole eighths, as quantizing tools keep theirs: in a class of tensors of its own."""

    @staticmethod
    def __new__(cls, whole):
        return torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=torch.float32)

    def __init__(self, whole):
        self.whole = whole

    def __tensor_flatten__(self):
        return ["whole"], None

    @classmethod
    def __tensor_unflatten__(cls, inner, context, size, stride):
        return cls(inner["whole"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].whole)
        raise NotImplementedError(f"{func} is not for eighths")

    def dequantize(self):
        return self.whole / 8


class Sealed(Eighths):
    """Numbers that are not told."""

    def dequantize(self):
        raise NotImplementedError("sealed")


def quantized(kind):
    whole = torch.from_numpy(np.random.default_rng(1).integers(-9, 9, (4, 8)))
    net = nn.Sequential(nn.Linear(8, 4))
    net[0].weight = nn.Parameter(kind(whole), requires_grad=False)
    return net, whole


def test_weights_of_a_class_of_their_own_become_the_numbers_they_stand_for():
    net, whole = quantized(Eighths)
    (layer,) = trace_of_module(net, X).layers
    np.testing.assert_array_equal(layer.weight, whole.numpy() / np.float32(8) + 0)
    (layer,) = trace_of_module(net, X, prune="2:4").layers
    assert layer.pattern.kind == "n:m"
    assert type(net[0].weight.data) is Eighths


@pytest.mark.parametrize("prune", [None, "2:4"])
def test_weights_that_do_not_tell_their_numbers_are_refused(prune):
    with pytest.raises(InputError) as told:
        trace_of_module(quantized(Sealed)[0], X, prune=prune)
    assert str(told.value) == (
        "parameter 0.weight: must be a plain tensor or tell its numbers, and is a Sealed (sealed); dequantize it"
    )
