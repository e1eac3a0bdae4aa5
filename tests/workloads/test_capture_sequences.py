import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.training.capture import capture, capture_all

from .captured import by_name, drawn, product, rows, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


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
