"""What a run writes: its files, what its trace says, and checkpoints, sound and damaged."""

import csv
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from gossamer.workloads.data import load_data
from gossamer.workloads.files.container import container_bytes, parse_container
from gossamer.workloads.files.trace_file import load_trace_file
from gossamer.workloads.training import export_checkpoint, is_checkpoint, load_checkpoint, load_recipe, train
from gossamer.workloads.training.checkpoint import KEY
from gossamer.workloads.training.recipe import override

from ..refusals import message

SHORT = load_recipe("lenet-digits-imp-balanced", epochs=2, rewind_step=5, finetune_epochs=1, sparsity=0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A short balanced run, written."""
    return train(SHORT, out=tmp_path_factory.mktemp("run"))


def test_training_twice_with_one_seed_gives_the_same_files(made, tmp_path):
    again = train(SHORT, out=tmp_path)
    assert set(again.files) == {"trace", "checkpoint", "history"}
    for kind, path in again.files.items():
        assert path.name == made.files[kind].name
        assert path.read_bytes() == made.files[kind].read_bytes()
    other = train(override(SHORT, seed=1, epochs=1))
    assert other.trace.sha256 != made.trace.sha256


def test_the_files_are_the_trace_its_checkpoint_and_its_history(made):
    folder = made.files["trace"].parent
    assert sorted(path.name for path in folder.iterdir()) == [
        f"lenet-digits-imp-balanced-{made.recipe.digest}",
        "lenet-digits-imp-balanced.checkpoint.safetensors",
        "lenet-digits-imp-balanced.history.csv",
        "lenet-digits-imp-balanced.safetensors",
    ]
    assert load_trace_file(made.files["trace"]).sha256 == made.trace.sha256
    with made.files["history"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [level.accuracy for level in made.history]
    assert list(rows[0]) == ["level", "sparsity", "kept", "accuracy", "loss", "training_flops"]


def test_a_checkpoint_gives_the_trace_of_the_run_to_the_bit(made):
    assert is_checkpoint(made.files["checkpoint"])
    assert not is_checkpoint(made.files["trace"])
    assert not is_checkpoint(made.files["history"])
    assert not is_checkpoint(made.files["history"].parent)
    assert not is_checkpoint("nowhere.safetensors")
    assert export_checkpoint(made.files["checkpoint"]).sha256 == made.trace.sha256


def test_the_activations_are_those_of_real_samples_and_lead_to_the_predictions(made):
    data = load_data("digits")
    layers = made.trace.layers
    assert [layer.name for layer in layers] == ["fc1", "fc2", "fc3"]
    assert np.array_equal(layers[0].inputs, data.test_inputs[:8])
    for layer, after in pairwise(layers):
        outputs = np.maximum(layer.inputs @ layer.weight.T + layer.bias, 0)
        assert after.inputs == pytest.approx(outputs, abs=1e-4)
        assert 0.1 < (after.inputs == 0).mean() < 0.9
    scores = layers[-1].inputs @ layers[-1].weight.T + layers[-1].bias
    provenance = made.trace.provenance
    assert provenance["predictions"] == scores.argmax(axis=1).tolist()
    assert provenance["labels"] == data.test_labels[:8].tolist()


def test_the_provenance_says_where_the_weights_come_from(made):
    provenance = made.trace.provenance
    assert provenance["recipe"] == msgspec.to_builtins(made.recipe) | {"milestones": [], "exclude": []}
    assert (provenance["network"], provenance["data"], provenance["seed"]) == ("lenet-300-100", "digits", 0)
    assert (provenance["accuracy"], provenance["dense_accuracy"]) == (made.accuracy, made.dense_accuracy)
    assert provenance["test_samples"] == 360
    assert provenance["sparsity"] == made.trace.sparsity == 0.5
    assert provenance["sparsity_by_layer"] == {layer.name: layer.sparsity for layer in made.trace.layers}
    assert provenance["made_with"] == {"torch": str(torch.__version__), "numpy": np.__version__}


def damage(made, path, change):
    """Write the checkpoint of ``made`` to ``path`` after ``change(tensors, header)``."""
    container = parse_container(made.files["checkpoint"].read_bytes(), Path("made"))
    tensors = {
        name: array.astype(bool) if dtype == "BOOL" else array.copy()
        for name, (dtype, array) in container.tensors.items()
    }
    header = msgspec.json.decode(container.metadata[KEY])
    change(tensors, header)
    path.write_bytes(container_bytes(tensors, {KEY: msgspec.json.encode(header).decode()}))
    return path


def lopside(tensors, header):
    tensors["fc1.weight.mask"][:] = np.arange(300)[:, None] < 100
    tensors["fc1.weight"] *= tensors["fc1.weight.mask"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda t, h: h.update(version=3), "version must be 2, not 3; use the gossamer that wrote it"),
        (lambda t, h: h["recipe"].update(epochs=0), "epochs must be a whole number of at least 1, not 0"),
        (lambda t, h: h.update(history=[]), "the history must have at least one level, and has none; train again"),
        (
            lambda t, h: t.update({"fc1.bias": np.zeros(3, np.float32)}),
            "tensor fc1.bias must be (300,) in lenet-300-100, not (3,)",
        ),
        (
            lambda t, h: t.update({"fc1.bias": np.zeros(300)}),
            "tensor fc1.bias must be F32, not F64; train again",
        ),
        (
            lambda t, h: t["fc1.bias"].fill(np.nan),
            "layer fc1: tensor bias must be finite, and holds nan at (0,); replace such values",
        ),
        (
            lambda t, h: (t["fc1.weight.mask"].fill(False), t["fc1.weight"].fill(0.5)),
            "tensor fc1.weight must be 0 where its mask prunes it, and is 0.5 at (0, 0); train again",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_rule_it_breaks(made, tmp_path, change, rule):
    path = damage(made, tmp_path / "bad.safetensors", change)
    assert message(export_checkpoint, path) == f"{path}: {rule}"


def test_a_checkpoint_of_other_parameters_is_refused(made, tmp_path):
    path = damage(made, tmp_path / "bad.safetensors", lambda tensors, header: tensors.pop("fc3.bias"))
    assert message(export_checkpoint, path) == (
        f"{path}: the parameters of lenet-300-100 must be fc1.weight, fc1.bias, fc2.weight, fc2.bias, fc3.weight, "
        "fc3.bias, with masks of these alone, not fc1.bias, fc1.weight, fc1.weight.mask, fc2.bias, fc2.weight, "
        "fc2.weight.mask, fc3.weight, fc3.weight.mask; train again"
    )


def test_a_checkpoint_whose_mask_is_out_of_balance_is_refused(made, tmp_path):
    path = damage(made, tmp_path / "bad.safetensors", lopside)
    assert message(export_checkpoint, path).startswith(
        f"{path}: parameter fc1.weight: balanced over 64 PEs, each pe must keep"
    )


def test_a_file_that_is_no_checkpoint_is_refused(made, tmp_path):
    trace = made.files["trace"]
    assert message(load_checkpoint, trace) == (
        f"{trace}: a checkpoint must carry the metadata key {KEY}, and has none; give one that gossamer train wrote"
    )
    gone = tmp_path / "gone.safetensors"
    assert message(load_checkpoint, gone) == (
        f"{gone}: a checkpoint must be a readable file, and No such file or directory; check the path"
    )
