import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.errors import InputError
from gossamer.workloads.pruning import kept_count, sparsity_levels
from gossamer.workloads.training import load_recipe, train
from gossamer.workloads.training.kernels import companions, kernels, prunable, uses
from gossamer.workloads.training.loop import Loop, apply_masks, rate_factor
from gossamer.workloads.training.methods import METHODS
from gossamer.workloads.training.methods.imp import control, random_masks, shuffled
from gossamer.workloads.training.methods.swamp import mean
from gossamer.workloads.training.recipe import override

from .watched import Watched


def short(method, **changes):
    """A short run of the MLP on digits: two epochs a level."""
    few = {"network": "mlp-100-100", "epochs": 2, "samples": 2}
    if method in ("imp", "swamp"):
        few |= {"sparsity": 0.5, "rewind_step": 5}
    return load_recipe("lenet-digits-dense", method=method, **(few | changes))


def small(method, **changes):
    """A short run of the small convolutional net, which has batch norms."""
    return short(method, network="convnet-digits", data="digits-images", epochs=1, **changes)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("recipe", [short, small])
def test_swamp_of_one_particle_without_averaging_is_imp_to_the_bit(recipe):
    one, other = train(recipe("imp")), train(recipe("swamp", particles=1))
    assert one.history == other.history
    assert same(one.masks, other.masks)
    assert same(one.weights, other.weights)
    assert same(one.buffers, other.buffers)


def test_every_cycle_starts_its_particles_from_the_ticket_under_one_mask():
    loop = Watched(short("swamp", particles=3, swa_epochs=1))
    found = list(METHODS["swamp"].solutions(loop))
    first, *trained = loop.calls
    assert len(trained) == 3 * len(found) == 3 * len(sparsity_levels(0.5, 0.2))
    for level, solution in enumerate(found):
        calls = trained[3 * level : 3 * level + 3]
        for n, call in enumerate(calls):
            assert same(call.start, first.after)
            assert call.masks is solution.masks
            assert call.how["particle"] == n
            assert call.after is solution.particles[n]
        assert not same(solution.particles[0], solution.particles[1])
        for name, value in solution.weights.items():
            particles = [particle[name].astype(np.float64) for particle in solution.particles]
            assert np.array_equal(value, np.mean(particles, axis=0).astype(np.float32))
            assert name not in solution.masks or not value[~solution.masks[name]].any()


@pytest.mark.parametrize("how", [{"weight_decay": 1e-3}, {"optimizer": "adam", "learning_rate": 1e-3}])
def test_a_training_has_the_bits_of_a_plain_loop_of_torch_with_one_call_a_parameter(how):
    recipe = small("dense", schedule="cosine", **how)
    loop = Loop.of(recipe)
    trained = loop.train(loop.weights(), loop.full_masks(), 0, loop.steps)
    network = Loop.of(recipe).network.train()
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, foreach=False)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=decay, foreach=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step, (inputs, labels) in enumerate(loop.batches.epoch(recipe.seed, 0, 0)):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(recipe, step / loop.steps_per_epoch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(trained[name], value.detach().numpy()) for name, value in network.state_dict().items())


def test_swamp_plus_trains_one_particle_in_its_first_levels():
    found = list(METHODS["swamp"].solutions(Loop.of(short("swamp", epochs=1, particles=2, solo_levels=2))))
    assert [len(solution.particles) for solution in found] == [1, 1, 2, 2, 2]


def test_batch_norms_of_a_mean_know_the_training_samples_again():
    loop = Loop.of(small("swamp", particles=2))
    found = list(METHODS["swamp"].solutions(loop))[-1]
    average = mean(found.particles)
    loop.load(average)
    network, seen = copy.deepcopy(loop.network), {}
    network.train()
    # The statistics of the first norm are those of its input over the epoch, batch by batch in equal parts.
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda module, given: seen.setdefault("means", []).append(given[0].mean((0, 2, 3))))
    with torch.no_grad():
        for inputs, _ in loop.batches.epoch(loop.recipe.seed, 0, 0):
            network(inputs)
    name = next(name for name in found.weights if name.endswith("running_mean"))
    assert found.weights[name] == pytest.approx(torch.stack(seen["means"]).mean(0).numpy(), rel=1e-4, abs=1e-5)
    assert not np.array_equal(found.weights[name], average[name])


def test_swa_is_the_mean_of_the_last_epochs_at_a_constant_rate():
    recipe = short("dense", epochs=4, swa_epochs=2, swa_learning_rate=0.03, momentum=0.0)
    loop, size = Loop.of(recipe), 23
    masks, tail = loop.full_masks(), {"schedule": "constant", "learning_rate": 0.03, "swa_epochs": 0}
    averaged = loop.train(loop.weights(), masks, 0, 4 * size, average=True)
    constant = Loop.of(override(recipe, **tail))
    at = [loop.train(Loop.of(recipe).weights(), masks, 0, 2 * size)]
    for epoch in (2, 3):
        at.append(constant.train(at[-1], masks, epoch * size, (epoch + 1) * size))
    for name, value in averaged.items():
        assert value == pytest.approx((at[1][name] + at[2][name]) / 2, abs=1e-6)


