import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from gossamer.workloads.data import load_data
from gossamer.workloads.networks import build_network
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training.capture import capture, capture_all

from .captured import by_name, drawn, product, rows, seeded, watched
from .refusals import message

pytestmark = pytest.mark.usefixtures("one_thread")


def test_masks_act_on_weights_and_activations_and_the_network_is_left_as_it_was():
    network = seeded(lambda: build_network("convnet-digits"))
    network.train()
    network.norm2.eval()
    samples = torch.from_numpy(load_data("digits-images").test_inputs[:4])
    rng = np.random.default_rng(1)
    masks = {
        f"{name}.weight": rng.random(network.get_parameter(f"{name}.weight").shape) < 0.3 for name in ("conv2", "fc")
    }
    before = copy.deepcopy(network.state_dict())
    modes = {name: part.training for name, part in network.named_modules()}
    captured = capture_all(network, samples, masks=masks, patterns={"fc.weight": Pattern(kind="unstructured")})
    assert {name: part.training for name, part in network.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(part._forward_hooks for part in network.modules())
    layers = by_name(captured.layers)
    for name, mask in masks.items():
        layer = layers[name.removesuffix(".weight")]
        assert np.array_equal(layer.mask, mask)
        assert not layer.weight[~mask].any()
        assert not np.signbit(layer.weight[~mask]).any()
        assert np.array_equal(layer.weight[mask], before[name].numpy()[mask])
    assert [layer.pattern.kind for layer in captured.layers] == ["dense", "unstructured", "dense", "unstructured"]
    pruned = copy.deepcopy(network)
    with torch.no_grad():
        for name, mask in masks.items():
            pruned.get_parameter(name).mul_(torch.from_numpy(mask))
    seen, outputs = watched(pruned, samples)
    assert captured.outputs.numpy() == pytest.approx(outputs.numpy(), abs=1e-6)
    assert product(layers["conv3"]) == pytest.approx(seen["conv3"], abs=1e-5)


def test_a_masked_lstm_computes_with_what_is_left_and_as_before_afterwards():
    network = seeded(lambda: build_network("lstm-64"))
    samples = torch.from_numpy(load_data("digits-rows").test_inputs[:2])
    with torch.no_grad():
        before = network(samples)
    masks = {
        name: np.zeros(network.get_parameter(name).shape, bool) for name in ("lstm.weight_ih_l0", "lstm.weight_hh_l0")
    }
    captured = capture_all(network, samples, masks=masks)
    assert torch.equal(captured.outputs[0], captured.outputs[1])  # it saw neither sample
    assert [layer.nonzeros for layer in captured.layers[:2]] == [0, 0]
    with torch.no_grad():
        assert torch.equal(network(samples), before)


def two_of_four(shape, axis):
    mask = np.zeros(shape, bool)
    lanes = np.moveaxis(mask, axis, -1)
    lanes[..., ::2] = True
    return mask


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_patterns_are_those_of_the_parameters_and_hold_in_every_layer():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(8, 8, 4, padding="same")
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.conv(x).transpose(1, 2)
            return self.attention(x, x, x)[0]

    along = {"conv.weight": 2, "attention.in_proj_weight": 1, "attention.out_proj.weight": 0}
    module = seeded(Mixed)
    masks = {name: two_of_four(module.get_parameter(name).shape, axis) for name, axis in along.items()}
    patterns = {name: Pattern(kind="n:m", n=2, m=4, axis=axis) for name, axis in along.items()}
    layers = by_name(capture(module, drawn(2, 8, 6), masks=masks, patterns=patterns))
    assert {name: layer.pattern.axis for name, layer in layers.items()} == {
        "conv": 3,  # (out, in, 1, kernel)
        "attention.q_proj": 1,
        "attention.k_proj": 1,
        "attention.v_proj": 1,
        "attention.out_proj": 0,
    }
    assert {layer.sparsity for layer in layers.values()} == {0.5}
    broken = masks | {"attention.in_proj_weight": np.ones((24, 8), bool)}
    assert message(capture, module, drawn(2, 8, 6), masks=broken, patterns=patterns) == (
        "parameter attention.in_proj_weight: weight must keep 2:4 along axis 1, and group 0 of row (0,) has "
        "4 nonzeros; prune it again"
    )


def test_channels_that_groups_do_not_tile_are_lengthened_by_zeros():
    network = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 2)))
    mask = np.zeros((6, 3, 3, 3), bool)
    mask[:, 1] = True
    patterns = {"0.weight": Pattern(kind="n:m", n=1, m=4, axis=1)}
    samples = drawn(2, 3, 4, 4)
    captured = capture_all(network, samples, masks={"0.weight": mask}, patterns=patterns)
    layer = captured.layers[0]
    assert captured.padded == {"0": "input channels from 3 to 4"}
    assert (layer.shape, layer.inputs.shape, layer.pattern.m) == ((6, 4, 3, 3), (2, 4, 4, 4), 4)
    assert not layer.weight[:, 3].any() and not layer.inputs[:, 3].any() and not layer.mask[:, 3].any()
    assert np.array_equal(layer.inputs[:, :3], samples.numpy())
    with torch.no_grad():
        network[0].weight.mul_(torch.from_numpy(mask))
        assert product(layer) == pytest.approx(rows(network[0](samples), 1), abs=1e-5)


def test_a_balance_over_all_of_an_attention_is_promised_only_where_a_part_keeps_it():
    module = seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=True))
    pattern = {"in_proj_weight": Pattern(kind="balanced", pe_count=2, scope="pe")}
    even = np.zeros((24, 8), bool)
    even[:, ::2] = True
    uneven = even.copy()
    uneven[0], uneven[8] = True, False  # what PE 0 has more in q it has less in k
    for mask, kinds in ((even, ["balanced"] * 3), (uneven, ["unstructured", "unstructured", "balanced"])):
        layers = capture(module, (drawn(2, 5, 8),) * 3, masks={"in_proj_weight": mask}, patterns=pattern)
        assert [layer.pattern.kind for layer in layers[:3]] == kinds


def test_weights_pruned_and_tied_by_torch_are_captured_as_they_act():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.back, self.cut = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.back.weight = self.into.weight
            prune.l1_unstructured(self.cut, "weight", amount=0.5)

        def forward(self, x):
            return self.cut(self.back(self.into(x)))

    mask = np.eye(4, dtype=bool)
    layers = by_name(capture(seeded(Tied), drawn(2, 4), masks={"into.weight": mask}))
    for name in ("into", "back"):
        assert np.array_equal(layers[name].mask, mask)
        assert layers[name].nonzeros == 4
    assert layers["cut"].nonzeros == 8
