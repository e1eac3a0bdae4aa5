import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads.data import load_data
from gossamer.workloads.errors import InputError
from gossamer.workloads.lowering import lower
from gossamer.workloads.networks import build_network
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Layer, Trace
from gossamer.workloads.training.capture import capture, capture_all

BUNDLED = {
    "lenet-300-100": "digits",
    "convnet-digits": "digits-images",
    "convnet-1d": "mnist1d",
    "resnet-20": "digits-images",
    "vit-digits": "digits-images",
    "lstm-64": "digits-rows",
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def seeded(make):
    """A module made with torch's generator at a fixed place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make()


def product(layer):
    """What the layer computes, in float64, one row a vector."""
    parts = []
    for part in lower(layer):
        bias = 0 if part.bias_values is None else part.bias_values
        parts.append(part.vectors.astype(np.float64) @ part.weight.T.astype(np.float64) + bias)
    return np.concatenate(parts, axis=1)


def rows(output, channels_at):
    """The same of what torch computed: channels last, one row a vector."""
    return output.detach().movedim(channels_at, -1).flatten(end_dim=-2).numpy()


def by_name(layers):
    return {layer.name: layer for layer in layers}


def watched(network, samples):
    """What each linear and convolutional layer returned, one row a vector, by its name."""
    seen = {}

    def watch(name, at):
        return lambda module, given, output: seen.update({name: rows(output, at)})

    handles = [
        part.register_forward_hook(watch(name, -1 if isinstance(part, nn.Linear) else 1))
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv1d)
    ]
    with torch.no_grad():
        outputs = network.eval()(samples)
    for handle in handles:
        handle.remove()
    return seen, outputs


def message(act, *args, **kwargs):
    with pytest.raises(InputError) as error:
        act(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "data"), BUNDLED.items())
def test_the_layers_of_every_bundled_network_compute_what_torch_computes(name, data):
    samples = load_data(data)
    network = seeded(lambda: build_network(name, samples.shape, samples.classes))
    batch = torch.from_numpy(samples.test_inputs[:3])
    seen, outputs = watched(network, batch)
    captured = capture_all(network, batch)
    assert torch.equal(captured.outputs, outputs)
    layers = by_name(captured.layers)
    assert [layer.name for layer in captured.layers if layer.name in seen] == list(seen)  # the order of use
    for key, output in seen.items():
        assert product(layers[key]) == pytest.approx(output, rel=1e-5, abs=1e-5)
    kernels = {key for key, value in network.named_parameters() if value.ndim > 1 and key != "position"}
    assert sum(layer.weight.size for layer in captured.layers) == sum(network.get_parameter(k).numel() for k in kernels)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(deadline=None, max_examples=100, derandomize=True)
@given(data=st.data())
def test_a_convolution_of_any_kind_is_captured_as_torch_computes_it(data):
    draw = data.draw
    sides = draw(st.sampled_from([1, 2]))
    groups = draw(st.sampled_from([1, 2, 3]))
    each = st.tuples(*[st.integers(1, 3)] * sides)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    padding = draw(st.sampled_from(["valid", "same", (0,) * sides, (1,) * sides, (2, 1)[:sides]]))
    if padding == "same":
        stride = 1
    mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    kind = nn.Conv2d if sides == 2 else nn.Conv1d
    module = seeded(
        lambda: kind(
            2 * groups, 3 * groups, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()),
            padding_mode=mode,
        )
    )  # fmt: skip
    samples = drawn(2, 2 * groups, *(8, 9)[:sides])
    (layer,) = capture(module, samples)
    assert layer.op == "conv2d"
    assert layer.shape == (3 * groups, 2, *([1] * (2 - sides)), *kernel)
    assert product(layer) == pytest.approx(rows(module(samples), 1), rel=1e-5, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dilation", [1, 3])
def test_padding_that_is_not_alike_on_both_sides_is_put_into_the_inputs(dilation):
    module = seeded(lambda: nn.Conv2d(2, 3, (2, 4), padding="same", dilation=dilation))
    samples = drawn(2, 2, 8, 8)
    (layer,) = capture(module, samples)
    before = (dilation // 2, 3 * dilation // 2)
    assert layer.attributes["padding"] == before
    assert layer.inputs.shape == (2, 2, 8 + 1, 8 + 1)  # one more cell below and on the right, on top of the padding
    assert product(layer) == pytest.approx(rows(module(samples), 1), abs=1e-5)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_four_linear_layers_with_their_real_inputs(packed, batch_first):
    widths = {} if packed else {"kdim": 6, "vdim": 4}
    module = seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=batch_first, **widths)).eval()
    with torch.no_grad():  # torch begins with biases of 0
        module.in_proj_bias.copy_(drawn(24, seed=9))
        module.out_proj.bias.copy_(drawn(8, seed=8))
    query, key, value = drawn(3, 5, 8), drawn(3, 7, 8 if packed else 6, seed=1), drawn(3, 7, 8 if packed else 4, seed=2)
    given = (query, key, value) if batch_first else tuple(each.transpose(0, 1) for each in (query, key, value))
    captured = capture_all(module, given)
    layers = by_name(captured.layers)
    assert list(layers) == ["q_proj", "k_proj", "v_proj", "out_proj"]
    assert captured.not_simulated == {"multiheadattention": "products of activations in MultiheadAttention"}
    for name, inputs in (("q_proj", query), ("k_proj", key), ("v_proj", value)):
        assert np.array_equal(layers[name].inputs, inputs.numpy())
    q, k, v = (product(layers[f"{part}_proj"]).reshape(3, -1, 2, 4).transpose(0, 2, 1, 3) for part in "qkv")
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / 2)
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
    assert layers["out_proj"].inputs == pytest.approx(mixed.transpose(0, 2, 1, 3).reshape(3, 5, 8), abs=1e-5)
    with torch.no_grad():
        output = module(*given)[0] if batch_first else module(*given)[0].transpose(0, 1)
    assert product(layers["out_proj"]) == pytest.approx(rows(output, -1), abs=1e-5)


def test_a_masked_attention_feeds_its_last_matrix_with_what_the_mask_leaves():
    module = seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=True)).eval()

    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = module

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.attention(x, x, value=x, attn_mask=mask, need_weights=False)[0]

    layers = by_name(capture(Causal(), drawn(2, 4, 8)))
    # The first token sees itself alone: what goes on is its own value.
    first = product(layers["attention.v_proj"]).reshape(2, 4, 8)[:, 0]
    assert layers["attention.out_proj"].inputs[:, 0] == pytest.approx(first, abs=1e-5)


def test_the_fast_path_of_torch_is_not_taken_and_is_left_as_it_was():
    encoder = seeded(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
        )
    )
    fast = torch.backends.mha.get_fastpath_enabled()
    captured = capture_all(encoder, drawn(2, 4, 8))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "linear1", "linear2")
    assert [layer.name for layer in captured.layers] == [f"layers.{i}.{part}" for i in (0, 1) for part in parts]
    last = by_name(captured.layers)["layers.1.linear2"]
    assert (last.inputs == 0).mean() > 0.2  # behind a ReLU


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_an_lstm_is_its_two_matrices_with_the_inputs_of_all_steps():
    module = seeded(lambda: nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True))
    samples = drawn(2, 6, 3)
    captured = capture_all(module, samples)
    layers = by_name(captured.layers)
    assert list(layers) == [
        f"{kind}_l{depth}{way}" for depth in (0, 1) for way in ("", "_reverse") for kind in ("ih", "hh")
    ]
    outputs = []
    for way in ("", "_reverse"):
        ih, hh = (product(layers[f"{kind}_l1{way}"]).reshape(2, 6, 20) for kind in ("ih", "hh"))
        c = 0
        for t in range(6):
            i, f, g, o = np.split(ih[:, t] + hh[:, t], 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            if t < 5:
                assert layers[f"hh_l1{way}"].inputs[:, t + 1] == pytest.approx(h, abs=1e-5)
        outputs.append(h)
    states = captured.outputs[0].numpy()
    assert np.concatenate(outputs, axis=1) == pytest.approx(
        np.concatenate([states[:, -1, :5], states[:, 0, 5:]], axis=1), abs=1e-5
    )


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_a_gru_and_an_rnn_start_from_the_state_they_are_given(kind):
    module = seeded(lambda: kind(3, 4, num_layers=2))
    samples, state = drawn(5, 2, 3), drawn(2, 2, 4, seed=1)
    captured = capture_all(module, (samples, state))
    layers = by_name(captured.layers)
    assert np.array_equal(layers["hh_l1"].inputs[:, 0], state[1].numpy())
    after = captured.outputs[0].transpose(0, 1).numpy()
    assert layers["hh_l1"].inputs[:, 1:] == pytest.approx(after[:, :-1], abs=1e-6)
    ih, hh = (product(layers[f"{name}_l1"]).reshape(2, 5, -1) for name in ("ih", "hh"))
    if kind is nn.RNN:
        expected = np.tanh(ih + hh)
    else:
        (r, z, n), (hr, hz, hn) = np.split(ih, 3, axis=2), np.split(hh, 3, axis=2)
        update = sigmoid(z + hz)
        expected = (1 - update) * np.tanh(n + sigmoid(r + hr) * hn) + update * layers["hh_l1"].inputs
    assert after == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("state_given", [False, True])
def test_a_cell_is_a_layer_that_is_used_at_every_step(state_given):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)

        def forward(self, x):
            state = (torch.ones(2, 4), torch.zeros(2, 4)) if state_given else None
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            return state[0]

    captured = capture_all(seeded(Reader), drawn(2, 6, 3))
    ih, hh = captured.layers
    assert (ih.name, hh.name, captured.uses) == ("cell.ih", "cell.hh", {"cell.ih": 6, "cell.hh": 6})
    assert np.array_equal(ih.inputs, drawn(2, 6, 3).transpose(0, 1).flatten(end_dim=1).numpy())
    assert (hh.inputs[:2] == float(state_given)).all()


def test_a_layer_used_twice_gets_the_inputs_of_both_uses_along_the_batch():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x) + self.head(torch.relu(self.first(x)))

    module, samples = seeded(Twice), drawn(4, 3)
    captured = capture_all(module, samples)
    assert [layer.name for layer in captured.layers] == ["head", "first"]
    assert captured.uses == {"head": 2}
    again = torch.relu(module.first(samples)).detach().numpy()
    assert captured.layers[0].inputs == pytest.approx(np.concatenate([samples.numpy(), again]), abs=1e-6)


def test_a_layer_fed_with_several_sizes_is_a_layer_for_each():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return self.head(x).mean() + self.head(x[:, :, ::2, ::2]).mean() + self.head(x).sum()

    captured = capture_all(seeded(Pyramid), drawn(2, 2, 8, 8))
    assert [(layer.name, layer.inputs.shape) for layer in captured.layers] == [
        ("head", (4, 2, 8, 8)),
        ("head (2)", (2, 2, 4, 4)),
    ]
    assert captured.uses == {"head": 2}


def test_inputs_are_kept_as_they_were_when_the_layer_got_them():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            x = x.clone()
            y = self.fc(x)
            x += y
            return x

    samples = drawn(2, 3)
    (layer,) = capture(seeded(InPlace), samples)
    assert np.array_equal(layer.inputs, samples.numpy())


def test_zeros_behind_a_relu_stay_and_none_is_negative():
    network = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 2))
    samples = drawn(4, 6)
    samples[0] = -0.0
    first, second = capture(seeded(lambda: copy.deepcopy(network)), samples)
    assert not np.signbit(first.inputs[0]).any()
    assert 0.2 < (second.inputs == 0).mean() < 0.8
    assert not np.signbit(second.inputs).any()


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


class Odd(nn.Module):
    """A bit of everything that no layer stands for."""

    def __init__(self):
        super().__init__()

        class Scaled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        self.embedding = nn.Embedding(10, 4)
        self.token = nn.Parameter(torch.zeros(4))
        self.norm = nn.LayerNorm(4)
        self.scaled = Scaled(4, 4)
        self.fc = nn.Linear(4, 2)
        self.spare = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.scaled(self.norm(self.embedding(x) + self.token)))


def test_what_is_not_simulated_is_named_with_its_kind():
    captured = capture_all(seeded(Odd), torch.tensor([[1, 2], [3, 4]]))
    assert [layer.name for layer in captured.layers] == ["fc"]
    assert captured.not_simulated == {
        "token": "parameter of Odd",
        "embedding": "Embedding",
        "norm": "LayerNorm",
        "scaled.weight": "parameter of Scaled",
        "scaled.bias": "parameter of Scaled",
        "spare": "Linear, not used",
    }


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_cannot_be_captured_is_refused_in_one_line():
    network = nn.Sequential(nn.Linear(4, 2))
    wrong = np.ones((4, 2), bool)
    assert message(capture, network, drawn(2, 5)) == (
        "the network must take samples of shape (2, 5), and does not: "
        "mat1 and mat2 shapes cannot be multiplied (2x5 and 4x2)"
    )
    assert message(capture, network, drawn(2, 4), masks={"fc.weight": wrong}) == (
        "a mask must be of a parameter of the network, and 'fc.weight' is none of them"
    )
    assert message(capture, network, drawn(2, 4), patterns={"1.weight": Pattern()}) == (
        "a pattern must be of a parameter of the network, and '1.weight' is none of them"
    )
    assert message(capture, network, drawn(2, 4), masks={"0.weight": wrong}) == (
        "the mask of 0.weight must be bool (2, 4), not bool (4, 2)"
    )
    assert message(capture, nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), drawn(2, 4)) == (
        "the network must use at least one of Linear, Conv2d, Conv1d, SparseConv3d, MultiheadAttention, LSTM, GRU, "
        "RNN, LSTMCell, GRUCell, RNNCell, and has Sequential, BatchNorm1d, ReLU; use one of them"
    )
    packed = nn.utils.rnn.pack_padded_sequence(drawn(2, 5, 3), [5, 4], batch_first=True)
    assert message(capture, nn.LSTM(3, 4, batch_first=True), packed) == (
        "layer lstm: a packed sequence is not simulated; give padded samples of one length"
    )
    assert message(capture, nn.LSTM(3, 4, proj_size=2), drawn(5, 2, 3)) == (
        "layer lstm: proj_size must be 0 to be simulated, not 2; use a Linear"
    )


def cut(layer, positions):
    """The layer with its first inputs alone: stepping is slow."""
    inputs = layer.inputs[:1, :, :positions, :positions] if layer.op == "conv2d" else layer.inputs[:1]
    if layer.op == "linear" and inputs.ndim == 3:
        inputs = inputs[:, :positions]
    return Layer(
        name=layer.name, op=layer.op, inputs=inputs, weight=layer.weight, bias=layer.bias, mask=layer.mask,
        pattern=layer.pattern, attributes=layer.attributes,
    )  # fmt: skip


@pytest.mark.parametrize("machine", [("eie-64pe", {"pe_count": 8}), ("systolic-8x8", {})], ids=lambda m: m[0])
@pytest.mark.parametrize("name", ["convnet-digits", "convnet-1d", "vit-digits", "lstm-64"])
def test_both_engines_and_numpy_agree_on_captured_layers(name, machine):
    samples = load_data(BUNDLED[name])
    network = seeded(lambda: build_network(name, samples.shape))
    rng = np.random.default_rng(0)
    masks = {
        key: rng.random(value.shape) < 0.1
        for key, value in network.named_parameters()
        if "weight" in key and value.ndim > 1
    }
    layers = capture(network, torch.from_numpy(samples.test_inputs[:1]), masks=masks)[:9]
    trace = Trace(name=name, layers=[cut(layer, 4) for layer in layers])
    for found in check(load_machine(machine[0], **machine[1]), trace):
        assert found.passed, found


@pytest.mark.parametrize("name", ["convnet-digits", "vit-digits"])
def test_machines_return_what_torch_computes(name):
    samples = torch.from_numpy(load_data("digits-images").test_inputs[:2])
    network = seeded(lambda: build_network(name))
    seen, _ = watched(network, samples)
    trace = Trace(name=name, layers=capture(network, samples))
    for layer in simulate(load_machine("systolic-16x16"), trace).layers:
        assert layer.output == pytest.approx(seen[layer.name], rel=1e-5, abs=1e-5)
    # 16 bits a word: the errors of a sum are some steps of the finest format in which it fits.
    for layer in simulate(load_machine("eie-64pe", weights="exact"), trace).layers:
        largest = float(np.abs(seen[layer.name]).max())
        assert layer.output == pytest.approx(seen[layer.name], abs=2e-3 * largest)
