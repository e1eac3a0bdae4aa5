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
