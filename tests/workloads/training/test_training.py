import sys

import numpy as np
import pytest
import torch

from gossamer.workloads.data import load_data
from gossamer.workloads.pruning import kept_count, sparsity_levels
from gossamer.workloads.training import load_recipe, train
from gossamer.workloads.training import loop as loop_module
from gossamer.workloads.training.batches import ArrayBatches
from gossamer.workloads.training.flow import Flow
from gossamer.workloads.training.loop import Loop, apply_masks, rate_factor
from gossamer.workloads.training.methods.imp import imp
from gossamer.workloads.training.recipe import override

from ..refusals import message
from .watched import Watched

SIZES = {"fc1.weight": 64 * 300, "fc2.weight": 300 * 100, "fc3.weight": 100 * 10}


def short(name, **changes):
    """A bundled recipe, with fewer epochs and levels."""
    few = {"epochs": 2, "rewind_step": 5, "finetune_epochs": 1}
    if name != "lenet-digits-dense":
        few["sparsity"] = 0.5
    return load_recipe(name, **(few | changes))


def test_every_level_starts_from_the_weights_of_the_rewind_step():
    loop = Watched(short("lenet-digits-imp", epochs=1))
    pairs = list(imp(loop))
    (_, _, *steps, rewound, _), *levels = loop.calls
    assert steps == [0, 5]
    assert len(levels) == len(sparsity_levels(0.5, 0.2)) == 5
    for (weights, masks, first, last, _, _), (_, kept, _) in zip(levels, pairs, strict=True):
        assert (first, last) == (5, loop.steps)
        assert masks is kept
        for name, value in rewound.items():
            assert np.array_equal(weights[name], value)
            # What the training starts from: w_k where kept, 0 where not.
            start = apply_masks(weights, masks)[name]
            mask = masks.get(name, np.ones(value.shape, bool))
            assert np.array_equal(start[mask], value[mask])
            assert not start[~mask].any()


def test_rewinding_to_step_0_is_the_original_lottery_ticket():
    loop = Watched(short("lenet-digits-imp", epochs=1, rewind_step=0))
    first = loop.weights()
    list(imp(loop))
    assert all(np.array_equal(call.start[name], first[name]) for call in loop.calls for name in first)


def test_each_level_prunes_a_fifth_of_what_is_left_and_the_last_lands_on_the_target():
    run = train(short("lenet-digits-imp", epochs=1))
    size = sum(SIZES.values())
    kept = [size, *(round(size * 0.8**n) for n in (1, 2, 3)), kept_count(size, 0.5)]
    assert [level.kept for level in run.history] == kept
    assert run.history[3].sparsity == pytest.approx(0.488, abs=1 / size)
    assert run.history[-1].sparsity == 0.5
    assert [level.level for level in run.history] == [0, 1, 2, 3, 4]


def test_masks_are_nested_and_hold_through_training():
    before = None
    for weights, masks, _ in imp(Loop.of(short("lenet-digits-imp", epochs=1, weight_decay=0.01))):
        for name, mask in masks.items():
            assert not weights[name][~mask].any()
            assert before is None or not (mask & ~before[name]).any()
        before = masks


@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"optimizer": "adam", "learning_rate": 0.001}])
def test_a_pruned_weight_never_leaves_0_and_a_kept_one_moves(changes):
    loop = Loop.of(short("lenet-digits-dense", **changes))
    masks = {"fc2.weight": np.random.default_rng(0).random((100, 300)) < 0.3}
    before = loop.weights()
    after = loop.train(before, masks, 0, 10)
    pruned = after["fc2.weight"][~masks["fc2.weight"]]
    assert not pruned.any()
    assert not np.signbit(pruned).any()
    moved = after["fc2.weight"] != before["fc2.weight"]
    assert moved[masks["fc2.weight"]].mean() > 0.5


def test_training_in_two_pieces_without_momentum_is_training_in_one():
    loop = Loop.of(short("lenet-digits-dense", momentum=0.0))
    masks = loop.full_masks()
    start = loop.weights()
    whole = loop.train(start, masks, 0, 40)
    half = loop.train(loop.train(start, masks, 0, 17), masks, 17, 40)
    assert all(np.array_equal(whole[name], half[name]) for name in whole)
    elsewhere = loop.train(loop.train(start, masks, 0, 17), masks, 0, 23)
    assert not np.array_equal(whole["fc1.weight"], elsewhere["fc1.weight"])


