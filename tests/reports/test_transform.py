"""The commands of ``gossamer transform``, and their tables."""

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.reports.dynamic import macs_of
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.trace import Layer, Trace


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attention(path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 2)).astype("f4")
    probabilities = np.exp(x @ x.transpose(0, 2, 1))
    probabilities /= probabilities.sum(-1, keepdims=True)
    layers = [
        Layer(name="qk", op="matmul", inputs=x, weight=x, attributes={"samples": 1}),
        Layer(name="pv", op="matmul", inputs=probabilities, weight=x.transpose(0, 2, 1), attributes={"samples": 1}),
        Layer(name="out", op="linear", inputs=probabilities @ x, weight=np.ones((3, 2), "f4")),
    ]
    trace = Trace(name="small", layers=layers)
    save_trace(trace, path)
    return trace


def test_tokens_of_a_trace_are_pruned_and_what_is_left_is_said(here, capsys):
    whole = attention(here / "small.safetensors")
    assert main(["transform", "tokens", "small.safetensors", "--keep", "0.5", "--out", "half.safetensors"]) == 0
    said = capsys.readouterr().out
    made = load_trace(here / "half.safetensors")
    assert f"{macs_of(made)} of {macs_of(whole)} MACs" in said and "the accuracy is not known" in said
    assert said.endswith("half.safetensors\n")
    assert [layer.inputs.shape[1] for layer in made.layers] == [4, 4, 2]


def test_frames_become_deltas_or_are_shifted(here, capsys):
    assert main(["transform", "temporal", "lenet-digits-imp", "--threshold", "0.1", "--out", "d.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "fc1" in said and load_trace(here / "d.safetensors").name == "lenet-digits-imp-deltas"
    command = ["transform", "temporal", "resnet20-digits-imp", "--shift", "0.125", "--out", "s.safetensors"]
    assert main([*command, "--layer", "stage1.0.conv1"]) == 0
    assert "256 words moved" in capsys.readouterr().out


def test_an_edit_is_given_by_a_rectangle_or_by_two_samples(here, capsys):
    out = ["--out", "e.safetensors", "--whole", "w.safetensors"]
    edit = ["--edit", "0,0,2,2", "--dilation", "1", "--block", "2"]
    assert main(["transform", "spatial", "resnet20-digits-imp", *edit, *out]) == 0
    said = capsys.readouterr().out
    assert "1,790,208 MACs of convolutions, 71.2 % of the whole." in said
    assert macs_of(load_trace(here / "e.safetensors")) < macs_of(load_trace(here / "w.safetensors"))
    assert main(["transform", "spatial", "resnet20-digits-imp", "--out", "f.safetensors"]) == 0
    assert "100.0 % of the whole." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["tokens", "lenet-digits-imp", "--keep", "half"],
         "--keep must be shares, as in 0.75 or 1,0.75,0.5, not 'half'"),
        (["temporal", "lenet-digits-imp", "--two-sided"],
         "--two-sided must come with --shift, and there is none; leave it out"),
        (
            ["temporal", "lenet-digits-imp", "--shift", "0.1", "--threshold", "0.1"],
            "--threshold is of deltas, not 0.1 with --shift; leave one out",
        ),
        (
            ["temporal", "lenet-digits-imp", "--shift", "0.1", "--steps"],
            "--steps is of deltas, and --shift takes samples for frames; leave one out",
        ),
        (
            ["spatial", "resnet20-digits-imp", "--edit", "0,0,2"],
            "--edit must be TOP,LEFT,HEIGHT,WIDTH, as in 0,0,2,2, not '0,0,2'",
        ),
        (
            ["spatial", "resnet20-digits-imp", "--edit", "7,0,2,2"],
            "--edit must lie within the 8 x 8 input and not be empty, not 7,0,2,2",
        ),
        (
            ["spatial", "lenet-digits-imp", "--edit", "0,0,2,2"],
            "lenet-digits-imp: an edit needs convolutions, and the trace has none",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_status_2(here, capsys, arguments, error):
    assert main(["transform", *arguments, "--out", "x.safetensors"]) == 2
    assert capsys.readouterr().err == f"gossamer: error: {error}\n"
    assert not (here / "x.safetensors").exists()
