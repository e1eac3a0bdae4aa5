"""Files too large to read whole, layer by layer: the same traces and the same errors as reading them whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads import InputError, load_trace, save_trace
from gossamer.workloads import load as loading
from gossamer.workloads.files.container import read_container
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.files.masked import trace_of_container_weights
from gossamer.workloads.files.trace_file import KEY, trace_of_container
from gossamer.workloads.importers.door import pruned
from gossamer.workloads.load import bundled_traces
from gossamer.workloads.points.network import build
from gossamer.workloads.streamed import StreamedLayers
from gossamer.workloads.trace import ARRAYS, Trace


def stream(path, **draw):
    """Load a file as if it were too large for its layers to be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "STREAMED_FROM", 0)
        return load_trace(path, **draw)


def piped(path, **draw):
    """Load a file as one that comes through a pipe: whole."""
    container = read_container(path)
    if KEY in container.metadata:
        return trace_of_container(container, path)
    return trace_of_container_weights(container, path, Draw(**draw))


def same(mine, other):
    assert (mine.name, mine.provenance, mine.sha256, mine.sparsity, mine.names) == (
        other.name, other.provenance, other.sha256, other.sparsity, other.names,
    )  # fmt: skip
    for one, two in zip(mine.layers, other.layers, strict=True):
        assert (one.name, one.op, one.attributes, one.pattern) == (two.name, two.op, two.attributes, two.pattern)
        for name in ARRAYS:
            first, second = one.array(name), two.array(name)
            assert (first is None) == (second is None)
            assert first is None or (first.dtype == second.dtype and np.array_equal(first, second))


def write_bfloat16(path, tensors):
    """Write a .safetensors file of 16-bit words by name, which numpy does not know as numbers."""
    head, end = {}, 0
    for name, words in tensors:
        head[name] = {"dtype": "BF16", "shape": list(words.shape), "data_offsets": [end, end + words.nbytes]}
        end += words.nbytes
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(words.tobytes() for _, words in tensors))


