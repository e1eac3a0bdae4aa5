"""Batch norms folded into the layers that feed them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.workloads.files.trace_file import load_trace_file, save_trace
from gossamer.workloads.lowering import lower
from gossamer.workloads.networks import build_network
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.points.sparse_conv import exact_convolution
from gossamer.workloads.training import export_checkpoint, load_recipe, train
from gossamer.workloads.training.capture import capture, capture_all
from gossamer.workloads.training.export import trace_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def used(module, seed=0):
    """The module with batch norms that have seen something: scales of either sign, one of them 0."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for norm in (part for part in module.modules() if isinstance(part, NORMS)):
            count = norm.num_features
            norm.running_mean.copy_(torch.from_numpy(rng.normal(0, 1, count)))
            norm.running_var.copy_(torch.from_numpy(rng.uniform(0.1, 3, count)))
            if norm.affine:
                norm.weight.copy_(torch.from_numpy(rng.normal(0, 1, count)))
                norm.weight[0] = 0
                norm.bias.copy_(torch.from_numpy(rng.normal(0, 1, count)))
    return module.eval()


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return used(make())


def product(layer):
    """What the layer computes, one row a vector."""
    parts = []
    for part in lower(layer):
        bias = 0 if part.bias_values is None else part.bias_values
        parts.append(part.vectors.astype(np.float64) @ part.weight.T.astype(np.float64) + bias)
    return np.concatenate(parts, axis=1)


def given_by(module, names, samples):
    """What the modules of these names returned, one row a vector."""
    seen = {}
    handles = [
        module.get_submodule(name).register_forward_hook(lambda part, fed, out, name=name: seen.update({name: out}))
        for name in names
    ]
    with torch.no_grad():
        module(samples)
    for handle in handles:
        handle.remove()
    return {name: output.movedim(1, -1).flatten(end_dim=-2).numpy() for name, output in seen.items()}


@pytest.mark.parametrize(("name", "count"), [("convnet-digits", 3), ("resnet-20", 19)])
def test_a_folded_layer_computes_what_its_batch_norm_returns(name, count):
    network, samples = seeded(lambda: build_network(name, (1, 8, 8))), drawn(3, 1, 8, 8)
    plain, captured = capture_all(network, samples), capture_all(network, samples, fold_batch_norm=True)
    assert len(captured.folded) == count
    assert captured.not_simulated == {}
    assert plain.folded == {}
    assert sorted(plain.not_simulated) == sorted(captured.folded.values())
    outputs = given_by(network, captured.folded.values(), samples)
    for layer, before in zip(captured.layers, plain.layers, strict=True):
        assert np.array_equal(layer.inputs, before.inputs)
        if layer.name in captured.folded:
            expected = outputs[captured.folded[layer.name]]
            assert product(layer) == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(expected).max()))
        else:
            assert np.array_equal(layer.weight, before.weight)
    assert torch.equal(captured.outputs, plain.outputs)


