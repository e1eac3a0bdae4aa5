"""gossamer export of other people's models: what it writes, warns of and refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gossamer.__main__ import main
from gossamer.workloads import load_trace

NET = """
import torch
from torch import nn

def build():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 10))
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net_of_a_user.py").write_text(NET)
    np.save("x.npy", np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32))
    yield
    import sys

    sys.modules.pop("net_of_a_user", None)


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    return (status, *capsys.readouterr())


def test_a_module_of_a_factory_is_exported_with_its_samples(capsys):
    status, out, err = run(
        capsys, "export", "net_of_a_user:build", "--inputs", "x.npy", "--prune", "2:4", "--exclude", "3",
        "--out", "t.safetensors",
    )  # fmt: skip
    assert (status, out) == (0, "t.safetensors: net_of_a_user-2-4, 2 layers, 23.7% sparse\n")
    assert err.splitlines() == [
        "gossamer: warning: not simulated, BatchNorm2d: 1",
        "gossamer: warning: left dense, excluded: 3.weight",
    ]
    trace = load_trace("t.safetensors")
    assert [(layer.name, layer.samples, layer.pattern.kind) for layer in trace.layers] == [
        ("0", 2, "n:m"),
        ("3", 2, "dense"),
    ]
    folded = ("export", "net_of_a_user:build", "--inputs", "x.npy", "--fold-batch-norm", "--out", "f.safetensors")
    assert run(capsys, *folded) == (0, "f.safetensors: net_of_a_user, 2 layers, 0.0% sparse\n", "")


def test_a_name_that_no_trace_may_have_is_refused_before_the_model_is_made(capsys):
    assert run(capsys, "export", "no_such_net:build", "--inputs", "x.npy", "--out", "t.st") == (
        2,
        "",
        "gossamer: error: t.st: the name of a trace file must end in .safetensors, not '.st'; rename it\n",
    )


def test_the_same_export_gives_the_same_bytes(capsys):
    for name in ("a.safetensors", "b.safetensors"):
        run(capsys, "export", "net_of_a_user:build", "--inputs", "x.npy", "--prune", "0.5", "--out", name)
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_a_state_dict_and_masked_weights_are_told_apart(capsys):
    weight = torch.arange(32.0).reshape(4, 8) + 1
    save_file({"fc.weight_orig": weight, "fc.weight_mask": (weight > 16).float()}, "pruned.safetensors")
    status, out, err = run(capsys, "export", "pruned.safetensors", "--act-density", 1, "--out", "a.safetensors")
    assert (status, out, err) == (0, "a.safetensors: pruned, 1 layers, 50.0% sparse\n", "")
    assert load_trace("a.safetensors").names == ("fc",)
    np.savez("pruned.npz", **{"fc.weight_orig": weight.numpy(), "fc.weight_mask": (weight > 16).numpy()})
    assert run(capsys, "export", "pruned.npz", "--act-density", 1, "--out", "a.safetensors")[0] == 0
    assert load_trace("a.safetensors").sparsity == 0.5
    assert run(capsys, "simulate", "pruned.npz", "--act-density", 1) == (
        2,
        "",
        "gossamer: error: pruned.npz: 'fc.weight_orig' is one of a pruning tool's parts of a weight, not a whole one; "
        "gossamer export puts such parts together\n",
    )
    save_file({"fc.weight": weight}, "plain.safetensors")
    assert run(
        capsys, "export", "plain.safetensors", "--act-density", 1, "--prune", "balanced:0.5:2", "--out", "b.safetensors"
    )[0] == 0  # fmt: skip
    trace = load_trace("b.safetensors")
    assert (trace.name, trace.layers[0].pattern.kind, trace.layers[0].sparsity) == (
        "plain-balanced-0.5-2",
        "balanced",
        0.5,
    )
    torch.save(nn.Linear(8, 4).state_dict(), "net.pt")
    assert run(capsys, "export", "net.pt", "--act-density", 0.5, "--samples", 3, "--out", "c.safetensors")[0] == 0
    assert load_trace("c.safetensors").layers[0].samples == 3


def test_a_bundled_trace_is_pruned_with_a_word_on_its_activations(capsys):
    assert run(capsys, "export", "lenet-digits-dense", "--prune", "1:8", "--out", "t.safetensors")[0] == 0
    trace = load_trace("t.safetensors")
    assert trace.provenance["pruned"] == {"rule": "1:8", "activations": "those before pruning"}
    assert trace.name == "lenet-digits-dense-1-8"  # told from the dense one in a comparison
    status, *_ = run(capsys, "compare", "lenet-digits-dense", "t.safetensors", "--on", "systolic-8x8", "--csv", "t.csv")
    assert status == 0 and [line.split(",")[0] for line in Path("t.csv").read_text().splitlines()[1:]] == [
        "lenet-digits-dense",
        trace.name,
    ]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (
            ("net_of_a_user:build",),
            "net_of_a_user:build: a module must be fed with samples; give inputs, a .npy, .npz or .safetensors",
        ),
        (
            ("lenet-digits-imp", "--inputs", "x.npy"),
            "lenet-digits-imp: --inputs needs a model that can be run, not weights; leave it out",
        ),
        (
            ("lenet-digits-imp", "--exclude", "fc1"),
            "lenet-digits-imp: exclude is for prune, and there is none; leave it out",
        ),
        (
            ("net_of_a_user:build", "--inputs", "x.npy", "--weights", "w.npz"),
            "--weights must come with --network, and there is none; leave it out",
        ),
        (
            ("net_of_a_user:build", "--inputs", "x.npy", "--features"),
            "--features must come with --network, and there is none; leave it out",
        ),
        (
            ("net_of_a_user:build", "--inputs", "x.npy", "--prune", "half"),
            "net_of_a_user:build: prune must be N:M, SHARE, global:SHARE, balanced:SHARE:PES, channel:SHARE, "
            "block:SHARE:ROWSxCOLUMNS or equal-blocks:SHARE:ROWSxCOLUMNS, not 'half'; as in 2:4",
        ),
        (("none.onnx", "--inputs", "x.npy"), "none.onnx: an ONNX model must be a readable file, and No such file or "
         "directory; check the path"),
        (
            ("none.onnx", "--fold-batch-norm"),
            "none.onnx: fold_batch_norm is for a training run or a PyTorch module; leave it out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(capsys, arguments, rule):
    status, out, err = run(capsys, "export", *arguments, "--out", "t.safetensors")
    assert (status, out, err) == (2, "", f"gossamer: error: {rule}\n")
    assert not Path("t.safetensors").exists()


def test_a_scan_called_bin_is_a_cloud_and_not_a_state_dict(capsys):
    np.zeros((4, 4), np.float32).tofile("scan.bin")
    _, _, err = run(capsys, "export", "scan.bin", "--out", "t.safetensors")
    assert "scan.bin: a point cloud must go through a network to be a trace; give --network" in err
    torch.save({"fc.weight": torch.ones(2, 2)}, "pytorch_model.bin")
    assert run(capsys, "export", "pytorch_model.bin", "--act-density", 1, "--out", "t.safetensors")[0] == 0
