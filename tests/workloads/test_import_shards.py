"""State dicts too large to be held, and in several files: the same traces as of one that is held."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gossamer.__main__ import main
from gossamer.workloads import InputError, load_trace, save_trace
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.importers import import_model, notes_of, state_dict
from gossamer.workloads.importers.state_dict import is_state_dict, trace_of_state_dict
from gossamer.workloads.streamed import StreamedLayers
from gossamer.workloads.trace import ARRAYS

DRAW = Draw(act_density=0.5, samples=2, seed=3, input_size=(6, 5))
INDEX = "net.safetensors.index.json"


@pytest.fixture
def state():
    """A state dict with what networks have beside matrices: norms, an embedding, masks of two tools, joined ones."""
    rng = np.random.default_rng(4)
    mask = (np.arange(64).reshape(8, 8) % 4 < 2).astype(np.float32)
    return {
        "embed_tokens.weight": rng.standard_normal((10, 8)).astype(np.float16),
        "layers.10.fc.weight_orig": rng.standard_normal((8, 8)).astype(np.float16),
        "layers.10.fc.weight_mask": mask.astype(np.float16),
        "layers.2.norm.weight": np.ones(8, np.float32),
        "layers.2.attention.in_proj_weight": rng.standard_normal((24, 8)),
        "layers.2.attention.in_proj_bias": rng.standard_normal(24),
        "layers.2.fc.weight": -rng.standard_normal((8, 8)).astype(np.float32),
        "layers.2.fc.__weight_mma_mask": mask != 0,
        "layers.2.fc.bias": rng.standard_normal(8).astype(np.float32),
        "line.weight": rng.standard_normal((4, 8, 3)).astype(np.float32),
        "steps": np.array(7),
    }


def sharded(folder, state, *, order=(0, 1, 2)):
    """Write ``state`` into three shards with their index, which is returned."""
    names = [f"net-{i + 1:05d}-of-00003.safetensors" for i in range(3)]
    placed = {name: names[order[i % 3]] for i, name in enumerate(state)}
    for file in names:
        save_file({name: state[name] for name in state if placed[name] == file}, folder / file)
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed}))
    return path


def same(one, other):
    assert one.names == other.names
    left = one.provenance["not_simulated"]
    assert left == other.provenance["not_simulated"] and len(left) == 3
    for mine, yours in zip(one.layers, other.layers, strict=True):
        assert mine.pattern == yours.pattern
        for name in ARRAYS:
            first, second = mine.array(name), yours.array(name)
            assert (first is None) == (second is None)
            assert first is None or np.array_equal(first, second)


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize("stay", [False, True])
def test_shards_and_any_file_give_one_trace(suffix, stay, state, tmp_path, monkeypatch):
    path = tmp_path / f"net.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "npz":
        np.savez(path, **state)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    index = sharded(tmp_path, state)
    monkeypatch.setattr(state_dict, "STREAMED_FROM", 0 if stay else 2**26)
    whole, parted = trace_of_state_dict(path, draw=DRAW), trace_of_state_dict(index, draw=DRAW)
    assert isinstance(whole.layers, StreamedLayers) == stay
    assert isinstance(parted.layers, StreamedLayers) == stay
    assert (whole.name, parted.name) == ("net", "net")
    assert sorted(parted.names) == [
        "layers.10.fc", "layers.2.attention.k_proj", "layers.2.attention.q_proj", "layers.2.attention.v_proj",
        "layers.2.fc", "line",
    ]  # fmt: skip
    if suffix == "safetensors":  # in the order of names, as shards are; others are in the order of the file
        same(whole, parted)
    by_name = {layer.name: layer for layer in whole.layers}
    for layer in parted.layers:
        assert np.array_equal(layer.weight, by_name[layer.name].weight)
        assert not np.signbit(layer.weight[layer.weight == 0]).any()
        assert layer.weight.flags.owndata or layer.weight.base.nbytes <= layer.weight.nbytes


def test_the_order_of_an_index_and_the_place_of_a_tensor_change_nothing(state, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = trace_of_state_dict(sharded(tmp_path / "a", state), draw=DRAW)
    backwards = dict(reversed(state.items()))
    same(one, trace_of_state_dict(sharded(tmp_path / "b", backwards, order=(2, 0, 1)), draw=DRAW))


def test_shards_are_exported_and_pruned_on_the_command_line(state, tmp_path, capsys):
    index = sharded(tmp_path, state)
    assert is_state_dict(str(index))
    out = tmp_path / "out.safetensors"
    drawn = ["--act-density", "0.5", "--input-size", "6x5"]
    assert main(["export", str(index), *drawn, "--prune", "2:4", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: net-2-4, 6 layers, ")
    assert "not simulated, an embedding, by its name: embed_tokens.weight" in captured.err
    assert all(layer.pattern.kind == "n:m" for layer in load_trace(out).layers)


def test_a_pruned_streamed_state_dict_is_saved_as_one_that_is_held(state, tmp_path, monkeypatch):
    index = sharded(tmp_path, state)
    draw = {"act_density": 0.5, "input_size": (6, 5)}
    held = save_trace(import_model(index, draw=draw, prune="2:4"), tmp_path / "held.safetensors").read_bytes()
    monkeypatch.setattr(state_dict, "STREAMED_FROM", 0)
    assert save_trace(import_model(index, draw=draw, prune="2:4"), tmp_path / "x.safetensors").read_bytes() == held


def test_a_tensor_that_the_index_does_not_name_is_listed(state, tmp_path):
    index = sharded(tmp_path, state)
    placed = json.loads(index.read_text())
    del placed["weight_map"]["line.weight"]
    index.write_text(json.dumps(placed))
    trace = trace_of_state_dict(index, draw=DRAW)
    assert "line" not in trace.names
    line = "not simulated, in net-00001-of-00003.safetensors, and not in the index: line.weight"
    assert line in notes_of(trace)


@pytest.mark.parametrize("file", ["../net.safetensors", "/net.safetensors", "a/net.safetensors", "net.pt", "..", ""])
def test_shards_lie_beside_their_index(file, tmp_path):
    index = tmp_path / INDEX
    index.write_text(json.dumps({"weight_map": {"fc.weight": file}}))
    with pytest.raises(InputError) as error:
        trace_of_state_dict(index, draw=DRAW)
    assert str(error.value) == (
        f"{index}: a shard must be a .safetensors file beside the index, not {file!r}; rename it"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("{}", "an index of shards must be JSON with a weight_map of file names by tensor, and is not ("),
        ('{"weight_map": {"a": 1}}', "an index of shards must be JSON with a weight_map of file names by tensor"),
        ("[" * 100_000, "an index of shards must be JSON with a weight_map of file names by tensor"),
        ('{"weight_map": {}}', "a state dict must hold a weight of a linear, convolution or recurrent layer: it holds"),
        ('{"weight_map": {"more": "net-00001-of-00003.safetensors"}}', "tensor 'more' must be in net-00001-of-00003.s"),
    ],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(text, start, state, tmp_path):
    index = sharded(tmp_path, state)
    index.write_text(text)
    with pytest.raises(InputError) as error:
        trace_of_state_dict(index, draw=DRAW)
    assert str(error.value).startswith(f"{index}: {start}")
    assert "\n" not in str(error.value)


def test_a_shard_that_is_missing_or_changes_is_named(state, tmp_path, monkeypatch):
    index = sharded(tmp_path, state)
    shard = tmp_path / "net-00001-of-00003.safetensors"
    monkeypatch.setattr(state_dict, "STREAMED_FROM", 0)
    trace = trace_of_state_dict(index, draw=DRAW)
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"00001-of-00003\.safetensors: the file must stay as it is while it is read"):
        list(trace.layers)
    shard.unlink()
    with pytest.raises(InputError) as error:
        trace_of_state_dict(index, draw=DRAW)
    assert (
        str(error.value) == f"{shard}: a shard must be a readable file, and No such file or directory; check the path"
    )


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
    assert "stored (in, out), by their biases, and taken so: h.0.c_attn, h.0.c_fc, h.0.c_proj" in notes_of(trace)


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
        "bn.running_mean": "one value a channel, as of a norm",
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


MEMORY = """
import sys
from gossamer.__main__ import main
from gossamer.workloads.importers import state_dict


def peak():  # that of getrusage begins with the parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))


state_dict.STREAMED_FROM = 0
small, large, out = sys.argv[1:]
assert main(["export", small, "--act-density", "0.5", "--prune", "2:4", "--out", out]) == 0
before = peak()
assert main(["export", large, "--act-density", "0.5", "--prune", "2:4", "--out", out]) == 0
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_exporting_shards_takes_no_more_memory_than_a_few_of_the_largest_layer(tmp_path):
    rng = np.random.default_rng(0)
    small = tmp_path / "small.safetensors"
    save_file({"norm.weight": np.ones(4, np.float32), "fc.weight": np.ones((64, 64), np.float16)}, small)
    weight = rng.standard_normal((2048, 4096), np.float32).astype(np.float16)  # 32 MiB in float32
    state = {f"layers.{i}.fc.weight": weight for i in range(6)} | {"norm.weight": np.ones(4, np.float32)}
    index = sharded(tmp_path, state)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, index, tmp_path / "out.safetensors"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert int(done.stdout.splitlines()[-1]) < 4.5 * 32 * 2**20  # all of them: 6 in float32 alone
