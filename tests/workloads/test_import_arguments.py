"""How the samples of a file reach the arguments of forward."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.workloads.errors import InputError
from gossamer.workloads.importers import import_model
from gossamer.workloads.importers.arguments import arguments_of
from gossamer.workloads.importers.samples import read_samples
from gossamer.workloads.importers.torch_module import trace_of_module

from .captured import drawn, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

X, Y, Z = (drawn(3, 8, seed=seed) for seed in range(3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.y, self.z = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def all(self, x=None, y=None, z=None):
        return sum(layer(each) for layer, each in ((self.x, x), (self.y, y), (self.z, z)) if each is not None)


class Plain(Net):
    def forward(self, x, y=None, z=None):
        return self.all(x, y, z)


class Keywords(Net):
    def forward(self, **batch):
        return self.all(**batch)


class Rest(Net):
    def forward(self, x, **rest):
        return self.all(x, **rest)


class KeywordOnly(Net):
    def forward(self, x, *, y=None, z=None):
        return self.all(x, y, z)


class PositionalOnly(Net):
    def forward(self, x, /, y=None, **rest):
        return self.all(x, y, **rest)


class Order(Net):
    def forward(self, *several):
        return self.all(*several)


@pytest.mark.parametrize("kind", [Plain, Keywords, Rest, KeywordOnly, PositionalOnly])
@pytest.mark.parametrize("rule", [None, "2:4"])
@given(names=st.permutations("xyz"), count=st.integers(1, 3))
def test_names_go_to_the_arguments_of_these_names(kind, rule, names, count):
    values = dict(zip("xyz", (X, Y, Z), strict=True))
    names = [name for name in names if name == "x" or name in names[:count]]
    trace = trace_of_module(seeded(kind), {name: values[name].numpy() for name in names}, prune=rule)
    assert [layer.name for layer in trace.layers] == sorted(names)
    for layer in trace.layers:
        np.testing.assert_array_equal(layer.inputs, values[layer.name])


@pytest.mark.parametrize("kind", [Plain, Order])
def test_samples_without_names_go_by_their_number_not_by_where_they_lie_in_the_file(kind):
    given = {f"arr_{index}": each for index, each in reversed(list(enumerate((X, Y, Z))))}
    for layer, each in zip(trace_of_module(seeded(kind), given).layers, (X, Y, Z), strict=True):
        np.testing.assert_array_equal(layer.inputs, each)


def test_samples_without_names_come_before_those_with_one(tmp_path):
    np.savez(tmp_path / "xz.npz", X, z=Z)
    for kind in (Plain, Rest, KeywordOnly):
        trace = trace_of_module(seeded(kind), read_samples(tmp_path / "xz.npz"))
        assert [layer.name for layer in trace.layers] == ["x", "z"]
        np.testing.assert_array_equal(trace.layers[1].inputs, Z)


def test_ten_and_more_samples_are_in_order():
    class Many(nn.Linear):
        def forward(self, *several):
            return super().forward(several[2])

    given = {name: np.full((1, 8), int(name[4:])) for name in sorted(f"arr_{index}" for index in range(12))}
    assert [int(each[0, 0]) for each in arguments_of(Many(8, 8), given).values] == list(range(12))


def test_an_argument_may_be_called_as_numpy_calls_arrays():
    class Called(nn.Linear):
        def forward(self, other, arr_0):
            return super().forward(arr_0)

    given = arguments_of(Called(8, 8), {"arr_0": X, "other": Y})
    assert torch.equal(given.values[0], Y) and torch.equal(given.values[1], X)


@pytest.mark.parametrize(
    ("kind", "names", "told"),
    [
        (Plain, ["ids"], "x, y, z: there is no argument ids; rename them, or leave them out of the file"),
        (Plain, ["x", "w", "v"], "x, y, z: there is no argument w, v; rename them, or leave them out of the file"),
        (Plain, ["y"], "x, y, z: missing a required argument: 'x'; rename them"),
        (Plain, ["arr_0", "x"], "x, y, z: multiple values for argument 'x'; rename them"),
        (Rest, ["y"], "x, **rest: missing a required argument: 'x'; rename them"),
        (Order, ["x"], "*several: there is no argument x; rename them, or leave them out of the file"),
        (Keywords, ["arr_0", "x"], "**batch: too many positional arguments; rename them"),
    ],
)
def test_what_fits_no_argument_is_one_line(kind, names, told):
    with pytest.raises(InputError) as error:
        trace_of_module(kind(), dict.fromkeys(names, X))
    assert str(error.value) == f"samples must be named as forward's arguments, {told}"


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64"])
def test_whole_numbers_and_truth_values_keep_their_dtype(dtype, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((3, 8), dtype))
    (made,) = arguments_of(Plain(), read_samples(tmp_path / "x.npz")).values
    assert made.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint16", "uint32"])
def test_whole_numbers_of_16_and_32_bits_become_indices(dtype, tmp_path):
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.held = nn.Linear(8, 8), nn.Embedding(8, 8)

        def forward(self, ids):
            return self.fc(nn.functional.one_hot(ids, 8) + torch.take_along_dim(self.held(ids), ids[..., None], -1))

    np.save(tmp_path / "ids.npy", np.arange(6, dtype=dtype).reshape(2, 3))
    (layer,) = trace_of_module(OneHot(), read_samples(tmp_path / "ids.npy")).layers
    assert layer.inputs.shape == (2, 3, 8)


@pytest.mark.parametrize("narrow_first", [True, False])
def test_floats_have_the_dtype_of_the_first_layer(narrow_first):
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.zeros(500, dtype=torch.float32 if narrow_first else torch.bfloat16))
            self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 100)
            (self.body if narrow_first else self.head).bfloat16()

        def forward(self, x):
            return self.head(self.body(x).to(self.head.weight.dtype))

    assert [layer.name for layer in trace_of_module(Body(), X).layers] == ["body", "head"]


@pytest.mark.parametrize("dtype", [">f4", ">i8", "<f2", "longdouble", ">i2"])
def test_samples_of_any_order_of_bytes_and_width_are_read(dtype, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).astype(dtype))
    (made,) = arguments_of(Plain(), read_samples(tmp_path / "x.npy")).values
    assert made.tolist() == list(range(6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_have_the_dtype_of_the_weights(dtype):
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).to(dtype)
    net.scale = nn.Parameter(torch.ones(1))  # the first, and of another kind
    (made,) = arguments_of(net, {"input": X}).values
    assert made.dtype == dtype
    (first, _) = trace_of_module(net, X).layers
    np.testing.assert_array_equal(first.inputs, X.to(dtype).float())


def test_a_forward_that_does_not_tell_its_arguments_takes_any():
    net = nn.Linear(8, 8)
    net.forward = torch.relu
    assert list(arguments_of(net, {"input": X}).keywords) == ["input"]


def test_the_command_feeds_keywords(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_of_keywords.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = nn.Linear(8, 8)\n\n    def forward(self, **batch):\n"
        "        return self.fc(batch['first'] + batch['second'])\n"
    )
    np.savez("both.npz", first=X, second=Y)
    (layer,) = import_model("net_of_keywords:Net", inputs="both.npz", prune="2:4").layers
    np.testing.assert_array_equal(layer.inputs, X + Y)
