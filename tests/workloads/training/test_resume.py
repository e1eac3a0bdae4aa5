import numpy as np
import pytest
import torch

from gossamer.workloads.training import load_recipe, train
from gossamer.workloads.training.stages import Stages, digest

CHANGES = {"network": "convnet-digits", "data": "digits-images", "epochs": 1, "batch_size": 256, "samples": 2}
METHODS = {
    "imp": {"sparsity": 0.4, "rewind_step": 2},
    "swamp": {"sparsity": 0.3, "rewind_step": 2, "particles": 2, "swa_epochs": 1},
    "iterative": {"sparsity": 0.4, "finetune_epochs": 1},
    "sdgf-stepwise": {"n": 1, "m": 4, "epochs": 3, "finetune_epochs": 1, "dense_epochs": 1, "exclude": ["conv1", "fc"]},
}


class KilledError(Exception):
    pass


def recipe(method, **changes):
    return load_recipe("lenet-digits-dense", method=method, name="mine", **(CHANGES | METHODS[method] | changes))


def killed_at(step, recipe, out):
    """Train until ``step`` steps are done, and no further."""

    def progress(done, in_all):
        if done == step:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, out=out, progress=progress)


def stages(out, recipe):
    return {path.name: path.read_bytes() for path in (out / f"mine-{recipe.digest}").iterdir()}


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_where_it_stopped_and_ends_in_the_same_bytes(method, tmp_path):
    mine, whole, broken = recipe(method), tmp_path / "whole", tmp_path / "broken"
    counted = []
    train(mine, out=whole, progress=lambda done, in_all: counted.append(done))
    for step in (len(counted) * 6 // 10, len(counted) * 9 // 10):
        killed_at(step, mine, broken)
    kept = stages(broken, mine)
    assert 0 < len(kept) < len(stages(whole, mine))
    seen = []
    train(mine, out=broken, progress=lambda done, in_all: seen.append((done, in_all)))
    assert len(seen) < len(counted) / 2  # what was there was not trained again
    assert seen[-1] == (len(counted), len(counted))
    files, same = (sorted(path.relative_to(out) for path in out.rglob("*.*")) for out in (whole, broken))
    assert files == same
    for path in files:
        assert (broken / path).read_bytes() == (whole / path).read_bytes()
    assert kept.items() <= stages(whole, mine).items()


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    first = train(recipe("imp"), out=tmp_path)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *args, **kwargs: pytest.fail("a step was taken"))
    again = train(recipe("imp"), out=tmp_path)
    assert again.history == first.history
    assert again.trace.sha256 == first.trace.sha256


def test_another_recipe_has_a_folder_of_its_own(tmp_path):
    one, other = recipe("imp"), recipe("imp", seed=1)
    assert one.digest != other.digest
    assert one.digest == recipe("imp").digest
    killed_at(7, one, tmp_path)
    killed_at(7, other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def flipped(data):
    """The middle of the file is a weight."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("harm", [lambda data: data[:-10], lambda data: b"no stage", flipped])
def test_a_stage_that_was_harmed_is_trained_again(tmp_path, harm):
    mine = recipe("imp")
    first = train(mine, out=tmp_path)
    path = tmp_path / f"mine-{mine.digest}" / "level-01.safetensors"
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    again = train(mine, out=tmp_path)
    assert path.read_bytes() == whole
    assert again.trace.sha256 == first.trace.sha256


def test_a_stage_made_from_other_inputs_or_by_other_versions_is_made_anew(tmp_path):
    made = []
    inputs = {"weights": {"w": np.ones(3, np.float32)}, "masks": {}, "first": 0, "last": 5}

    def act():
        made.append(1)
        return {"w": np.full(3, len(made), np.float32)}

    def stage(inputs, version="1"):
        return Stages(tmp_path / "run", {"torch": version}, lambda steps: made.append(-steps))("a", inputs, act)["w"][0]

    assert [stage(inputs), stage(inputs)] == [1, 1]
    assert made == [1, -5]
    assert stage({**inputs, "last": 6}) == 3
    assert stage({**inputs, "last": 6}, "2") == 4
    assert digest(inputs) != digest({**inputs, "weights": {"w": np.ones((3, 1), np.float32)}})
