import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.__main__ import main
from gossamer.reports.diagnose import diagnose, diagnosis_json, diagnosis_of, write_diagnosis
from gossamer.workloads.errors import InputError
from gossamer.workloads.training import Recipe, load_checkpoint, prune, train

QUICK = {"points": 3, "steps": 3, "samples": 200}


def recipe(**changes):
    few = {"name": "short", "network": "mlp-100-100", "data": "digits", "epochs": 2, "schedule": "cosine"}
    return Recipe(**(few | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three particles, each an average, on three levels; written with its stages."""
    chosen = recipe(method="swamp", particles=3, swa_epochs=1, sparsity=0.36, rewind_step=5)
    return train(chosen, out=tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def found(run):
    return diagnosis_of(run.files["checkpoint"], **QUICK)


def test_a_run_of_particles_has_every_diagnostic_but_groups(run, found):
    assert (found.name, found.train_samples, found.test_samples) == ("short", 200, 200)
    assert [row.name for row in found.sparsity] == ["fc1.weight", "fc2.weight", "fc3.weight", "total"]
    assert found.sparsity[-1].kept == run.history[-1].kept
    assert len(found.balance[0].nonzeros) == 64
    assert found.groups == ()
    assert list(found.curvature) == ["result", "particle 1", "particle 2", "particle 3"]
    ends = [(line.start, line.end) for line in found.between_particles]
    assert ends == [("particle 1", "particle 2"), ("particle 1", "particle 3"), ("particle 2", "particle 3")]
    assert found.surface.names == ("particle 1", "particle 2", "particle 3")
    assert found.surface.loss.shape == (3, 3)
    assert len(found.between_particles[0].loss) == 3


def test_lines_go_through_all_levels_where_the_stages_are_and_the_last_two_where_they_are_not(run, found):
    assert [(line.start, line.end) for line in found.between_levels] == [("level 0", "level 1"), ("level 1", "level 2")]
    bare = diagnosis_of(replace(run, files={}), **QUICK)
    assert [(line.start, line.end) for line in bare.between_levels] == [("level 1", "level 2")]
    assert np.array_equal(bare.between_levels[0].loss, found.between_levels[1].loss)
    assert np.array_equal(bare.surface.loss, found.surface.loss)
    assert bare.curvature == found.curvature


def test_the_end_of_a_line_is_what_the_run_came_to(run):
    whole = diagnosis_of(run, points=2, steps=2)
    assert whole.test_samples == 360
    assert whole.between_levels[-1].accuracy[-1] == run.accuracy
    assert whole.between_levels[-1].loss[-1] == pytest.approx(run.history[-1].loss, rel=1e-5)
    assert [line.accuracy[0] for line in whole.between_levels] == [level.accuracy for level in run.history[:-1]]
    assert whole.scan.base_accuracy == run.accuracy


def test_stages_of_another_run_are_not_taken_for_its_own(run, tmp_path):
    checkpoint = run.files["checkpoint"]
    folder = checkpoint.parent / f"short-{run.recipe.digest}"
    copy = tmp_path / folder.name
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    moved = tmp_path / checkpoint.name
    moved.write_bytes(checkpoint.read_bytes())
    assert len(diagnosis_of(moved, **QUICK).between_levels) == 2
    (copy / "level-02-particle-0.safetensors").write_bytes((copy / "level-01-particle-0.safetensors").read_bytes())
    assert diagnosis_of(moved, **QUICK).between_levels == ()
    (copy / "level-00-particle-0.safetensors").write_bytes(b"cut short")
    assert diagnosis_of(moved, **QUICK).between_levels == ()
    alone = tmp_path / "alone" / checkpoint.name
    alone.parent.mkdir()
    alone.write_bytes(checkpoint.read_bytes())
    lonely = diagnosis_of(alone, **QUICK)
    assert (lonely.between_levels, lonely.between_particles, lonely.surface) == ((), (), None)
    assert list(lonely.curvature) == ["result"]


def test_what_is_found_is_drawn_and_written_as_json(found, tmp_path):
    written = write_diagnosis(found, tmp_path / "new" / "folder", suffix=".svg")
    names = ["sparsity", "balance", "curvature", "lines-between-particles", "lines-between-levels", "sensitivity",
             "surface"]  # fmt: skip
    assert [path.name for path in written] == [f"{name}.svg" for name in names] + ["diagnostics.json"]
    assert all(path.stat().st_size for path in written)
    data = json.loads(written[-1].read_text())
    assert data["between_particles"][0]["instability"] == found.between_particles[0].instability
    assert data["scan"]["accuracy"]["fc1.weight"] == found.scan.accuracy["fc1.weight"].tolist()
    assert data["sparsity"][-1]["sparsity"] == found.sparsity[-1].sparsity
    assert data["curvature"]["result"][0]["mean"] == found.curvature["result"][0].mean
    assert data["surface"]["loss"] == found.surface.loss.tolist()
    assert diagnosis_json(found) == written[-1].read_text()


def test_a_recipe_of_groups_has_them_reported():
    run = train(recipe(method="asp", n=2, m=4, epochs=1))
    found = diagnosis_of(run, pe_count=8, **QUICK)
    assert [(row.name, row.violations, row.padding) for row in found.groups] == [
        ("fc1.weight", 0, 0), ("fc2.weight", 0, 0), ("fc3.weight", 0, 0),
    ]  # fmt: skip
    assert len(found.balance[0].nonzeros) == 8
    assert found.surface is None


def test_a_module_of_ones_own_is_diagnosed_with_its_loaders(tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(90, 4, generator=generator)
    loader = list(zip(inputs.split(30), (inputs.sum(dim=1) > 2).long().split(30), strict=True))
    module = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    run = prune(module, loader, loader, recipe(method="imp", sparsity=0.5, epochs=1), out=tmp_path)
    loaders = {"train_loader": loader, "test_loader": loader}
    paths = diagnose(run, tmp_path / "live", points=2, **loaders)
    assert {"lines-between-levels.png", "sensitivity.png", "diagnostics.json"} <= {path.name for path in paths}
    checkpoint = run.files["checkpoint"]
    kept = diagnosis_of(checkpoint, module=module, **loaders)
    assert diagnosis_of(run, points=2, **loaders).curvature == kept.curvature
    for given, missing in (((run, {}), "train_loader, test_loader"), ((checkpoint, loaders), "module")):
        with pytest.raises(InputError) as error:
            diagnose(given[0], tmp_path, **given[1])
        assert str(error.value) == (
            f"run short: a run of prune() is diagnosed with what prune() was given, and lacks {missing}; "
            "call gossamer.reports.diagnose.diagnose in Python with these"
        )


def test_the_command_prints_tables_and_names_what_it_wrote(run, tmp_path, capsys):
    arguments = ["diagnose", str(run.files["checkpoint"]), "--out", str(tmp_path), "--samples", "50", "--pe-count", "4"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for title in ("Sparsity", "Nonzeros over 4 PEs", "Accuracy, %, with one layer pruned", "Lines between particles"):
        assert title in out
    assert all(str(path) in out for path in tmp_path.iterdir())
    assert len(list(tmp_path.glob("*.png"))) == 7
    assert load_checkpoint(run.files["checkpoint"]).recipe.name == "short"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.safetensors"], "nope.safetensors: "),
        (["CHECKPOINT", "--samples", "0"], "samples must be at least 1, not 0"),
        (["CHECKPOINT", "--pe-count", "0"], "pe_count must be a whole number from 1 to 65536, not 0"),
        (["CHECKPOINT", "--suffix", ".gif"], "--suffix must be one of .png, .svg, .pdf, not '.gif'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, arguments, message, tmp_path, capsys):
    named = [str(run.files["checkpoint"]) if word == "CHECKPOINT" else word for word in arguments]
    assert main(["diagnose", *named, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gossamer: error: {message}")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