def test_every_sample_comes_once_an_epoch_and_each_epoch_and_particle_has_its_own_order():
    loop = Loop.of(short("lenet-digits-dense"))
    batches = ArrayBatches(torch.arange(1437), torch.arange(1437) % 10, 64)
    orders = set()
    for particle, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        seen = list(batches.epoch(loop.recipe.seed, particle, epoch))
        assert len(seen) == len(batches) == loop.steps_per_epoch == 23
        order = torch.cat([inputs for inputs, _ in seen])
        assert torch.equal(order.sort().values, torch.arange(1437))
        assert torch.equal(torch.cat([labels for _, labels in seen]), order % 10)
        orders.add(tuple(order.tolist()))
    assert len(orders) == 4


def test_the_learning_rate_follows_its_schedule():
    steps = short("lenet-digits-dense", epochs=4, schedule="multistep", milestones=(1, 3), gamma=0.5)
    assert [rate_factor(steps, epoch) for epoch in (0, 0.99, 1, 2.9, 3)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = override(steps, schedule="cosine")
    assert [rate_factor(cosine, epoch) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert rate_factor(override(steps, schedule="constant"), 3) == 1


def test_the_state_of_torch_is_left_as_it_was():
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    try:
        train(short("lenet-digits-oneshot", epochs=1))
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "scope"), [("lenet-digits-imp-balanced", "pe"), ("lenet-digits-imp-balanced-column", "pe-column")]
)
def test_a_balanced_recipe_gives_every_layer_and_pe_the_same_share(name, scope):
    run = train(short(name, epochs=1, sparsity=0.7))
    for layer in run.trace.layers:
        assert (layer.pattern.kind, layer.pattern.pe_count, layer.pattern.scope) == ("balanced", 64, scope)
        assert layer.sparsity == pytest.approx(0.7)
    layer = run.trace.layers[1]  # 100 rows: 36 PEs hold 2 of them, 28 hold 1
    shares = [np.mean(layer.mask[pe::64]) for pe in range(64)]
    assert shares == pytest.approx([0.3] * 64, abs=1 / 300)


def test_one_threshold_a_layer_gives_every_layer_the_same_sparsity():
    run = train(short("lenet-digits-oneshot", epochs=1, strategy="magnitude-layer", sparsity=0.8))
    assert [layer.sparsity for layer in run.trace.layers] == pytest.approx([0.8] * 3)
    assert {layer.pattern.kind for layer in run.trace.layers} == {"unstructured"}


def test_the_output_layer_can_be_left_dense():
    run = train(short("lenet-digits-oneshot", epochs=1, prune_output=False))
    assert [layer.pattern.kind for layer in run.trace.layers] == ["unstructured", "unstructured", "dense"]
    assert run.trace.layers[2].mask is None
    assert run.history[-1].sparsity == 0.5
    assert run.trace.provenance["sparsity"] == 0.5 * 49200 / 50200


def test_a_dense_run_prunes_nothing(tmp_path):
    run = train(short("lenet-digits-dense", epochs=1), out=tmp_path)
    assert {layer.pattern.kind for layer in run.trace.layers} == {"dense"}
    assert run.trace.sparsity == 0
    assert len(run.history) == 1
    assert run.accuracy == run.dense_accuracy


def test_pruning_after_training_beats_chance_by_far_and_iterating_keeps_the_dense_accuracy():
    dense, once, often = (train(load_recipe(f"lenet-digits-{name}", epochs=10)) for name in ("dense", "oneshot", "imp"))
    assert dense.accuracy == once.dense_accuracy > 0.95
    assert often.dense_accuracy > 0.95  # not the same: momentum starts anew at the rewind step
    assert once.accuracy > 0.9
    assert often.accuracy > dense.accuracy - 0.03


