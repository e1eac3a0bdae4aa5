import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load_trace
from gossamer.workloads.data import load_data
from gossamer.workloads.files.trace_file import save_trace
from gossamer.workloads.networks import build_network
from gossamer.workloads.networks.sparse_convolutional import SparseConv3d, largest
from gossamer.workloads.networks.voxels import Voxels, voxels_of
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.points.sparse_conv import exact_convolution
from gossamer.workloads.rules import COORDINATE_LIMIT
from gossamer.workloads.trace import Trace
from gossamer.workloads.training import load_recipe, prune
from gossamer.workloads.training.capture import capture, capture_all
from gossamer.workloads.training.kernels import companions, kernels, uses

from ..refusals import message

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 5  # cells of the cubes that are drawn
LAYERS = ("conv1", "down1", "conv2", "down2", "conv3")


def seeded(make, seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def whole_numbers(*shape, seed):
    """Small whole numbers: their sums are exact in any order."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32))


def conv_of_whole_numbers(*args, seed=0, **kwargs):
    conv = SparseConv3d(*args, **kwargs)
    with torch.no_grad():
        conv.weight.copy_(whole_numbers(*conv.weight.shape, seed=seed))
        if conv.bias is not None:
            conv.bias.copy_(whole_numbers(*conv.bias.shape, seed=seed + 1))
    return conv


def clouds_of(seed, clouds=3, points=40):
    return np.random.default_rng(seed).uniform(-2, 2, (clouds, points, 3)).astype(np.float32)


@given(st.integers(0, 99), st.integers(1, SIDE**3), st.sampled_from([(1, 1), (2, 2), (3, 1), (3, 2)]))
def test_a_sparse_convolution_is_the_dense_one_where_voxels_are(seed, count, shape):
    kernel, stride = shape
    rng = np.random.default_rng(seed)
    cells = np.stack(np.unravel_index(np.sort(rng.choice(SIDE**3, count, replace=False)), (SIDE,) * 3), axis=1)
    voxels = Voxels(cells.astype(np.int32), np.zeros(count, np.int64), 1)
    conv = conv_of_whole_numbers(2, 3, kernel, stride, seed=seed)
    features = whole_numbers(count, 2, seed=seed + 2)
    room = torch.zeros(1, 2, SIDE + 1, SIDE + 1, SIDE + 1)
    room[0, :, *cells.T] = features.T
    matrix = conv.weight.reshape(3, 2, kernel, kernel, kernel)
    filled = nn.functional.conv3d(room, matrix, conv.bias, stride=stride, padding=kernel // 2 if kernel % 2 else 0)
    there = voxels.coarser(stride).coordinates // stride
    assert np.array_equal(there, np.unique(cells // stride, axis=0))
    assert torch.equal(conv(features, voxels), filled[0][:, *there.T].T)


@given(st.integers(0, 99))
def test_what_a_cloud_comes_to_does_not_depend_on_the_others_of_its_batch(seed):
    convs = [conv_of_whole_numbers(*sizes, seed=seed) for sizes in ((1, 2, 3), (2, 2, 2, 2), (2, 2, 3), (2, 1, 2, 2))]
    convs.append(conv_of_whole_numbers(1, 2, 3))

    def result(points):
        voxels = voxels_of(points, 0.25, 4)
        x = torch.ones(len(voxels.coordinates), 1)
        for conv in convs:
            x = conv(x, voxels) % 16
            voxels = voxels.coarser(conv.stride)
        assert (np.diff(voxels.cloud) >= 0).all()
        assert voxels.tensor_stride == 4
        return largest(x, voxels)

    points = clouds_of(seed)
    with torch.no_grad():
        assert torch.equal(result(points), torch.cat([result(points[i : i + 1]) for i in range(len(points))]))


def test_the_largest_feature_of_a_cloud_may_be_below_0():
    voxels = Voxels(np.zeros((3, 3), np.int32), np.array([0, 0, 1]), 2)
    features = torch.tensor([[-3.0, 5.0], [-2.0, 4.0], [-7.0, 0.0]])
    assert largest(features, voxels).tolist() == [[-2.0, 5.0], [-7.0, 0.0]]


def test_first_and_second_derivatives_are_those_of_differences():
    voxels = voxels_of(clouds_of(1, clouds=2, points=6), 1.0, 2)
    conv = SparseConv3d(2, 2, 3, stride=2).double()
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((len(voxels.coordinates), 2)))

    def loss(x, weight):
        return largest(torch.func.functional_call(conv, {"weight": weight}, (x, voxels)), voxels.coarser(2))

    given = features.requires_grad_(), conv.weight
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


@pytest.mark.parametrize(
    ("points", "rule"),
    [
        (np.zeros((2, 3), np.float32), "clouds must be (clouds, points, 3), each of one point at least, not (2, 3)"),
        (np.full((1, 1, 3), np.nan, np.float32),
         "points must be finite and lie within 1044479 voxels of the origin, and point 0 holds nan with voxel_size 1; "
         "drop it, or take larger voxels"),
        (np.array([[[0, 0, 0]], [[500_000, 0, 0]]], np.float32),
         f"a batch must hold at most {COORDINATE_LIMIT // 500_012} clouds of 500012 voxels along x, not 2; "
         "take smaller batches, or larger voxels"),
    ],
)  # fmt: skip
def test_clouds_that_cannot_lie_beside_one_another_are_refused(points, rule):
    assert message(voxels_of, points, 1.0, 4) == rule


def test_all_kernels_are_prunable_counted_by_pairs_and_go_with_their_norms():
    network = seeded(lambda: build_network("sparse-convnet"))
    assert list(kernels(network)) == [*(f"{name}.weight" for name in LAYERS), "fc.weight"]
    assert companions(network)["down1.weight"] == ["norm2.weight", "norm2.bias"]
    points = clouds_of(0, clouds=2)
    voxels = voxels_of(points, network.VOXEL_SIZE, network.COARSEST)
    near = np.abs(voxels.coordinates[:, None] - voxels.coordinates).max(axis=2) <= 1
    counted = uses(network, torch.from_numpy(points))
    assert counted["conv1.weight"] == pytest.approx(near.sum() / 27 / 2)
    assert counted["down1.weight"] == pytest.approx(len(voxels.coordinates) / 8 / 2)  # every input meets one output
    assert counted["fc.weight"] == 1


def test_captured_layers_compute_what_the_network_does_and_lie_far_apart():
    data = load_data("cad")
    network = seeded(lambda: build_network("sparse-convnet", data.shape, data.classes)).eval()
    seen = {}
    for name in LAYERS:
        network.get_submodule(name).register_forward_hook(lambda m, given, out, name=name: seen.update({name: out}))
    captured = capture_all(network, torch.from_numpy(data.test_inputs[:3]))
    layers = {layer.name: layer for layer in captured.layers}
    assert list(layers) == [*LAYERS, "fc"]
    for name in LAYERS:
        output, magnitudes = exact_convolution(layers[name])
        terms = layers[name].weight[0].size
        assert (np.abs(output - seen[name].numpy()) <= terms * np.finfo(np.float32).eps * magnitudes).all()
    assert [layers[name].attributes["tensor_stride"] for name in LAYERS] == [1, 1, 2, 2, 4]
    assert all(layers[name].attributes["builds_map"] for name in LAYERS)
    assert layers["fc"].inputs.shape == (3, 64)
    assert (layers["conv3"].inputs == 0).any()  # zeros behind ReLU stay zeros
    x = np.unique(layers["conv1"].coordinates[:, 0])
    assert np.count_nonzero(np.diff(x) > 8) == 2  # three clouds


class Twice(nn.Module):
    """Two convolutions of the same voxels, the second used twice, and a third of coarser ones."""

    def __init__(self):
        super().__init__()
        self.first = conv_of_whole_numbers(1, 2, bias=False)
        self.second = conv_of_whole_numbers(2, 2, seed=1)
        self.third = conv_of_whole_numbers(2, 1, seed=3)

    def forward(self, points):
        voxels = voxels_of(points.numpy(), 0.5, 4)
        x = self.first(torch.ones(len(voxels.coordinates), 1), voxels)
        x = self.second(self.second(x, voxels), voxels)
        coarser = voxels.coarser(2)
        return self.third(x[: len(coarser.coordinates)], coarser)


def test_of_layers_with_one_map_the_first_builds_it_and_each_use_is_a_layer():
    network = Twice()
    mask = {"second.weight": np.random.default_rng(0).random((2, 2, 27)) < 0.5}
    captured = capture_all(network, torch.from_numpy(clouds_of(2)), masks=mask)
    built = {layer.name: layer.attributes["builds_map"] for layer in captured.layers}
    assert built == {"first": True, "second": False, "second (2)": False, "third": True}
    last = captured.layers[-1]
    assert np.array_equal(exact_convolution(last)[0].astype(np.float32), captured.outputs.numpy())
    assert not captured.layers[2].weight[~mask["second.weight"]].any()
    assert captured.not_simulated == {}


def test_channels_that_n_m_groups_do_not_tile_are_lengthened_and_the_outputs_stay():
    points, half = torch.from_numpy(clouds_of(2)), Pattern(kind="n:m", n=2, m=4, axis=1)
    plain, padded = (capture_all(Twice(), points, patterns=given) for given in ({}, {"second.weight": half}))
    assert padded.padded == dict.fromkeys(("second", "second (2)"), "input channels from 2 to 4")
    for before, after in zip(plain.layers, padded.layers, strict=True):
        assert np.array_equal(exact_convolution(before)[0], exact_convolution(after)[0])
    assert padded.layers[1].weight.shape == (2, 4, 27)
    assert padded.layers[1].pattern == half


def test_captured_clouds_come_back_from_a_trace_file(tmp_path):
    trace = Trace(name="twice", layers=capture(Twice(), torch.from_numpy(clouds_of(2))))
    again = load_trace(save_trace(trace, tmp_path / "twice.safetensors"))
    assert again.sha256 == trace.sha256


@pytest.fixture(scope="module")
def run():
    """Two levels on half of the clouds: a few seconds."""
    data = load_data("cad")
    train = [(torch.from_numpy(data.train_inputs[i : i + 32]), torch.from_numpy(data.train_labels[i : i + 32]))
             for i in range(0, 640, 32)]  # fmt: skip
    test = [(torch.from_numpy(data.test_inputs[:144]), torch.from_numpy(data.test_labels[:144]))]
    recipe = load_recipe("sparse-convnet-cad-imp", epochs=3, sparsity=0.5, rate=0.5, samples=2)
    return prune(seeded(lambda: build_network("sparse-convnet")), train, test, recipe)


def test_the_network_learns_and_keeps_what_it_learned_when_pruned_by_half(run):
    assert [level.sparsity for level in run.history] == pytest.approx([0, 0.5], abs=1e-4)
    assert min(level.accuracy for level in run.history) > 0.7  # chance is 0.11
    assert set(run.masks) == {*(f"{name}.weight" for name in LAYERS), "fc.weight"}
    for name, mask in run.masks.items():
        assert not run.weights[name][~mask].any()


def test_the_trace_of_a_pruned_network_is_simulated(run):
    assert run.trace.sparsity == pytest.approx(0.5, abs=1e-4)
    with torch.no_grad():
        scores = run.subject.module(torch.from_numpy(run.subject.inputs))
    assert run.trace.provenance["predictions"] == scores.argmax(dim=1).tolist()
    result = simulate(load_machine("pointacc"), run.trace)
    for layer, found in zip(run.trace.layers[:-1], result.layers, strict=False):
        output, magnitudes = exact_convolution(layer)
        assert found.output.shape == output.shape
        assert (np.abs(found.output - output) <= layer.weight[0].size * 1e-6 * magnitudes).all()
        assert found.cycles > 0


def test_the_clouds_are_always_the_same_and_as_many_of_each_shape():
    data, again, other = load_data("cad"), load_data("cad"), load_data("cad", seed=1)
    assert (data.train_inputs.shape, data.test_inputs.shape, data.classes) == ((1152, 256, 3), (288, 256, 3), 9)
    assert (data.train_inputs.dtype, data.test_labels.dtype) == (np.float32, np.int64)
    for name in ("train_inputs", "train_labels", "test_inputs", "test_labels"):
        assert np.array_equal(getattr(data, name), getattr(again, name))
    assert not np.array_equal(data.test_labels, other.test_labels)
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert np.bincount(labels).tolist() == [160] * 9
    assert np.linalg.norm(data.train_inputs, axis=2).max(axis=1) == pytest.approx(1, abs=1e-6)
    first = np.unique(np.concatenate([data.train_inputs, data.test_inputs])[:, 0], axis=0)
    assert len(first) == 1440  # no cloud twice
    assert message(load_data, "cad", test_fraction=0.005) == (
        "test_fraction must leave each of the 9 classes a sample to train on and one to test, not 0.005"
    )