@pytest.mark.parametrize("name", ["lenet-digits-imp", "resnet20-digits-imp", "vit-digits-srste-2-4"])
def test_a_streamed_trace_is_the_one_that_is_read_whole(name, tmp_path):
    whole = load_trace(name)
    path = save_trace(whole, tmp_path / "trace.safetensors")
    kept = load_trace(path)
    assert isinstance(kept.layers, tuple)
    same(kept, whole)
    same(piped(path), whole)
    found = stream(path)
    assert isinstance(found.layers, StreamedLayers)
    same(found, whole)
    machine = load_machine("eie-64pe")
    assert simulate(machine, found, layers="*1*") == simulate(machine, whole, layers="*1*")
    assert save_trace(found, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_layers_on_shared_points_are_read_in_any_order(tmp_path):
    points = np.random.default_rng(0).uniform(0, 3, (400, 3)).astype(np.float32)
    whole = build("minkunet-small", points, voxel_size=0.2, features=True)
    path = save_trace(whole, tmp_path / "cloud.safetensors")
    same(stream(path), whole)
    found = stream(path)
    for index in (len(found.layers) - 1, 0, -1):
        assert np.array_equal(found.layers[index].array("coordinates"), whole.layers[index].array("coordinates"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint16])
def test_streamed_weights_are_those_that_are_read_whole_and_draw_the_same_inputs(dtype, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {}
    for index in (10, 2, 1):
        weight = rng.integers(0 if dtype is np.uint16 else -9, 9, (8, 12)) * (rng.random((8, 12)) < 0.4)
        weight = weight.astype(dtype) + (weight / 3).astype(dtype)
        arrays |= {f"fc{index}.weight": weight, f"fc{index}.bias": rng.integers(0, 5, 8).astype(dtype)}
    arrays["fc2.inputs"] = rng.random((3, 12)).astype(np.float32)
    arrays["fc1.mask"] = arrays["fc1.weight"] != 0
    arrays["fc10.mask"] = (arrays["fc10.weight"] != 0).astype(dtype)
    save_file(arrays, tmp_path / "weights.safetensors")
    draw = {"act_density": 0.5, "samples": 3, "seed": 4}
    whole = piped(tmp_path / "weights.safetensors", **draw)
    assert np.array_equal(whole.layers[0].weight, arrays["fc1.weight"].astype(np.float32))
    for load in (stream, load_trace):
        found = load(tmp_path / "weights.safetensors", **draw)
        assert found.names == ("fc1", "fc2", "fc10")
        same(found, whole)


@pytest.mark.parametrize("numbers", [1, 100, 2**20])
def test_words_of_bfloat16_are_read_by_blocks_of_any_size(numbers, tmp_path, monkeypatch):
    weight = np.random.default_rng(3).standard_normal((9, 70)).astype(np.float32)
    words = (weight.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "weights.safetensors"
    write_bfloat16(path, [("fc.weight", words), ("fc.bias", words[:, 0])])
    whole = piped(path, act_density=0.5)
    assert np.array_equal(whole.layers[0].weight, (words.astype(np.uint32) << 16).view(np.float32))
    monkeypatch.setattr("gossamer.workloads.files.streamed.NUMBERS", numbers)
    for load in (stream, load_trace):
        same(load(path, act_density=0.5), whole)


def test_a_packed_weight_is_streamed_too(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    weight = torch.tensor([[1.0, 2.0, 0, 0]]).repeat(64, 16).half()
    packed, meta = sparse_semi_structured_from_dense_cutlass(weight)
    arrays = {"a.weight": weight.numpy(), "b.weight.packed": packed.numpy(), "b.weight.meta": meta.numpy()}
    save_file(arrays, tmp_path / "packed.safetensors")
    found = stream(tmp_path / "packed.safetensors", act_density=1.0)
    same(found, load_trace(tmp_path / "packed.safetensors", act_density=1.0))
    assert np.array_equal(found.layers[1].weight, weight.numpy())


@pytest.mark.parametrize(
    ("arrays", "draw"),
    [
        ({"fc.weight": np.ones((2, 3), np.float32)}, {}),
        ({"fc.weight": np.ones((2, 3), np.float32), "scale": np.ones(3, np.float32)}, {"act_density": 0.5}),
        ({"fc.weight": np.full((2, 3), np.nan, np.float32)}, {"act_density": 0.5}),
        ({"fc.weight": np.ones((2, 3), np.float32), "fc.inputs": np.ones((1, 3), np.float32)}, {"act_density": 0.5}),
        ({"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(5, np.float32)}, {"act_density": 0.5}),
        ({"fc.weight": np.ones((2, 3), np.complex64)}, {"act_density": 0.5}),
        ({"fc.weight": np.array([[1, 2], [3, 1e300]])}, {"act_density": 0.5}),
        ({"fc.weight": np.array([[1, 2], [np.inf, 3]], np.float16)}, {"act_density": 0.5}),
        ({"fc.weight": np.ones((2, 3), np.float16), "fc.mask": np.full((2, 3), 2, np.int8)}, {"act_density": 0.5}),
        ({"fc.weight": np.ones((2, 3), np.float16), "fc.bias": np.ones((), np.float16)}, {"act_density": 0.5}),
    ],
    ids=["no inputs", "no place", "nan", "inputs there", "bias", "complex", "large", "inf", "mask", "no side"],
)
def test_what_is_wrong_with_weights_is_said_in_the_same_words(arrays, draw, tmp_path):
    save_file(arrays, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as whole:
        piped(tmp_path / "weights.safetensors", **draw)
    for load in (stream, load_trace):
        with pytest.raises(InputError) as found:
            list(load(tmp_path / "weights.safetensors", **draw).layers)
        assert str(found.value) == str(whole.value)


@given(data=st.data())
@settings(max_examples=150)
def test_a_damaged_file_is_refused_or_reads_as_it_would_whole(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    trace = Trace(name="t", layers=load_trace("lenet-digits-imp").layers[-1:])
    original = bytearray(save_trace(trace, path).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        original[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(original[: data.draw(st.one_of(st.just(len(original)), st.integers(0, len(original))))])
    outcomes = []
    for load in (piped, load_trace, stream):
        try:
            outcomes.append(load(path).sha256)
        except InputError as error:
            outcomes.append(str(error).startswith(f"{path}: "))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = save_trace(load_trace("lenet-digits-imp"), tmp_path / "trace.safetensors")
    found = stream(path)
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match="must stay as it is while it is read, and changed; start again"):
        found.layers[0]


def test_draws_are_refused_for_a_streamed_trace_as_for_any_other(tmp_path):
    path = save_trace(load_trace("lenet-digits-imp"), tmp_path / "trace.safetensors")
    with pytest.raises(InputError, match="are for files without activations"):
        stream(path, act_density=0.5)


def test_layers_stay_in_the_file_by_what_they_come_to_and_not_by_its_bytes(tmp_path):
    assert loading.STREAMED_FROM == 2**26
    weight = np.zeros((2**13, 2**13 - 3), np.float32)
    weight[::7, ::3] = 1
    path = tmp_path / "w.safetensors"
    save_file({"a": np.ones((64, 64), np.int8), "b": (weight != 0).astype(np.int8)}, path)
    assert isinstance(load_trace(path, act_density=1.0).layers, tuple)
    save_file({"a": np.ones((256, 256), np.int8), "b": (weight != 0).astype(np.int8)}, path)
    found = load_trace(path, act_density=1.0)
    assert isinstance(found.layers, StreamedLayers)
    trace = save_trace(found, tmp_path / "t.safetensors")
    assert trace.stat().st_size < 2**25
    assert isinstance(load_trace(trace).layers, StreamedLayers)
    assert all(isinstance(load_trace(name).layers, tuple) for name in bundled_traces()[:2])


PEAK = Path("/proc/self/status")
MEMORY = """
import sys
from gossamer.models import load_machine
from gossamer.workloads import load
from gossamer.simulator import simulate
from gossamer.simulator.check import check
from gossamer.workloads import load_trace
from gossamer.workloads.synth import random_layer


def peak():  # that of getrusage begins with the parent's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))


load.STREAMED_FROM = 0
machine = load_machine(sys.argv[2])
simulate(machine, random_layer(64, 64, 0.5, 0.5))  # what is loaded once
before = peak()
draw = {} if sys.argv[1].endswith("trace.safetensors") else {"act_density": 0.5}
result = simulate(machine, load_trace(sys.argv[1], **draw))
print(len(result.layers), (peak() - before) * 1024)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Files of layers in bfloat16, each of 48 MiB in float32, half of it pruned or none, and a few small ones."""
    folder = tmp_path_factory.mktemp("large")
    path = folder / "large.safetensors"
    weight = np.random.default_rng(2).standard_normal((3072, 4096), np.float32)
    dense = (weight.view(np.uint32) >> 16).astype("<u2")
    pruned, small = dense.copy(), np.zeros((64, 64), "<u2")
    pruned[:, ::2] = 0
    each = [small, pruned, dense, small, dense, pruned]
    write_bfloat16(path, [(f"layer{i}", words) for i, words in enumerate(each)])
    trace = save_trace(load_trace(path, act_density=0.5), folder / "trace.safetensors")
    return {"weights": path, "trace": trace}


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of a process is read from /proc")
# Of the weights in float32: they and what the machine holds of them, beside blocks and code. A trace takes no more.
@pytest.mark.parametrize(
    ("machine", "stored", "most"),
    [("a100-sparse", "weights", 1), ("dstc-a100", "weights", 1), ("systolic-16x16", "weights", 1),
     ("a100-block-ell", "weights", 1), ("a100-sputnik", "weights", 1), ("ese", "weights", 1.5),
     ("eie-64pe", "weights", 1.5), ("eie-64pe", "trace", 1.5), ("systolic-16x16", "trace", 1)],
)  # fmt: skip
def test_a_simulation_takes_no_more_memory_than_its_largest_layer_and_little_beside(machine, stored, most, large):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, large[stored], machine], capture_output=True, text=True, check=True
    )
    layers, grown = map(int, done.stdout.split())
    assert layers == 6 and grown < (most * 48 + 52) * 2**20


@pytest.mark.parametrize("rule", ["2:4", "0.5", "global:0.5", "block:0.5:2x2"])
def test_a_streamed_file_pruned_once_gives_the_bytes_that_one_read_whole_gives(rule, tmp_path):
    rng = np.random.default_rng(5)
    arrays = {f"fc{i}.weight": rng.standard_normal((8, side)).astype(np.float32) for i, side in enumerate((12, 10, 8))}
    save_file(arrays | {"fc0.bias": np.ones(8, np.float32)}, tmp_path / "weights.safetensors")
    whole = load_trace(tmp_path / "weights.safetensors", act_density=0.5)
    found = stream(tmp_path / "weights.safetensors", act_density=0.5)
    traces = [pruned(trace, rule, ["fc2"], "weights.safetensors") for trace in (whole, found)]
    assert isinstance(traces[1].layers, StreamedLayers) == (rule != "global:0.5")
    one, two = (save_trace(trace, tmp_path / f"{i}.safetensors") for i, trace in enumerate(traces))
    assert one.read_bytes() == two.read_bytes()
    assert list(traces[1].provenance["not_pruned"]) == (["fc2", "fc1"] if rule == "2:4" else ["fc2"])


def test_a_check_of_a_streamed_trace_is_that_of_one_read_whole(tmp_path):
    path = save_trace(load_trace("lenet-digits-imp"), tmp_path / "trace.safetensors")
    machine = load_machine("systolic-8x8")
    assert check(machine, stream(path)) == check(machine, load_trace(path))