def test_progress_counts_every_step_once():
    for name in ("dense", "oneshot", "imp"):
        seen = []
        train(short(f"lenet-digits-{name}"), progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
        assert {total for _, total in seen} == {len(seen)}


def test_the_digits_are_scaled_with_their_zeros_and_split_by_the_seed():
    data = load_data("digits")
    assert data.train_inputs.shape == (1437, 64)
    assert data.test_inputs.shape == (360, 64)
    assert data.train_inputs.dtype == np.float32
    assert (data.train_inputs.min(), data.train_inputs.max()) == (0, 1)
    assert 0.4 < (data.test_inputs == 0).mean() < 0.6
    assert np.bincount(data.test_labels).min() >= 34
    again, other = load_data("digits"), load_data("digits", seed=1)
    assert np.array_equal(data.test_inputs, again.test_inputs)
    assert not np.array_equal(data.test_inputs, other.test_inputs)


@pytest.mark.parametrize(("module", "package"), [("torch", "torch"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, tmp_path, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert message(train, "lenet-digits-dense", out=tmp_path / "new") == (
        f"this needs {package}, which is not installed; pip install gossamer[train]"
    )
    assert not (tmp_path / "new").exists()


def test_an_output_that_is_no_folder_is_refused_before_training(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert message(train, "lenet-digits-dense", out=path, progress=lambda done, total: pytest.fail()) == (
        f"{path}: the output must be a folder that can be written, and File exists; choose another"
    )
    assert path.read_text() == "mine"


def test_a_recipe_that_the_data_cannot_serve_is_refused():
    name = "recipe lenet-digits-imp: "
    assert message(train, short("lenet-digits-imp", rewind_step=46)) == (
        f"{name}rewind_step must be below the run's 46 steps (2 epochs of 23), not 46"
    )
    assert message(train, short("lenet-digits-imp", samples=361)) == (
        f"{name}samples must be at most the 360 test samples, not 361"
    )
    assert message(train, short("lenet-digits-imp", test_fraction=0.001)) == (
        "test_fraction must leave each of the 10 classes a sample to train on and one to test, not 0.001"
    )


def test_training_that_diverges_is_told_and_writes_nothing(tmp_path):
    assert message(train, short("lenet-digits-imp", learning_rate=1e6), out=tmp_path) == (
        "recipe lenet-digits-imp: the loss must stay finite, and did not with learning_rate 1000000.0; lower it"
    )
    assert list(tmp_path.iterdir()) == []
    assert message(train, short("lenet-digits-oneshot", epochs=1, finetune_learning_rate=1e6)) == (
        "recipe lenet-digits-oneshot: the loss must stay finite, and did not with learning_rate 0.1 and "
        "finetune_learning_rate 1000000.0; lower one of them"
    )


@pytest.mark.parametrize(
    ("name", "flow"),
    [
        ("lenet-digits-imp", None),
        ("lenet-digits-l1", None),
        ("lenet-digits-mdgf-exp-1-8", Flow(1, 8, decay="exponential", c=1e-3)),
        ("convnet-digits-swamp", None),
        ("vit-digits-srste-2-4", Flow(2, 4, sr_decay=2e-4)),
    ],
)
def test_a_training_has_all_it_needs_on_the_device_asked_for(monkeypatch, name, flow):
    # torch's device without values stands for one that may be absent here; operations refuse tensors of two, but for
    # the masking of a step, which is watched.
    met = []
    multiply = torch._foreach_mul_

    def watched(tensors, others):
        if isinstance(others, list):  # an optimiser multiplies by a number
            met.extend(tensor.device.type for tensor in others)
        multiply(tensors, others)

    def shapes(network):
        arrays = {}
        for key, value in (*network.named_parameters(), *network.named_buffers()):
            met.append(value.device.type)
            whole = not value.dtype.is_floating_point
            arrays[key] = np.ones(tuple(value.shape), np.int64 if whole else np.float32)
        return arrays

    monkeypatch.setattr(loop_module, "check_device", lambda recipe: "meta")
    monkeypatch.setattr(torch, "_foreach_mul_", watched)
    monkeypatch.setattr(loop_module, "_parameters_of", shapes)
    monkeypatch.setattr(Loop, "weights", lambda self: shapes(self.network))
    monkeypatch.setattr(Loop, "_recalibrate", lambda self, particle: None)  # torch asks for the number of batches
    loop = Loop.of(load_recipe(name))
    assert loop.batches.inputs.device.type == loop.batches.labels.device.type == "meta"
    masks = loop.full_masks()
    for mask in masks.values():
        mask.flat[::2] = False
    last = loop.steps if loop.recipe.swa_epochs else 3
    loop.train(loop.weights(), masks, last - 3, last, average=bool(loop.recipe.swa_epochs), flow=flow)
    assert set(met) == {"meta"}
