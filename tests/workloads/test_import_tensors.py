"""What the tensors of a state dict are taken for, by their names, shapes and biases, and what is read of them."""

import json
import os
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.__main__ import main
from gossamer.workloads import InputError, load_trace
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.importers import notes_of, state_dict
from gossamer.workloads.importers.state_dict import is_state_dict, trace_of_state_dict

DRAW = Draw(act_density=0.5, samples=2, seed=3, input_size=(6, 5))
INDEX = "net.safetensors.index.json"


def test_a_bias_tells_a_weight_that_is_stored_the_other_way_round(tmp_path):
    """As GPT-2 has them in its first and best known implementation."""
    rng = np.random.default_rng(0)
    state = {
        "wte.weight": rng.standard_normal((20, 4)),
        "h.0.c_attn.weight": rng.standard_normal((4, 12)), "h.0.c_attn.bias": rng.standard_normal(12),
        "h.0.c_proj.weight": rng.standard_normal((4, 4)), "h.0.c_proj.bias": rng.standard_normal(4),
        "h.0.c_fc.weight": rng.standard_normal((4, 16)), "h.0.c_fc.bias": rng.standard_normal(16),
        "h.0.c_fc.__weight_mma_mask": np.arange(64).reshape(4, 16) % 16 < 8,
        "lm_head.weight": rng.standard_normal((20, 4)),
    }  # fmt: skip
    path = tmp_path / "gpt.safetensors"
    save_file({name: array.astype(np.float32) if array.dtype != bool else array for name, array in state.items()}, path)
    trace = trace_of_state_dict(path, draw=DRAW)
    layers = {layer.name: layer for layer in trace.layers}
    mask = state["h.0.c_fc.__weight_mma_mask"]
    for name in ("h.0.c_attn", "h.0.c_proj", "h.0.c_fc"):
        expected = state[f"{name}.weight"].astype(np.float32)
        expected = np.where(mask, expected, 0) if name == "h.0.c_fc" else expected
        np.testing.assert_array_equal(layers[name].weight, expected.T)
        np.testing.assert_array_equal(layers[name].bias, state[f"{name}.bias"].astype(np.float32))
        assert layers[name].inputs.shape == (2, 4)
    np.testing.assert_array_equal(layers["h.0.c_fc"].mask, mask.T)
    assert layers["lm_head"].shape == (20, 4)
    assert trace.provenance["not_simulated"] == {"wte.weight": "an embedding, by its name"}
    assert (
        "stored (in, out), by their biases or their neighbours', and taken so: h.0.c_attn, h.0.c_fc, h.0.c_proj"
        in notes_of(trace)
    )


def test_square_weights_are_stored_as_most_of_the_others_are(tmp_path):
    path = tmp_path / "net.safetensors"
    state = {"a.weight": (4, 6), "a.bias": (6,), "b.weight": (5, 4), "b.bias": (5,), "c.weight": (4, 4), "c.bias": (4,)}
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in state.items()}
    save_file(arrays, path)
    layers = {layer.name: layer for layer in trace_of_state_dict(path, draw=DRAW).layers}
    np.testing.assert_array_equal(layers["a"].weight, arrays["a.weight"].T)
    np.testing.assert_array_equal(layers["b"].weight, arrays["b.weight"])
    np.testing.assert_array_equal(layers["c"].weight, arrays["c.weight"])


def test_a_transposed_convolution_is_listed_where_its_bias_tells_it(tmp_path):
    path = tmp_path / "net.safetensors"
    state = {"up.weight": (3, 8, 2, 2), "up.bias": (8,), "fc.weight": (2, 4), "bn.running_mean": (8,)}
    save_file({name: np.ones(shape, np.float32) for name, shape in state.items()}, path)
    trace = trace_of_state_dict(path, draw=DRAW)
    assert trace.names == ("fc",)
    assert trace.provenance["not_simulated"] == {
        "bn.running_mean": "one value a channel, as of a norm or a bias",
        "up.bias": "the bias of a transposed convolution, by its bias",
        "up.weight": "a transposed convolution, by its bias",
    }


