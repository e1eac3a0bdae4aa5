import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.data import load_data
from gossamer.workloads.errors import InputError
from gossamer.workloads.files.trace_file import load_trace_file, save_trace
from gossamer.workloads.networks import build_network
from gossamer.workloads.training import Recipe, prune, train
from gossamer.workloads.training.export import trace_of

SHORT = {"epochs": 2, "finetune_epochs": 1, "samples": 3}


@pytest.fixture(scope="module")
def convolutional():
    """A net with batch norms, pruned to 1:4 but for the one input channel."""
    return train(
        Recipe(
            name="net", network="convnet-digits", data="digits-images", method="asp", n=1, m=4, exclude=("conv1",),
            **SHORT,
        )
    )  # fmt: skip


def scores(run, module, inputs):
    module = copy.deepcopy(module).eval()
    run.load_into(module)
    with torch.no_grad():
        for name, mask in run.masks.items():
            module.get_parameter(name).mul_(torch.from_numpy(mask))
        return module(torch.from_numpy(inputs)).numpy()


def test_the_trace_of_a_convolutional_net_has_its_layers_patterns_and_real_activations(convolutional, tmp_path):
    run, data = convolutional, load_data("digits-images")
    trace = run.trace
    assert [(layer.name, layer.op, layer.pattern.kind) for layer in trace.layers] == [
        ("conv1", "conv2d", "dense"),
        ("conv2", "conv2d", "n:m"),
        ("conv3", "conv2d", "n:m"),
        ("fc", "linear", "n:m"),
    ]
    assert trace.provenance["not_simulated"] == {f"norm{i}": "BatchNorm2d" for i in (1, 2, 3)}
    assert "uses" not in trace.provenance and "padded" not in trace.provenance
    assert np.array_equal(trace.layers[0].inputs, data.test_inputs[:3])
    last = trace.layers[-1]
    expected = scores(run, build_network("convnet-digits"), data.test_inputs[:3])
    assert last.inputs @ last.weight.T + last.bias == pytest.approx(expected, abs=1e-4)  # with the norms' statistics
    assert trace.provenance["predictions"] == expected.argmax(axis=1).tolist()
    assert trace.provenance["labels"] == data.test_labels[:3].tolist()
    assert load_trace_file(save_trace(trace, tmp_path / "net.safetensors")).sha256 == trace.sha256


def test_the_sparsity_of_the_provenance_is_that_of_the_layers(convolutional):
    provenance = convolutional.trace.provenance
    assert provenance["sparsity_by_layer"] == {"conv1": 0, "conv2": 0.75, "conv3": 0.75, "fc": 0.75}
    sizes = {layer.name: layer.weight.size for layer in convolutional.trace.layers}
    assert provenance["sparsity"] == pytest.approx(0.75 * (1 - sizes["conv1"] / sum(sizes.values())))


def test_layers_that_groups_do_not_tile_are_padded_and_the_provenance_says_so():
    run = train(Recipe(name="one-of-8", method="asp", n=1, m=8, pad=True, **SHORT))
    layers = {layer.name: layer for layer in run.trace.layers}
    assert {name: layer.shape for name, layer in layers.items()} == {
        "fc1": (300, 64), "fc2": (100, 304), "fc3": (10, 104),
    }  # fmt: skip
    assert {(layer.pattern.n, layer.pattern.m) for layer in layers.values()} == {(1, 8)}
    assert run.trace.provenance["padded"] == {
        "fc2": "input channels from 300 to 304",
        "fc3": "input channels from 100 to 104",
    }


class Own(nn.Module):
    """A network of the user's own, with a layer used twice and a norm."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(64, 16)
        self.again = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.into(x))
        return self.out(self.norm(torch.relu(self.again(torch.relu(self.again(x))))))


def test_a_network_of_the_users_own_is_traced_with_its_own_samples():
    data = load_data("digits")
    train_set, test_set = (
        [(torch.from_numpy(x[:128]), torch.from_numpy(y[:128]))]
        for x, y in ((data.train_inputs, data.train_labels), (data.test_inputs, data.test_labels))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Own()
    before = copy.deepcopy(module.state_dict())
    run = prune(module, train_set, test_set, Recipe(name="own", method="one-shot", sparsity=0.5, **SHORT))
    trace = run.trace
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [(layer.name, len(layer.inputs)) for layer in trace.layers] == [("into", 3), ("again", 6), ("out", 3)]
    assert (trace.provenance["network"], trace.provenance["data"]) == ("Own", "the user's own")
    assert trace.provenance["uses"] == {"again": 2}
    assert trace.provenance["not_simulated"] == {"norm": "LayerNorm"}
    assert trace.provenance["predictions"] == scores(run, module, data.test_inputs[:3]).argmax(axis=1).tolist()
    assert trace.sparsity == 0.5
    with pytest.raises(InputError) as error:
        trace_of(run, module=nn.Sequential(nn.Linear(64, 10)), samples=data.test_inputs[:3])
    assert str(error.value) == (
        "run own: its parameters must be those of the network, and into.weight, into.bias, again.weight, again.bias, "
        "norm.weight, norm.bias, out.weight, out.bias, 0.weight, 0.bias differ; give the network that was trained"
    )
    with pytest.raises(InputError) as error:
        trace_of(run, module=module)
    assert str(error.value) == "a network of one's own needs samples to be fed with, and has none; give some"


def test_a_run_traced_on_a_module_leaves_it_as_it_was(convolutional):
    module = build_network("convnet-digits").train()
    before = copy.deepcopy(module.state_dict())
    samples = load_data("digits-images").test_inputs[:3]
    trace = trace_of(convolutional, module=module, samples=samples)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert "labels" not in trace.provenance
    assert trace.layers[2].inputs.tobytes() == convolutional.trace.layers[2].inputs.tobytes()
    lacking = replace(convolutional, buffers={})  # statistics of a fresh net: other activations, and no error
    assert trace_of(lacking, module=module, samples=samples).sha256 != trace.sha256