def test_a_shuffled_mask_keeps_the_count_of_each_layer_and_a_random_one_that_of_all():
    masks = {"a": np.arange(100).reshape(10, 10) < 10, "b": np.arange(60).reshape(6, 10) < 50}
    within = shuffled(masks, np.random.default_rng(0))
    assert [mask.sum() for mask in within.values()] == [10, 50]
    assert not np.array_equal(within["a"], masks["a"])
    across = random_masks(masks, np.random.default_rng(0))
    assert sum(mask.sum() for mask in across.values()) == 60
    assert [mask.shape for mask in across.values()] == [(10, 10), (6, 10)]
    assert [mask.sum() for mask in across.values()] != [10, 50]


@pytest.mark.parametrize("control", ["reinitialised", "shuffled", "random"])
def test_a_control_has_the_masks_of_the_ticket_or_its_weights_but_not_both(control):
    ticket, other = Watched(short("imp", rewind_step=0)), Watched(short("imp", rewind_step=0, control=control))
    list(METHODS["imp"].solutions(ticket))
    list(METHODS["imp"].solutions(other))
    alone, chain = ([call for call in loop.calls if call.how["stage"].startswith("level")] for loop in (ticket, other))
    controls = [call for call in other.calls if call.how["stage"].startswith("control")]
    assert all(same(one.after, two.after) for one, two in zip(alone, chain, strict=True))
    assert len(controls) == len(chain) - 1
    for tried, level in zip(controls, chain[1:], strict=True):
        assert same(tried.start, level.start) == (control != "reinitialised")
        assert same(tried.masks, level.masks) == (control == "reinitialised")


def test_pruning_and_fine_tuning_again_and_again_starts_from_the_weights_that_are_there():
    loop = Watched(short("iterative", sparsity=0.5, finetune_epochs=1))
    found = list(METHODS["iterative"].solutions(loop))
    assert [solution.masks["fc1.weight"].all() for solution in found] == [True, False, False, False, False]
    for before, call in pairwise(loop.calls):
        assert call.start is before.after
        assert call.how["finetune"]
    size = sum(mask.size for mask in found[-1].masks.values())
    assert sum(mask.sum() for mask in found[-1].masks.values()) == kept_count(size, 0.5)


def test_an_l1_norm_pulls_weights_to_0_and_leaves_biases():
    plain, pulled = (Loop.of(short("dense", momentum=0.0, learning_rate=0.1, l1=l1)) for l1 in (0.0, 0.25))
    start, masks = plain.weights(), plain.full_masks()
    one, other = (loop.train(start, masks, 0, 1) for loop in (plain, pulled))
    for name, value in start.items():
        pull = 0.1 * 0.25 * np.sign(value) if name in masks else 0
        assert one[name] - other[name] == pytest.approx(np.broadcast_to(pull, value.shape), abs=1e-6)


def test_a_pruned_channel_is_0_behind_its_bias_and_its_norm():
    run = train(small("one-shot", strategy="channel", sparsity=0.5, finetune_epochs=1))
    loop = Loop.of(run.recipe)
    found = companions(loop.network)
    pruned = [name for name, mask in run.masks.items() if mask.ndim > 1]
    assert len(pruned) == 3  # the last layer's channels are the classes
    for name in pruned:
        mask = run.masks[name]
        alive = mask.reshape(len(mask), -1).all(axis=1)
        assert np.array_equal(alive, mask.reshape(len(mask), -1).any(axis=1))
        assert alive.sum() == len(mask) // 2
        assert len(found[name]) >= 2
        for other in found[name]:
            assert np.array_equal(run.masks[other], alive)
            assert not run.weights[other][~alive].any()


def test_slimming_prunes_the_channels_of_the_smallest_scales():
    loop = Watched(small("slimming", scale_l1=1e-3, sparsity=0.5, finetune_epochs=1))
    dense, slim = METHODS["slimming"].solutions(loop)
    scales = {
        name: np.abs(dense.weights[name]) for name in slim.masks if slim.masks[name].ndim == 1 and "weight" in name
    }
    kept = np.concatenate([scales[name][slim.masks[name]] for name in scales])
    gone = np.concatenate([scales[name][~slim.masks[name]] for name in scales])
    assert len(kept) == len(gone) == 56
    assert kept.min() >= gone.max()
    loop = Loop.of(small("dense"))
    plain = loop.train(loop.weights(), {}, 0, 23)
    assert sum(scale.sum() for scale in scales.values()) < sum(np.abs(plain[name]).sum() for name in scales)
    with pytest.raises(InputError) as error:
        train(short("slimming", scale_l1=1e-3, sparsity=0.5))
    assert "something must be left to prune" in str(error.value)