@pytest.mark.parametrize("part", ["qweight", "qzeros", "g_idx"])
def test_what_a_quantizer_packed_is_no_weight(part, tmp_path):
    path = tmp_path / "q.safetensors"
    save_file({f"q.{part}": np.ones((4, 8), np.int32), "fc.weight": np.ones((4, 8), np.float32)}, path)
    with pytest.raises(InputError) as error:
        load_trace(path, act_density=1)
    assert str(error.value) == (
        f"{path}: 'q.{part}' is one of a quantizer's packed parts of a weight, not a whole one; "
        "save the weights as floats, or export the module"
    )
    assert is_state_dict(str(path))
    left = {f"q.{part}": "packed by a quantizer: export the module instead"}
    assert trace_of_state_dict(path, draw=DRAW).provenance["not_simulated"] == left


def test_a_few_bytes_do_not_stand_for_a_large_tensor(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "s.pt"
    one = torch.ones(1, 1)
    places = torch.zeros(2, 1, dtype=torch.int64)
    sparse = torch.sparse_coo_tensor(places, [1.0], (20_000, 20_000), check_invariants=True)
    for tensor in (one.expand(20_000, 20_000), sparse):
        torch.save({"fc.weight": tensor}, path)
        with pytest.raises(InputError) as error:
            trace_of_state_dict(path, draw=DRAW)
        assert str(error.value) == (
            f"{path}: tensor fc.weight: a tensor must have at most {2**26 + 2**10} elements, not (20000, 20000) "
            "made of 1 that the file holds; save it whole"
        )
    beyond = torch.sparse_coo_tensor(places + 9, [1.0], (4, 4), check_invariants=False)
    torch.save({"fc.weight": beyond}, path)
    with pytest.raises(InputError, match="the file must hold tensors alone to be read"):
        trace_of_state_dict(path, draw=DRAW)
    torch.save({"fc.weight": one.expand(64, 64)}, path)
    assert trace_of_state_dict(path, draw=DRAW).layers[0].weight.sum() == 64 * 64


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_narrow_floats_are_what_torch_says_they_are(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    every = torch.arange(256, dtype=torch.uint8)
    words = every.to(torch.int16) * 251 if dtype == "bfloat16" else every
    values = words.view(getattr(torch, dtype))
    values = values[torch.isfinite(values.float()) & (values.float().abs() <= 2.0**48)]
    values = values[: len(values) - len(values) % 4].reshape(4, -1)
    path = tmp_path / "n.safetensors"
    save_torch({"fc.weight": values, "norm.weight": values[0].clone()}, path)
    torch.save({"fc.weight": values}, tmp_path / "n.pt")
    for each in (path, tmp_path / "n.pt"):
        weight = trace_of_state_dict(each, draw=DRAW).layers[0].weight
        np.testing.assert_array_equal(weight, values.float().numpy() + np.float32(0))


def test_a_square_weight_follows_its_neighbours_and_not_the_rest_of_the_file(tmp_path):
    """As in a vision encoder with a language decoder of another hand."""
    shapes = {
        "encoder.0.query": (4, 4), "encoder.0.up": (6, 4), "encoder.1.query": (4, 4), "pooler": (4, 4),
        "decoder.0.attn.c_attn": (4, 12), "decoder.0.attn.c_proj": (4, 4), "decoder.0.mlp.c_fc": (4, 16),
        "decoder.0.mlp.c_proj": (16, 4), "decoder.1.c_proj": (4, 4), "alone.fc": (4, 4), "stem": (8, 3, 3, 3),
    }  # fmt: skip
    turned = {name for name in shapes if name.startswith("decoder.")}
    rng = np.random.default_rng(0)
    state = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    state |= {f"{name}.bias": np.zeros(shapes[name][name in turned], np.float32) for name in shapes}
    save_file(state | {"norm.weight": np.ones(4, np.float32)}, tmp_path / "net.safetensors")
    for layer in trace_of_state_dict(tmp_path / "net.safetensors", draw=DRAW).layers:
        expected = state[f"{layer.name}.weight"]
        if layer.name in turned:
            expected = expected.T
        if layer.name not in ("pooler", "alone.fc"):  # these have no neighbours but the whole file
            np.testing.assert_array_equal(layer.weight, expected)


def test_what_only_sounds_like_an_embedding_is_a_layer_and_what_looks_like_a_layer_is_none(tmp_path):
    shapes = {
        "patch_embed.proj.weight": (8, 3, 2, 2), "patch_embed.proj.bias": (8,),
        "embeddings.patch_embedding.weight": (8, 3, 2, 2),
        "time_embedding.linear_1.weight": (6, 4), "time_embedding.linear_1.bias": (6,),
        "shared.0.weight": (4, 6), "shared.0.bias": (4,), "embed_out.weight": (9, 4),
        "tok_emb.weight": (9, 4), "word_emb.emb_layers.0.weight": (9, 4), "shared.weight": (9, 4),
        "norm.weight": (4, 6), "norm.bias": (4, 6), "wide.weight": (2, 4, 6), "wide.bias": (2, 4, 6),
        "moe.input_linear.weight": (4, 16, 512),
        "mix.q_proj_weight": (4, 4), "mix.k_proj_weight": (4, 6), "mix.v_proj_weight": (4, 5),
        "mix.in_proj_bias": (12,),
    }  # fmt: skip
    state = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    save_file(state, tmp_path / "net.safetensors")
    trace = trace_of_state_dict(tmp_path / "net.safetensors", draw=DRAW)
    assert set(trace.names) == {
        "patch_embed.proj", "embeddings.patch_embedding", "time_embedding.linear_1", "shared.0", "embed_out",
        "mix.q_proj", "mix.k_proj", "mix.v_proj",
    }  # fmt: skip
    by_name = {layer.name: layer for layer in trace.layers}
    for index, part in enumerate("qkv"):
        assert by_name[f"mix.{part}_proj"].bias.tolist() == list(range(4 * index, 4 * index + 4))
    assert trace.provenance["not_simulated"] == {
        "moe.input_linear.weight": "matrices, stacked, as of experts",
        "norm.bias": "one value an element, as of a norm",
        "norm.weight": "one value an element, as of a norm",
        "shared.weight": "an embedding, by its name",
        "tok_emb.weight": "an embedding, by its name",
        "wide.bias": "one value an element, as of a norm",
        "wide.weight": "one value an element, as of a norm",
        "word_emb.emb_layers.0.weight": "an embedding, by its name",
    }


def test_a_tensor_of_an_unknown_dtype_is_listed_beside_the_layers(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "net.safetensors"
    save_torch({"fc.weight": torch.ones(4, 4), "other.weight": torch.ones(4, 4, dtype=torch.complex64),
                "norm.weight": torch.ones(4)}, path)  # fmt: skip
    trace = trace_of_state_dict(path, draw=DRAW)
    assert trace.names == ("fc",)
    assert trace.provenance["not_simulated"]["other.weight"] == "C64 is no weight"
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(["fc.weight", "other.weight"], path.name)}))
    assert trace_of_state_dict(tmp_path / INDEX, draw=DRAW).provenance["not_simulated"] == {
        "other.weight": "C64 is no weight",
        "norm.weight": "in net.safetensors, and not in the index",
    }