def test_a_network_with_folded_weights_and_no_batch_norms_returns_the_same():
    network, samples = seeded(lambda: build_network("convnet-digits")), drawn(20, 1, 8, 8)
    captured = capture_all(network, samples, fold_batch_norm=True)
    bare = copy.deepcopy(network)
    for layer in captured.layers:
        if layer.name in captured.folded:
            part = bare.get_submodule(layer.name)
            part.weight.data = torch.from_numpy(layer.weight.copy())
            part.bias = nn.Parameter(torch.from_numpy(layer.bias.copy()))
            bare.set_submodule(captured.folded[layer.name], nn.Identity())
    with torch.no_grad():
        assert bare(samples).numpy() == pytest.approx(network(samples).numpy(), rel=1e-4, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_layer_with_a_batch_norm_behind_it_is_folded(data):
    draw = data.draw
    sides, groups, bias, affine = (
        draw(st.sampled_from(each)) for each in ([0, 1, 2], [1, 2], [True, False], [True, False])
    )

    def make():
        if sides == 0:
            layer = nn.Linear(4, 6, bias=bias)
        else:
            kind = nn.Conv1d if sides == 1 else nn.Conv2d
            layer = kind(4, 6, draw(st.integers(1, 3)), stride=draw(st.integers(1, 2)), groups=groups, bias=bias)
        kind = nn.BatchNorm2d if sides == 2 else nn.BatchNorm1d
        norm = kind(6, affine=affine, eps=draw(st.sampled_from([0, 1e-5])))
        return nn.Sequential(layer, nn.Dropout(0.5), norm, nn.ReLU(inplace=True))

    module, samples = seeded(make), drawn(3, 4, *[6] * sides)
    captured = capture_all(module, samples, fold_batch_norm=True)
    assert captured.folded == {"0": "2"}
    with torch.no_grad():
        expected = captured.outputs.movedim(1, -1).flatten(end_dim=-2).numpy()
    assert np.maximum(product(captured.layers[0]), 0) == pytest.approx(expected, rel=1e-4, abs=1e-4)


class Beside(nn.Module):
    """A layer whose result goes through a batch norm and past it as well."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), how

    def forward(self, x):
        return self.how(self, x)


BESIDE = {
    "is added to the norm's": lambda net, x: (y := net.conv(x), net.norm(y) + y)[1],
    "is returned": lambda net, x: (y := net.conv(x), {"scores": net.norm(y), "features": [y]})[1],
    "is read before": lambda net, x: (y := net.conv(x), y.mean(), net.norm(y))[2],
    "is changed before": lambda net, x: net.norm(net.conv(x).mul_(2)),
    "is cut": lambda net, x: net.norm(net.conv(x)[1:]),
    "goes through a function": lambda net, x: net.norm(torch.relu(net.conv(x))),
    "comes again without a norm": lambda net, x: net.conv(net.norm(net.conv(x))),
    "goes through the norm twice": lambda net, x: (y := net.conv(x), net.norm(y) + net.norm(y))[1],
    "comes after the norm": lambda net, x: net.conv(net.norm(x)),
}


@pytest.mark.parametrize("how", BESIDE)
def test_a_layer_is_left_as_it_is_where_its_result(how):
    module, samples = seeded(lambda: Beside(BESIDE[how])), drawn(2, 2, 3, 3)
    captured = capture_all(module, samples, fold_batch_norm=True)
    assert captured.folded == {}
    assert captured.not_simulated == {"norm": "BatchNorm2d"}
    (layer,) = captured.layers
    assert np.array_equal(layer.weight, module.conv.weight.detach().numpy())
    assert np.array_equal(layer.bias, module.conv.bias.detach().numpy())


def test_a_layer_that_always_feeds_the_same_norm_is_folded_and_a_norm_with_more_to_do_stays_named():
    again = seeded(lambda: Beside(lambda net, x: net.norm(net.conv(net.norm(net.conv(x))))))
    assert capture_all(again, drawn(2, 2, 3, 3), fold_batch_norm=True).folded == {"conv": "norm"}
    also = seeded(lambda: Beside(lambda net, x: net.norm(net.conv(net.norm(x)))))
    captured = capture_all(also, drawn(2, 2, 3, 3), fold_batch_norm=True)
    assert captured.folded == {"conv": "norm"}
    assert captured.not_simulated == {"norm": "BatchNorm2d"}


class Tokens(nn.Module):
    """The norm goes by axis 1, which here is that of the tokens."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.fc(x))


def test_a_norm_of_another_axis_or_of_the_batch_is_not_folded():
    assert capture_all(seeded(Tokens), drawn(2, 3, 4), fold_batch_norm=True).folded == {}
    assert capture_all(seeded(Tokens), drawn(2, 4), fold_batch_norm=True).folded == {"fc": "norm"}
    of_the_batch = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    assert capture_all(of_the_batch, drawn(2, 4), fold_batch_norm=True).folded == {}


def test_a_norm_that_would_give_no_finite_weights_is_not_folded():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=0.0)))
    module[1].running_var[1] = 0
    assert capture_all(module, drawn(2, 4), fold_batch_norm=True).folded == {}


def test_folding_keeps_zeros_masks_and_patterns():
    module = seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6)))
    mask = np.zeros((6, 8), bool)
    mask[:, ::2] = True
    patterns = {"0.weight": Pattern(kind="n:m", n=2, m=4, axis=1)}
    (layer,) = capture(module, drawn(2, 8), masks={"0.weight": mask}, patterns=patterns, fold_batch_norm=True)
    assert layer.pattern == patterns["0.weight"]
    assert np.array_equal(layer.mask, mask)
    assert not layer.weight[~mask].any()
    assert not np.signbit(layer.weight[layer.weight == 0]).any()
    assert np.array_equal(layer.weight[1:] != 0, mask[1:])  # the scale of the first row is 0


def test_a_trace_is_exported_folded_where_asked_and_not_otherwise(tmp_path):
    recipe = load_recipe("convnet-digits-imp", epochs=1, sparsity=0.5, rate=0.5, rewind_step=2, samples=4)
    run = train(recipe, out=tmp_path)
    folded = export_checkpoint(run.files["checkpoint"], fold_batch_norm=True)
    assert folded.sha256 == trace_of(run, fold_batch_norm=True).sha256 == run.traced(fold_batch_norm=True).sha256
    assert "folded" not in run.trace.provenance
    assert folded.provenance["folded"] == {f"conv{i}": f"norm{i}" for i in (1, 2, 3)}
    assert "not_simulated" not in folded.provenance
    assert folded.sparsity == run.trace.sparsity
    assert folded.provenance["predictions"] == run.trace.provenance["predictions"]
    assert load_trace_file(save_trace(folded, tmp_path / "folded.safetensors")).sha256 == folded.sha256
    first, second = folded.layers[:2]
    outputs = np.maximum(product(first), 0).reshape(4, 8, 8, 16).transpose(0, 3, 1, 2)
    assert second.inputs == pytest.approx(outputs, abs=1e-5)


def test_a_norm_behind_a_sparse_convolution_is_folded():
    network, samples = seeded(lambda: build_network("sparse-convnet", (40, 3), 4)), drawn(2, 40, 3)
    plain, captured = capture_all(network, samples), capture_all(network, samples, fold_batch_norm=True)
    assert len(captured.folded) == 5
    assert captured.not_simulated == {}
    outputs = given_by(network, captured.folded.values(), samples)
    for layer, before in zip(captured.layers, plain.layers, strict=True):
        if layer.name not in captured.folded:
            assert np.array_equal(layer.weight, before.weight)
            continue
        met, magnitude = exact_convolution(layer)
        assert np.abs(met - outputs[captured.folded[layer.name]]).max() <= 1e-5 * max(1, magnitude.max())
