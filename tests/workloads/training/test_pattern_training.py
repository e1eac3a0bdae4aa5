"""Training by patterns, and by ADMM: rounds to the bit, promises, and what is refused."""

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.training import load_recipe, train
from gossamer.workloads.training.loop import Loop
from gossamer.workloads.training.methods import METHODS
from gossamer.workloads.training.methods.solution import prune


def short(name="convnet-digits-pattern", **changes):
    few = {"epochs": 1, "finetune_epochs": 1, "samples": 1, "batch_size": 128}
    return load_recipe(name, **(few | changes))


def message(**changes):
    with pytest.raises(InputError) as error:
        short(**changes)
    return str(error.value).partition(": ")[2]


def test_a_run_by_patterns_keeps_its_promise_in_every_convolution():
    run = train(short())
    assert list(run.masks) == ["conv1.weight", "conv2.weight", "conv3.weight"]
    assert run.history[-1].sparsity == pytest.approx(0.8765, abs=0.002)
    for layer in run.trace.layers[:3]:
        assert layer.pattern == Pattern("kernel-pattern", n=4, m=8)
        assert set(np.count_nonzero(layer.mask, axis=(2, 3)).ravel()) == {0, 4}
    together = np.concatenate([mask.reshape(-1, 9) for mask in run.masks.values()])
    assert len(np.unique(together[together.any(axis=1)], axis=0)) <= 8  # one dictionary for all


def test_a_round_of_admm_is_that_of_the_paper():
    recipe = short("convnet-digits-pattern-admm", admm_rounds=2, admm_epochs=1)
    loop = Loop.of(recipe)
    *_, found = METHODS["admm"].solutions(loop)
    loop = Loop.of(recipe)
    masks = loop.full_masks()

    def pruned(weights):
        kept = prune(loop, weights, masks, recipe.sparsity)
        return {name: weights[name] * kept[name] for name in masks}

    W = loop.train(loop.weights(), masks, 0, loop.steps)
    Z, U = pruned(W), {name: np.zeros_like(W[name]) for name in masks}
    for _ in range(2):
        towards = {name: Z[name] - U[name] for name in masks}
        W = loop.train(W, masks, 0, loop.steps_per_epoch, finetune=True, towards=towards)
        Z = pruned({name: W[name] + U[name] for name in masks})
        U = {name: U[name] + W[name] - Z[name] for name in masks}
    final = prune(loop, W, masks, recipe.sparsity)
    weights = loop.train(W, final, 0, loop.steps_per_epoch, finetune=True)
    assert all(np.array_equal(found.masks[name], final[name]) for name in masks)
    assert all(np.array_equal(found.weights[name], value) for name, value in weights.items())


def test_a_strong_pull_leaves_little_to_prune():
    lost = {}
    for rho in (1e-6, 5.0):
        loop = Loop.of(short("convnet-digits-pattern-admm", admm_rounds=1, admm_epochs=3, rho=rho))
        masks, start = loop.full_masks(), loop.weights()
        goal = {
            name: start[name] * mask for name, mask in prune(loop, start, masks, loop.recipe.sparsity).items()
        }  # fmt: skip
        after = loop.train(start, masks, 0, 3 * loop.steps_per_epoch, finetune=True, towards=goal)
        lost[rho] = sum(float(np.square(after[name] - goal[name]).sum()) for name in masks)
    assert lost[5.0] < 0.1 * lost[1e-6]


def test_admm_leads_any_strategy():
    run = train(short("convnet-digits-pattern-admm", strategy="kernel", patterns=None, sparsity=0.5, admm_rounds=1))
    assert run.history[-1].sparsity == pytest.approx(0.5, abs=0.02)


def test_settings_that_do_not_go_together_are_refused():
    assert message(patterns=None) == "strategy pattern needs patterns, and has None"
    assert message(strategy="kernel") == "strategy kernel takes no patterns, and has 8"
    assert message(method="imp") == "strategy pattern must be of method one-shot or admm, not imp"
    assert message(rho=0.5) == "rho must be 0.3 but for method admm, not 0.5 for one-shot"
    assert message(admm_rounds=2) == "admm_rounds must be 4 but for method admm, not 2 for one-shot"


def test_a_sparsity_that_patterns_alone_exceed_is_refused():
    with pytest.raises(InputError) as error:
        train(short(sparsity=0.5))
    assert str(error.value) == (
        "recipe convnet-digits-pattern: sparsity must be at least the 0.5556 of patterns that keep 4 of 9 weights, "
        "not 0.5"
    )