@pytest.mark.parametrize("stay", [False, True])
def test_what_is_wrong_with_a_pruned_layer_names_its_file_once(stay, tmp_path, monkeypatch, capsys):
    path = tmp_path / "w.safetensors"
    save_file({"fc.weight": np.eye(8, dtype=np.float32), "norm.weight": np.ones(8, np.float32)}, path)
    monkeypatch.setattr(state_dict, "STREAMED_FROM", 0 if stay else 2**26)
    out = ["--out", str(tmp_path / "o.safetensors")]
    assert main(["export", str(path), "--prune", "0.5", *out]) == 2
    assert capsys.readouterr().err.startswith(f"gossamer: error: {path}: layer fc: inputs are needed")
    assert main(["export", str(path), "--prune", "0.5", "--act-density", "1", *out]) == 2
    assert capsys.readouterr().err.startswith(f"gossamer: error: {path}: parameter fc: sparsity must not be below")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_opened_once(tmp_path):
    path, out, source = (tmp_path / name for name in ("pipe.safetensors", "o.safetensors", "w.safetensors"))
    save_file({"fc.weight": np.ones((8, 8), np.float32)}, source)
    os.mkfifo(path)
    with subprocess.Popen(["cp", source, path]) as writer:
        try:
            assert main(["export", str(path), "--act-density", "0.5", "--out", str(out)]) == 0
        finally:
            writer.kill()
    assert load_trace(out).names == ("fc",)
