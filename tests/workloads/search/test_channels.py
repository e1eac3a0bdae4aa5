import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.errors import InputError
from gossamer.workloads.networks import build_network
from gossamer.workloads.search import Trained
from gossamer.workloads.search.channels import ChannelSpace
from gossamer.workloads.search.wiring import cut, wires
from gossamer.workloads.training import load_recipe
from gossamer.workloads.training.kernels import kernels


def wired(module, *shape):
    torch.manual_seed(0)
    return wires(module, torch.randn(1, *shape), list(kernels(module)))


@settings(max_examples=12)
@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3))
def test_the_smaller_network_gives_what_the_masked_one_gives(widths, shares):
    choices = [widths.snap(index, share) for index, share in enumerate(shares)]
    candidate = widths.apply(choices)
    loop, samples = widths.trained.loop, widths.trained.samples
    loop.load(candidate.state)
    loop.network.eval()
    with torch.no_grad():
        masked, smaller = loop.network(samples), candidate.module(samples)
    assert torch.allclose(masked, smaller, rtol=1e-4, atol=1e-5)
    counts = widths.channels(candidate)
    shapes = [layer.shape for layer in candidate.trace().layers]
    assert shapes == [
        (counts["conv1"], 1, 3, 3), (counts["conv2"], counts["conv1"], 3, 3), (counts["conv3"], counts["conv2"], 3, 3),
        (10, counts["conv3"]),
    ]  # fmt: skip


def test_the_filters_of_smallest_norm_go_first(widths):
    candidate = widths.apply([widths.snap(index, 0.5) for index in range(3)])
    weight = widths.trained.weights["conv2.weight"]
    norms = np.sqrt(np.square(weight, dtype=np.float64).sum(axis=(1, 2, 3)))
    alive = candidate.masks["conv2.weight"].any(axis=(1, 2, 3))
    assert alive.sum() == 16
    assert norms[alive].min() >= norms[~alive].max()


def test_batch_norms_shrink_with_their_layer(widths):
    module = widths.apply([widths.snap(index, 0.25) for index in range(3)]).module
    assert [norm.num_features for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)] == [4, 8, 16]
    assert module.norm2.running_mean.shape == (8,)
    assert (module.conv2.in_channels, module.conv2.out_channels, module.fc.in_features) == (4, 8, 16)


def test_half_of_the_channels_are_a_quarter_of_the_work(convnet, widths):
    machine = load_machine("systolic-8x8")
    half = simulate(machine, widths.apply([0.5] * 3).trace())
    whole = simulate(machine, widths.dense.trace())
    ratio = {a.name: b.macs / a.macs for a, b in zip(whole.layers, half.layers, strict=True)}
    # Both sides of the layers between halve; the first has all its inputs, the last all its outputs.
    assert ratio == {"conv1": 0.5, "conv2": 0.25, "conv3": 0.25, "fc": 0.5}
    cycles = {a.name: b.cycles / a.cycles for a, b in zip(whole.layers, half.layers, strict=True)}
    assert cycles["conv2"] == pytest.approx(0.25, abs=0.005)
    assert cycles["conv3"] == pytest.approx(0.25, abs=0.005)


def test_a_fine_tuned_network_can_be_cut_further_and_grown_again(widths):
    first = widths.apply([0.5] * 3).fine_tune(1)
    second = widths.apply([0.25] * 3, first)
    for name in ("conv1.weight", "conv2.weight", "conv3.weight"):
        assert not (second.masks[name] & ~first.masks[name]).any()
    grown = widths.apply([0.75] * 3, second)
    kept = second.masks["conv2.weight"]
    assert np.array_equal(grown.state["conv2.weight"][kept], first.state["conv2.weight"][kept])
    new = grown.masks["conv2.weight"] & ~kept
    assert np.array_equal(grown.state["conv2.weight"][new], widths.trained.weights["conv2.weight"][new])
    assert grown.trace().layers[1].shape == (24, 12, 3, 3)


def test_layers_that_a_shortcut_adds_to_are_left_whole():
    found, whole = wired(build_network("resnet-20", (1, 8, 8)), 1, 8, 8)
    assert list(found) == [f"stage{s}.{b}.conv1.weight" for s in (1, 2, 3) for b in (0, 1, 2)]
    assert whole["conv"] == "is added to what stage1.0.conv2 gives, channel by channel"
    assert whole["fc"] == "gives outputs of the network, or something between layers mixes its channels"


def test_the_heads_of_an_attention_keep_their_channels():
    found, whole = wired(build_network("vit-digits", (1, 8, 8)), 1, 8, 8)
    assert list(found) == [f"encoders.{i}.up.weight" for i in (0, 1, 2)]
    assert whole["encoders.0.attention.v"] == "is not silent where its channels are 0"
    assert whole["embed"] == "feeds norm, a LayerNorm"


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(4 * 9, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(self.pool(torch.relu(self.conv(x))).flatten(start_dim=1))))


def test_a_channel_that_is_flattened_takes_all_its_places_along():
    module = Flattened()
    found, _ = wired(module, 1, 8, 8)
    assert found["conv.weight"].arrays == ("conv.weight", "conv.bias")
    assert np.array_equal(found["conv.weight"].inputs["fc1.weight"], np.arange(36).reshape(4, 9))
    alive = np.array([True, False, True, False])
    smaller = cut(module, {(name, axis): kept for name, axis, kept in found["conv.weight"].slices(alive)})
    assert smaller.fc1.weight.shape == (8, 18)
    assert torch.equal(smaller.fc1.weight[:, 9:], module.fc1.weight[:, 18:27])


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).view(-1, 4 * 36))


def test_a_network_that_counts_its_channels_is_left_whole():
    found, whole = wired(Fixed(), 1, 8, 8)
    assert not found
    assert whole["conv"] == "feeds something that asks for a number of channels"


def test_a_network_that_can_lose_no_channel_is_refused():
    loader = [(torch.randn(8, 5), torch.randint(0, 3, (8,)))]
    recipe = load_recipe("lenet-digits-dense", samples=2)
    trained = Trained.of_module(nn.Linear(5, 3), loader, loader, loader, recipe)
    message = (
        "some layer must be able to lose channels, and none is:  gives outputs of the network, or something between "
        "layers mixes its channels; choose another kind"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        ChannelSpace(trained)
    with pytest.raises(InputError, match=r"^step must be at least 1, not 0$"):
        ChannelSpace(trained, step=0)