def test_slimming_half_of_the_channels_keeps_the_accuracy_because_the_norm_has_emptied_them_before():
    recipe = load_recipe("convnet-digits-slimming", seed=10)
    loop = Loop.of(recipe)
    dense, slim = METHODS["slimming"].solutions(loop)
    assert recipe.sparsity == 0.5
    alive = [mask for name, mask in slim.masks.items() if name.startswith("norm") and name.endswith("weight")]
    assert sum(int(mask.sum()) for mask in alive) == 56
    assert min(int(mask.sum()) for mask in alive) > 5
    # Pruned, and not trained again yet, the network still works: few of its channels did anything.
    assert loop.evaluate(apply_masks(dense.weights, slim.masks))[0] > 0.5
    assert loop.evaluate(slim.weights)[0] > loop.evaluate(dense.weights)[0] - 0.02 > 0.94


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.conv(self.embed(tokens).transpose(1, 2)).transpose(1, 2)
        x = self.norm(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.lstm(x)[0].mean(dim=1))


def test_kernels_are_those_of_layers_that_multiply_and_biases_norms_and_embeddings_are_none():
    network = Everything()
    names = ["conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "lstm.weight_ih_l0",
             "lstm.weight_hh_l0", "head.weight"]  # fmt: skip
    assert list(kernels(network)) == names
    assert prunable(network, short("imp", prune_output=False)) == names[:-1]
    assert prunable(network, short("imp", exclude=["attention*", "lstm"])) == ["conv.weight", "head.weight"]
    assert prunable(network, short("one-shot", sparsity=0.5, strategy="kernel")) == ["conv.weight"]
    with pytest.raises(InputError) as error:
        prunable(network, short("imp", exclude=["fc1"]))
    assert str(error.value) == (
        "recipe lenet-digits-dense: exclude must name layers of the network, not 'fc1': "
        "conv, attention, attention.out_proj, lstm, head"
    )
    with pytest.raises(InputError) as error:
        prunable(nn.Sequential(nn.LayerNorm(3)), short("imp"))
    assert str(error.value) == (
        "the network must have a linear, convolution, attention or recurrent layer to be pruned, and has none"
    )


def test_a_kernel_is_used_once_a_position_step_or_token():
    counted = uses(Everything(), torch.zeros(4, 5, dtype=torch.long))
    assert counted == {
        "conv.weight": 5, "attention.in_proj_weight": 5, "attention.out_proj.weight": 5, "lstm.weight_ih_l0": 5,
        "lstm.weight_hh_l0": 5, "head.weight": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """Mean accuracies of the recipes mlp-digits-... over seeds that had no part in choosing their settings."""
    accuracies = []
    for seed in (10, 11, 12):
        loop = Loop.of(load_recipe("mlp-digits-imp", seed=seed))
        start = loop.weights()  # to step 0 it is rewound
        *_, ticket = METHODS["imp"].solutions(loop)
        controls = {
            which: control(Loop.of(load_recipe(f"mlp-digits-imp-{which}", seed=seed)), start, ticket.masks, 14)
            for which in ("reinit", "shuffled")
        }
        *_, once = METHODS["one-shot"].solutions(Loop.of(load_recipe("mlp-digits-oneshot", seed=seed)))
        solutions = {"imp": ticket, "one-shot": once, **controls}
        accuracies.append({name: loop.evaluate(each.weights)[0] for name, each in solutions.items()})
    return {name: float(np.mean([each[name] for each in accuracies])) for name in accuracies[0]}


def test_pruning_iteratively_beats_pruning_once_by_far(found):
    assert found["imp"] > 0.94
    assert found["imp"] > found["one-shot"] + 0.05
    assert found["one-shot"] > 0.75


def test_a_ticket_beats_its_mask_on_other_weights_and_that_beats_a_shuffled_mask(found):
    assert found["imp"] > found["reinit"] + 0.05
    assert found["reinit"] > found["shuffled"] + 0.2


def test_load_balance_inside_swamp_leaves_every_pe_its_share():
    recipe = short("swamp", particles=2, strategy="balanced", pe_count=32, scope="pe", epochs=1)
    for solution in METHODS["swamp"].solutions(Loop.of(recipe)):
        for name in ("fc1.weight", "fc2.weight"):
            rows = solution.masks[name].sum(axis=1)
            pes = np.array([rows[pe::32].sum() for pe in range(32)])
            share = solution.masks[name].mean() * np.array([len(rows[pe::32]) for pe in range(32)])
            assert np.abs(pes - share * solution.masks[name].shape[1]).max() <= 1
        assert same(apply_masks(solution.weights, solution.masks), solution.weights)
